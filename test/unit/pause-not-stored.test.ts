// A pause, or its end, that cannot be stored is rejected, and nothing changes: a restart would forget it.

import assert from 'node:assert/strict'
import { mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryHost } from '../../lib/testing.ts'
import { openCluster } from '../support/kit-cluster.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }

async function pair(test: TestContext) {
  const hosts = [1, 2].map(() => new MemoryHost({ tables: [dog] }))
  const opened = await openCluster(test, hosts)
  const [one, two] = opened.nodes as [ClusterNode, ClusterNode]
  await two.cluster.addNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
  await opened.cluster.converged()
  const file = join(two.directory, 'clustering', 'revisions.json')
  await eventually('the subscription is stored', async () => (await readFile(file, 'utf8')).includes('dog'))
  /** A file cannot take the place of a directory. */
  const breakFile = async () => {
    await rename(file, `${file}.kept`)
    await mkdir(file)
  }
  const restoreFile = async () => {
    await rm(file, { recursive: true })
    await rename(`${file}.kept`, file)
  }
  const stateOf = () => two.cluster.subscriptions()[0]?.state
  return { ...opened, one, two, breakFile, restoreFile, stateOf }
}

const unwritable = { code: 'state_unwritable', statusCode: 500, retryable: true }

it('a pause that cannot be stored is rejected, and rows still arrive', async (test) => {
  const { cluster, one, two, breakFile, restoreFile, stateOf } = await pair(test)
  await breakFile()
  await assert.rejects(two.cluster.pause(source), unwritable)
  await assert.rejects(two.cluster.pauseReplication({ node_name: 'node1', ...dog }), unwritable)
  assert.equal(stateOf(), 'live')
  await one.host.insert('dev', 'dog', { id: 1 })
  await cluster.converged()
  await restoreFile()
  await two.cluster.pause(source)
  await two.stop()
  await two.start()
  assert.equal(stateOf(), 'paused')
})

it('the end of a pause that cannot be stored is rejected, and the subscription stays paused', async (test) => {
  const { cluster, two, breakFile, restoreFile, stateOf } = await pair(test)
  await two.cluster.pause(source)
  await breakFile()
  await assert.rejects(two.cluster.resume(source), unwritable)
  assert.equal(stateOf(), 'paused')
  await restoreFile()
  await two.cluster.resume(source)
  await cluster.converged()
  await two.stop()
  await two.start()
  await cluster.converged()
  assert.equal(stateOf(), 'live')
})
