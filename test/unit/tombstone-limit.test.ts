// Below which timestamp a database may drop tombstones: the lowest clock of the cluster less `tombstoneAge`.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import { ClusterManager } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }
const DAY_MS = 86_400_000
const AGE_MS = 30 * DAY_MS
/** Heartbeats take some time. */
const TOLERANCE_MS = 5_000

async function open(test: TestContext, count: number, tombstoneAge?: number) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const options = tombstoneAge === undefined ? {} : { tombstoneAge }
  const cluster = await startCluster(count, { network, tables: [dog], options })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  return { clock, network, cluster, nodes: cluster.nodes as readonly ClusterNode[] }
}

/** ms between the present and the limit of a node; undefined without a limit. */
function ageOf({ cluster }: ClusterNode, now: number): number | undefined {
  const limit = cluster.tombstoneLimit()
  return limit === undefined ? undefined : now - wallTimeOf(limit)
}

const isAbout = (age: number | undefined, expected: number) =>
  age !== undefined && Math.abs(age - expected) < TOLERANCE_MS

describe('the limit of tombstones', () => {
  it('is 30 days before the present, with the name of the node', async (test) => {
    const { clock, nodes } = await open(test, 2)
    for (const node of nodes) {
      assert.ok(isAbout(ageOf(node, clock.now()), AGE_MS))
      assert.match(node.cluster.tombstoneLimit()!, new RegExp(`^[0-9a-f]{12}-000000-${node.name}$`))
    }
  })

  it('follows the option tombstoneAge', async (test) => {
    const { clock, nodes } = await open(test, 1, DAY_MS)
    assert.ok(isAbout(ageOf(nodes[0]!, clock.now()), DAY_MS))
  })

  it('follows the node whose clock is behind most, as long as it is up', async (test) => {
    const { clock, network, nodes } = await open(test, 3)
    const [one, two] = nodes
    network.skew('node2', -10 * DAY_MS)
    await eventually('a heartbeat arrives', () => isAbout(ageOf(one!, clock.now()), AGE_MS + 10 * DAY_MS))
    assert.equal(two!.cluster.tombstoneLimit(), undefined, 'its earlier timestamps are ahead of its clock')
    network.cut('node1', 'node2')
    await clock.advance(10_000)
    assert.ok(isAbout(ageOf(one!, clock.now()), AGE_MS), 'a node that is down counts no more')
  })

  it('is missing while the clock of the node is ahead', async (test) => {
    const { clock, network, nodes } = await open(test, 2)
    const [one, two] = nodes
    network.skew('node1', 40 * DAY_MS)
    await eventually('the clock is reported', () => one!.cluster.clock.reason === 'wall-clock')
    assert.equal(one!.cluster.tombstoneLimit(), undefined)
    assert.ok(isAbout(ageOf(two!, clock.now()), AGE_MS), 'the other node is not misled')
    await one!.host.insert('dev', 'dog', { id: 1 })
    network.skew('node1', 0)
    await eventually('its timestamps are ahead', () => one!.cluster.clock.reason === 'timestamps')
    assert.equal(one!.cluster.tombstoneLimit(), undefined)
    await one!.cluster.restamp()
    assert.ok(isAbout(ageOf(one!, clock.now()), AGE_MS))
  })

  it('is by the local clock while clustering is disabled', async (test) => {
    const [directory, remove] = await temporaryDirectory()
    test.after(remove)
    const configFile = join(directory, 'config.yaml')
    await writeFile(configFile, 'clustering: { enabled: false }\n')
    const cluster = await ClusterManager.open({ configFile, host: new MemoryHost(), tombstoneAge: DAY_MS })
    test.after(() => cluster.close())
    assert.ok(Math.abs(Date.now() - DAY_MS - wallTimeOf(cluster.tombstoneLimit()!)) < TOLERANCE_MS)
    await assert.rejects(ClusterManager.open({ configFile, host: new MemoryHost(), tombstoneAge: 1 }), {
      code: 'invalid_option',
      message: /tombstoneAge.*60000/,
    })
  })
})
