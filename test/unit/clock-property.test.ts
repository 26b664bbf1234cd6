// Random writes on nodes whose clocks jump, with restamps, replays and cut links: when the clocks are correct and every node was
// restamped, all databases are equal, and what is committed then replicates.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import type { Write } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { isLong } from '../support/long.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'

const dog = { database: 'dev', table: 'dog' }
const NODES = 2
/** The steps take less time than these differences, so the order of the clocks is certain. */
const DRIFT_MS = 60_000

type Step =
  | { kind: 'write'; node: number; write: Write }
  /** Multiples of an hour: far beyond the drift. */
  | { kind: 'jump'; node: number; hours: number }
  | { kind: 'restamp' | 'replay' | 'restart' | 'cut'; node: number }
  | { kind: 'settle' }
  | { kind: 'heal' }

const write: fc.Arbitrary<Write> = fc
  .record({
    operation: fc.constantFrom(
      'insert' as const,
      'update' as const,
      'update' as const,
      'upsert' as const,
      'delete' as const,
    ),
    id: fc.constantFrom('a', 'b', 'c'),
    values: fc.dictionary(fc.constantFrom('x', 'y', 'z'), fc.nat(99), { minKeys: 1 }),
  })
  .map(({ operation, id, values }) =>
    operation === 'delete' ? { operation, ...dog, ids: [id] } : { operation, ...dog, records: [{ id, ...values }] },
  )

const node = fc.nat(NODES - 1)
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 12, arbitrary: fc.record({ kind: fc.constant('write' as const), node, write }) },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('jump' as const), node, hours: fc.constantFrom(0, 0, 1, 2) }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constantFrom('restamp' as const, 'restamp' as const, 'replay' as const, 'restart' as const),
        node,
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), node }) },
    { weight: 3, arbitrary: fc.constantFrom<Step>({ kind: 'settle' }, { kind: 'heal' }) },
  ),
  { minLength: 5, maxLength: 40 },
)

const expected = (error: { code?: string }) => {
  if (error.code !== 'clock_ahead') throw error
}

async function take(step: Step, network: MemoryNetwork, nodes: readonly ClusterNode[]): Promise<void> {
  if (step.kind === 'heal') return network.heal()
  if (step.kind === 'settle') return void (await new Promise((resolve) => setTimeout(resolve, 20)))
  const { name, host, cluster } = nodes[step.node]!
  if (step.kind === 'write') return host.commit(step.write)
  if (step.kind === 'jump') return network.skew(name, step.hours * 3_600_000)
  if (step.kind === 'cut') return network.cut(name)
  if (step.kind === 'restamp') return void (await cluster.restamp().catch(expected))
  if (step.kind === 'restart') {
    await nodes[step.node]!.stop()
    return nodes[step.node]!.start()
  }
  for (const { source, state } of cluster.subscriptions()) if (state === 'live') await cluster.quarantine.replay(source)
}

/** The clocks are corrected, and every node restamps. */
async function recover(network: MemoryNetwork, nodes: readonly ClusterNode[]): Promise<void> {
  network.heal()
  for (const { name } of nodes) network.skew(name, 0)
  for (const { name, cluster } of nodes)
    await eventually(`${name} is restamped`, () =>
      cluster.restamp().then(
        () => true,
        // The last heartbeat of the peer still has its wrong time.
        (error) => expected(error),
      ),
    )
}

async function run(test: TestContext, list: readonly Step[]): Promise<void> {
  const network = new MemoryNetwork()
  const cluster = await startCluster(NODES, { network, tables: [dog], options: { maxClockDrift: DRIFT_MS } })
  test.after(() => cluster.close())
  try {
    for (const step of list) await take(step, network, cluster.nodes)
    await recover(network, cluster.nodes)
    for (const [index, { host, name }] of cluster.nodes.entries()) {
      await host.insert('dev', 'dog', { id: `last of ${name}` })
      await host.update('dev', 'dog', { id: 'a', x: `last of ${index}` })
      await cluster.converged()
    }
    const contents = cluster.nodes.map(({ host }) => host.records('dev', 'dog'))
    for (const {
      name,
      cluster: { quarantine },
    } of cluster.nodes)
      await eventually(`the quarantine of ${name} is empty`, () => quarantine.list().length === 0)
    for (const each of contents) assert.deepEqual(each, contents[0])
    assert.equal(contents[0]!.find(({ id }) => id === 'a')!.x, `last of ${NODES - 1}`)
    assert.equal(contents[0]!.filter(({ id }) => String(id).startsWith('last')).length, NODES)
  } finally {
    await cluster.close()
    await network.close()
  }
}

it('clocks that jump: all databases are equal after a restamp', { timeout: 600_000 }, async (test) => {
  await fc.assert(
    fc.asyncProperty(steps, (list) => run(test, list)),
    { seed: seedOf(), numRuns: isLong ? 300 : 15, endOnFailure: !isLong },
  )
})
