// A node that was renamed, and whose database was restored: rows that it wrote under an earlier name and gets back by a copy are announced, as
// those that it wrote under the present one.

import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { makeManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Registers } from '../../lib/peers/registers.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { copyDatabase } from '../support/memory-host-copy.ts'
import { has } from '../support/waits.ts'

const dog = { database: 'dev', table: 'dog' }

async function rename({ configFile }: ClusterNode, from: string, to: string) {
  const text = await readFile(configFile, 'utf8')
  await writeFile(configFile, text.replace(JSON.stringify(from), JSON.stringify(to)))
}

it('rows under an earlier name reach the peers that no stream can bring them to', { timeout: 60_000 }, async (test) => {
  const network = new MemoryNetwork()
  const cluster = await startCluster(['node1', 'node2', 'node3'], { network, tables: [dog] })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two, three] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
  await one.host.insert('dev', 'dog', { id: 'old' })
  await cluster.converged()
  const goBack = copyDatabase(one.host)
  await two.stop()
  await one.host.insert('dev', 'dog', { id: 'undone' })
  await eventually('node3 has it', () => has(three, 'undone') && one.host.outbox.length === 0)
  await one.stop()
  goBack()
  await rename(one, 'node1', 'berlin')
  await one.start()
  await two.start()
  await two.host.insert('dev', 'dog', { id: 'later' })
  await eventually('all are connected', () => has(one, 'later') && has(three, 'later'))
  await one.cluster.copy({ node: 'node3', ...dog })
  await eventually('it is back', () => has(one, 'undone'))
  await eventually('node2 has it too', () => has(two, 'undone'))
})

it('all names that a node has had are kept', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-names-'))
  test.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'revisions.json')
  const open = async (nodeName: string) => {
    const registers = await Registers.open(
      path,
      makeManifest({ nodeName }),
      new HybridClock(nodeName, 300_000),
      silentLogger,
    )
    registers.paused.add({ node: 'other', database: 'dev', table: 'dog' })
    registers.paused.delete({ node: 'other', database: 'dev', table: 'dog' })
    await registers.store()
    return registers.earlierNames
  }
  assert.deepEqual(await open('a'), [])
  assert.deepEqual(await open('b'), ['a'])
  assert.deepEqual(await open('c'), ['a', 'b'])
  assert.deepEqual(await open('a'), ['b', 'c'])
  assert.deepEqual(await open('a'), ['b', 'c'])
})
