// Configuration by server version: each version gets only keys that it supports.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hubConfiguration, leafConfiguration, type ServerSettings } from '../../lib/mesh/nats/configuration.ts'
import {
  FEATURES,
  ignoredSettings,
  isAtLeast,
  supports,
  type Version,
  versionText,
} from '../../lib/mesh/nats/versions.ts'

const settings: ServerSettings = {
  node: 'node1',
  user: 'user',
  password: 'password',
  clusterName: 'harperdb',
  listen: '127.0.0.1',
  ports: { cluster: 9932, leafNodes: 9931, hub: 9930, leaf: 9940 },
  logLevel: 'error',
  storeDirectory: '/store',
  sync: 'always',
  routeCompression: 's2_fast',
}
const hub = (version: Version) => JSON.parse(hubConfiguration(settings, [], '/hub.pid', version))
const leaf = (version: Version) => JSON.parse(leafConfiguration(settings, [], '/leaf.pid', version))

describe('versions', () => {
  it('compares by part', () => {
    const ordered: Version[] = [
      [2, 9, 9],
      [2, 9, 10],
      [2, 10, 0],
      [2, 15, 1],
      [3, 0, 0],
    ]
    for (const [index, lower] of ordered.entries())
      for (const [other, higher] of ordered.entries())
        assert.equal(isAtLeast(higher, lower), other >= index, `${versionText(higher)} and ${versionText(lower)}`)
  })
})

describe('the configuration of a server', () => {
  it('has only keys that 2.9 supports', () => {
    const { leafnodes, cluster } = hub([2, 9, 10])
    assert.deepEqual(Object.keys(leafnodes), ['listen', 'no_advertise'])
    assert.deepEqual(Object.keys(cluster), ['name', 'listen', 'no_advertise', 'authorization', 'routes'])
    const { jetstream, leafnodes: remotes } = leaf([2, 9, 10])
    assert.deepEqual(Object.keys(jetstream), ['store_dir', 'domain', 'max_file_store'])
    for (const remote of remotes.remotes)
      assert.deepEqual(Object.keys(remote), ['account', 'no_randomize', 'urls', 'deny_imports'])
  })

  it('turns compression of leafnodes off on both ends from 2.10 on', () => {
    for (const version of [
      [2, 10, 0],
      [2, 12, 9],
      [2, 15, 1],
    ] as const) {
      assert.equal(hub(version).leafnodes.compression, 'off')
      for (const remote of leaf(version).leafnodes.remotes) assert.equal(remote.compression, 'off')
      assert.equal(hub(version).cluster.pool_size, -1)
      assert.equal(hub(version).cluster.compression, 's2_fast')
      assert.equal(leaf(version).jetstream.sync_interval, 'always')
    }
  })

  it('advertises hubs only from 2.15 on, where leaves ignore it', () => {
    assert.equal(hub([2, 14, 9]).leafnodes.no_advertise, true)
    assert.equal(hub([2, 15, 0]).leafnodes.no_advertise, undefined)
    for (const [version, ignores] of [
      [[2, 13, 0], undefined],
      [[2, 14, 0], true],
    ] as const)
      for (const remote of leaf(version).leafnodes.remotes) assert.equal(remote.ignore_discovered_servers, ignores)
  })

  it('raises the queue limit of streams from 2.11 on: the publisher limits messages in flight', () => {
    assert.equal(leaf([2, 10, 27]).jetstream.max_buffered_msgs, undefined)
    assert.ok(leaf([2, 11, 0]).jetstream.max_buffered_msgs > 65_536, 'the largest publishWindow')
    assert.ok(leaf([2, 11, 0]).jetstream.max_buffered_size > 2 ** 31, 'the largest maxQueuedBytes')
  })

  it('omits keys of unset options', () => {
    const plain = { ...settings, sync: undefined, routeCompression: undefined }
    assert.equal(JSON.parse(hubConfiguration(plain, [], '', [2, 15, 1])).cluster.compression, undefined)
    assert.equal(JSON.parse(leafConfiguration(plain, [], '', [2, 15, 1])).jetstream.sync_interval, undefined)
  })
})

describe('the mapping of the domain', () => {
  const textOf = (node: string) => leafConfiguration({ ...settings, node }, [], '/leaf.pid', [2, 15, 1])

  it('has a key with the quotes that the name of the node leaves', () => {
    assert.match(textOf('node1'), /"mappings": \{\s*"\$JS\.node1-leaf\.API\.>": "\$JS\.API\.>"\s*\}/)
    assert.match(textOf('a"b'), /\s'\$JS\.a"b-leaf\.API\.>': /)
    assert.match(textOf("a'b"), /\s"\$JS\.a'b-leaf\.API\.>": /)
    assert.match(textOf('a\\b'), /\s"\$JS\.a\\b-leaf\.API\.>": /)
    assert.match(textOf(`a'"b`), /\s\$JS\.a'"b-leaf\.API\.>: /)
  })

  it('is left out when no key can be written', () => {
    assert.match(textOf(`a'":b`), /"mappings": \{\s*\}/)
  })
})

describe('settings that a version ignores', () => {
  it('are reported with the version that supports them', () => {
    assert.deepEqual(ignoredSettings([2, 9, 10], settings), [
      { key: 'clustering.leafServer.streams.sync', since: '2.10.0' },
      { key: 'clustering.hubServer.cluster.compression', since: '2.10.0' },
    ])
    assert.deepEqual(ignoredSettings([2, 9, 10], {}), [])
    assert.deepEqual(ignoredSettings([2, 10, 0], settings), [])
  })

  it('follow the table of features', () => {
    for (const [name, { since, why }] of Object.entries(FEATURES)) {
      assert.equal(supports(since, name as keyof typeof FEATURES), true)
      assert.equal(supports([2, 9, 0], name as keyof typeof FEATURES), false)
      assert.ok(why.length > 20, name)
    }
  })
})
