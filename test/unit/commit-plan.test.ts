// Commits that wait together: which are written together, with the same result as one by one.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { clusterError } from '../../lib/errors.ts'
import { planCommits } from '../../lib/manifest/commit-plan.ts'
import { ConfigFile } from '../../lib/manifest/config-file.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { applyChange } from '../../lib/manifest/diff.ts'
import { addRoutes, emptyManifest, type Manifest, setSubscriptions } from '../../lib/manifest/manifest.ts'
import { openStore } from './store-fixture.ts'

const subscribe =
  (node: string, publish = true) =>
  (manifest: Manifest) =>
    setSubscriptions(manifest, node, [{ database: 'dev', table: 'dog', publish, subscribe: true }])
const addRoute = (host: string) => (manifest: Manifest) => addRoutes(manifest, 'hub', [{ host, port: 1 }]).manifest
const nothing = (manifest: Manifest) => manifest
const refuse = () => {
  throw clusterError('node_not_found', 'x')
}

const together = (...changes: ((manifest: Manifest) => Manifest)[]) =>
  planCommits(
    emptyManifest,
    changes.map((change) => ({
      change,
      author: { cause: 'api' as const },
      revisions: undefined,
      resolve: () => {},
      reject: () => {},
    })),
  ).length

describe('commits that wait together', () => {
  it('are written together when they change different nodes, or routes', () => {
    assert.equal(together(subscribe('a'), subscribe('b'), addRoute('x'), addRoute('y'), subscribe('c')), 5)
    assert.equal(together(nothing, refuse, nothing, subscribe('a'), subscribe('b')), 5)
  })

  it('wait for earlier ones that change the same node, or that may be the reason why they change nothing', () => {
    assert.equal(together(subscribe('a'), subscribe('b'), subscribe('a', false), subscribe('c')), 2)
    assert.equal(together(subscribe('a'), nothing, subscribe('b')), 1)
    assert.equal(together(subscribe('a'), subscribe('a')), 1)
    assert.equal(together(subscribe('a'), refuse, subscribe('b')), 1)
  })

  it('need few writes, keep their order, and fail separately', async (test) => {
    const written = test.mock.method(ConfigFile.prototype, 'replace')
    const { store, path, listener } = await openStore(test, 'clustering:\n  enabled: true\n  nodeName: node1\n')
    const start = store.manifest
    written.mock.resetCalls()
    const names = Array.from({ length: 50 }, (_, index) => `n${index}`)
    const results = await Promise.allSettled([
      ...names.map((name) => store.commit(subscribe(name), 'api')),
      store.commit(refuse, 'api'),
      ...names.map((name) => store.commit(subscribe(name, false), 'api')),
    ])
    assert.deepEqual(
      results.flatMap(({ status }, index) => (status === 'rejected' ? [index] : [])),
      [50],
    )
    assert.equal(written.mock.callCount(), 2)
    let replayed = start
    for (let count = 0; count < 100; count++) {
      const { commit } = await listener.next()
      assert.equal(commit!.changes.length, 1)
      assert.equal(commit!.previous.nodes[count % 50]?.name, count < 50 ? undefined : `n${count % 50}`)
      replayed = commit!.changes.reduce(applyChange, replayed)
      assert.deepEqual(replayed, commit!.current)
    }
    assert.deepEqual(replayed, store.manifest)
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config?.manifest, store.manifest)
  })

  it('are all rejected, and nothing has changed, when the disk fails', async (test) => {
    const { store, listener } = await openStore(test, 'clustering:\n  enabled: true\n  nodeName: node1\n')
    const start = store.manifest
    test.mock.method(ConfigFile.prototype, 'replace', async () => {
      throw clusterError('config_unwritable', 'x', 'full')
    })
    const results = await Promise.allSettled(['a', 'b', 'c'].map((name) => store.commit(subscribe(name), 'api')))
    assert.ok(results.every(({ status }) => status === 'rejected'))
    assert.equal(store.manifest, start)
    assert.equal(listener.pending, 0)
  })
})
