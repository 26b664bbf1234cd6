// Versions of formats: a node speaks the current version and the one before, and refuses every other with both versions in the text.

import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { makeManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { decodeHeartbeat, decodeRequest, decodeResponse, encode, PROTOCOL_VERSION } from '../../lib/peers/protocol.ts'
import { Registers, STATE_VERSION } from '../../lib/peers/registers.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { commonVersion, readableVersions, type Versions } from '../../lib/util/format-version.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { temporaryDirectory } from './store-fixture.ts'

const operation = 'cluster_status'

type Node = { peers: Peers; rejected: string[]; up: Set<string>; requests: number[] }

async function startNode(
  test: TestContext,
  network: MemoryNetwork,
  node: string,
  versions: Versions | undefined,
): Promise<Node> {
  const mesh = network.mesh(node)
  await mesh.open(node, { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
  const up = new Set<string>()
  const rejected: string[] = []
  const requests: number[] = []
  const { serve } = mesh
  mesh.serve = (handler) =>
    serve.call(mesh, (data) => {
      requests.push(decodeRequest(data)!.v!)
      return handler(data)
    })
  const peers = new Peers({
    mesh,
    host: new MemoryHost(),
    node,
    clusteringPort: 0,
    operationsApiPort: undefined,
    logger: silentLogger,
    requestTimeout: 5_000,
    negotiate: async () => undefined,
    answerRows: async () => undefined,
    positions: () => [],
    ...(versions && { versions }),
    listener: {
      up: (name) => up.add(name),
      down: (name) => up.delete(name),
      returned() {},
      rejected: (name, reason) => rejected.push(`${name}: ${reason}`),
      superseded() {},
      streams() {},
      time() {},
    },
  })
  peers.start()
  test.after(async () => {
    peers.close()
    await mesh.close()
  })
  return { peers, rejected, up, requests }
}

describe('versions of the protocol', () => {
  it('have a common one if their ranges overlap', () => {
    assert.deepEqual(readableVersions(1), [1, 1])
    assert.deepEqual(readableVersions(5), [4, 5])
    assert.equal(commonVersion([4, 5], [5, 6]), 5)
    assert.equal(commonVersion([4, 5], [3, 4]), 4)
    assert.equal(commonVersion([4, 5], [6, 7]), undefined)
    assert.equal(commonVersion([4, 5], [1, 3]), undefined)
  })

  it('a node talks with nodes of the version before and of the next one in the common version', async (test) => {
    const network = new MemoryNetwork()
    const node1 = await startNode(test, network, 'node1', [4, 5])
    const older = await startNode(test, network, 'older', [3, 4])
    const newer = await startNode(test, network, 'newer', [5, 6])
    await eventually('all are up', () => node1.up.size === 2 && older.up.size === 1 && newer.up.size === 1)
    const status = await node1.peers.status('older')
    assert.equal(status.status, 'open')
    assert.equal((await older.peers.status('node1')).status, 'open')
    assert.equal((await node1.peers.status('newer')).status, 'open')
    assert.equal((await newer.peers.status('node1')).status, 'open')
    assert.deepEqual([older.requests, newer.requests, node1.requests], [[4], [5], [4, 5]])
    assert.deepEqual(node1.rejected, [])
  })

  it('a node refuses a node that is further away, and both report it with both versions', async (test) => {
    const network = new MemoryNetwork()
    const node1 = await startNode(test, network, 'node1', [4, 5])
    const node2 = await startNode(test, network, 'node2', [7, 8])
    await eventually('both reported it', () => node1.rejected.length > 0 && node2.rejected.length > 0)
    assert.deepEqual(node1.rejected, ['node2: it speaks protocol version 7 to 8, this node 4 to 5'])
    assert.deepEqual(node2.rejected, ['node1: it speaks protocol version 4 to 5, this node 7 to 8'])
    assert.equal(node1.peers.isUp('node2'), false)
    await assert.rejects(node1.peers.request('node2', { operation }, { operation }), {
      code: 'peer_rejected',
      message: /it speaks protocol version 7 to 8, this node 4 to 5/,
    })
    assert.deepEqual([...node1.requests, ...node2.requests], [], 'no request was sent')
    // The next heartbeats are not reported again.
    node1.peers.sendHeartbeat()
    node2.peers.sendHeartbeat()
    assert.deepEqual([node1.rejected.length, node2.rejected.length], [1, 1])
  })

  it('a request of an unknown version is answered with an error that names both versions', async () => {
    let answer = async (_data: Uint8Array): Promise<Uint8Array> => new Uint8Array()
    const peers = new Peers({
      node: 'node1',
      host: new MemoryHost(),
      logger: silentLogger,
      mesh: {
        serve: (handler: typeof answer) => {
          answer = handler
        },
        listen() {},
        announce() {},
        timers: { now: Date.now, elapsed: () => 0, every: () => () => {} },
      },
      positions: () => [],
    } as never)
    peers.start()
    const ask = async (v: number | undefined) =>
      decodeResponse(await answer(encode({ operation, node_name: 'node2', ...(v === undefined ? {} : { v }) })))
    assert.deepEqual((await ask(PROTOCOL_VERSION))?.status, 'success')
    assert.equal((await ask(undefined))?.status, 'success', 'HarperDB names no version')
    const refusal = await ask(9)
    assert.equal(refusal?.status, 'error')
    assert.equal(refusal?.message, 'the message has protocol version 9, node node1 speaks 1')
  })

  it('a heartbeat of a later version is read as far as it says who speaks which version', () => {
    const future = encode({ node: 'node2', versions: [8, 9], renamed: true } as never)
    assert.deepEqual(decodeHeartbeat(future), { head: { node: 'node2', versions: [8, 9], renamed: true } })
  })
})

describe('versions of files', () => {
  it('a revision file of a later version is refused, and stays as it is', async (test) => {
    const path = join(await temporaryDirectory(test), 'revisions.json')
    const clock = { timestamp: () => '', resume() {} }
    const content = JSON.stringify({ v: STATE_VERSION + 1, nodes: 'something else' })
    await writeFile(path, content)
    await assert.rejects(Registers.open(path, makeManifest({ nodeName: 'node1' }), clock, silentLogger), {
      code: 'version_unsupported',
      message: `${path} has version 2, this version of enmesh reads version 1`,
    })
    assert.equal(await readFile(path, 'utf8'), content)
  })

  it('a revision file names its version', async (test) => {
    const path = join(await temporaryDirectory(test), 'revisions.json')
    const clock = { timestamp: () => '', resume() {} }
    const registers = await Registers.open(path, makeManifest({ nodeName: 'node1' }), clock, silentLogger)
    await registers.flush()
    assert.equal(JSON.parse(await readFile(path, 'utf8')).v, 1)
  })

  it('a quarantine file of a later version is refused, and stays as it is', async (test) => {
    const directory = join(await temporaryDirectory(test), 'quarantine')
    await mkdir(directory)
    await writeFile(join(directory, 'file.json'), JSON.stringify({ v: 2 }))
    const options = { directory, maxMessages: 10, maxBytes: 1_000, logger: silentLogger }
    await assert.rejects(Quarantine.open(options), {
      code: 'version_unsupported',
      message: `${join(directory, 'file.json')} has version 2, this version of enmesh reads version 1`,
    })
    assert.equal(await readFile(join(directory, 'file.json'), 'utf8'), '{"v":2}')
  })
})
