// For every topology, with concurrent writes to the same rows and failing links: in the end all databases are equal, and no
// transaction was applied twice.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Write } from '../../lib/index.ts'
import { eventually } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'

const topologies: Record<string, (index: number, other: number, count: number) => boolean> = {
  chain: (index, other) => index - other === 1,
  ring: (index, other, count) => index - other === 1 || index - other === count - 1,
  star: (_, other) => other === 0,
  'full mesh': () => true,
}

const KEYS = ['a', 'b', 'c', 'd']
const ATTRIBUTES = ['x', 'y', 'z']

type Step =
  | { kind: 'write'; node: number; writes: Write[] }
  | { kind: 'cut' | 'drop'; node: number; other: number }
  | { kind: 'heal' }
  | { kind: 'pause' }

const write: fc.Arbitrary<Write> = fc
  .record({
    operation: fc.constantFrom(
      'insert' as const,
      'update' as const,
      'update' as const,
      'upsert' as const,
      'delete' as const,
    ),
    id: fc.constantFrom(...KEYS),
    values: fc.dictionary(fc.constantFrom(...ATTRIBUTES), fc.nat(99), { minKeys: 1 }),
  })
  .map(({ operation, id, values }) => {
    const table = { database: 'dev', table: 'dog' }
    if (operation === 'delete') return { operation, ...table, ids: [id] }
    return { operation, ...table, records: [{ id, ...values }] }
  })

const steps = (count: number): fc.Arbitrary<Step[]> => {
  const node = fc.nat(count - 1)
  return fc.array(
    fc.oneof(
      {
        weight: 12,
        arbitrary: fc.record({
          kind: fc.constant('write' as const),
          node,
          writes: fc.array(write, { minLength: 1, maxLength: 3 }),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom('cut' as const, 'drop' as const), node, other: node }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('heal' as const) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('pause' as const) }) },
    ),
    { minLength: 5, maxLength: 60 },
  )
}

async function run(scene: Scene, nodes: readonly MemoryNode[], plan: readonly Step[], label: string): Promise<void> {
  const dropped = new Set<MemoryNode>()
  const heal = () => {
    scene.network.heal()
    for (const node of dropped) scene.network.restart(node.name)
    dropped.clear()
  }
  let number = 0
  const acknowledged: Promise<void>[] = []
  for (const step of plan) {
    if (step.kind === 'write') acknowledged.push(nodes[step.node]!.host.write(`${label}-${number++}`, ...step.writes))
    else if (step.kind === 'heal') heal()
    else if (step.kind === 'pause') await new Promise((resolve) => setImmediate(resolve))
    else if (step.kind === 'drop') {
      dropped.add(nodes[step.node]!)
      scene.network.crash(nodes[step.node]!.name)
    } else if (step.node !== step.other) scene.network.cut(nodes[step.node]!.name, nodes[step.other]!.name)
  }
  heal()
  await Promise.all(acknowledged)
  // A relayed transaction is in an outbox before it is in a stream, so one quiet moment is not the end.
  await scene.quiet()
  let difference = ''
  await eventually(
    () => `equal databases: ${difference}`,
    () => {
      const [first, ...others] = nodes.map(({ host }) => JSON.stringify(host.contents('dev', 'dog'), sorted))
      difference = `${first} | ${others.find((each) => each !== first)}`
      return others.every((each) => each === first)
    },
  )
  await scene.quiet()
}

const sorted = (_: string, value: unknown) =>
  value && typeof value === 'object' && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value

/** Asserts that every node applied each transaction, by origin, epoch and sequence, at most once. */
function assertOnce(nodes: readonly MemoryNode[]): void {
  for (const { name, host } of nodes) {
    const places = host.received.map(({ transaction: { origin } }) => `${origin.node} ${origin.epoch} ${origin.index}`)
    assert.equal(new Set(places).size, places.length, `${name} applied something twice`)
    assert.ok(!places.some((place) => place.startsWith(`${name} `)), `${name} applied an echo`)
  }
}

async function converges(test: TestContext, topology: string, republishMessages: boolean): Promise<void> {
  const seed = seedOf()
  test.diagnostic(`SEED=${seed}`)
  const count = 4
  const scene = new Scene(test, { seed })
  const names = Array.from({ length: count }, (_, index) => `node${index + 1}`)
  const isLink = (index: number, other: number) => topologies[topology]!(index, other, count)
  const nodes = await scene.linked(names, isLink, { clustering: { republishMessages } })
  let round = 0
  await fc.assert(
    fc.asyncProperty(steps(count), async (plan) => {
      await run(scene, nodes, plan, `r${round++}`)
      assertOnce(nodes)
      for (const node of nodes) assert.deepEqual([node.gaps(), node.events['replication:quarantined']], [[], []])
    }),
    { seed, numRuns: isLong ? 200 : 20, endOnFailure: true },
  )
}

describe('all databases converge', { concurrency: 2 }, () => {
  for (const topology of Object.keys(topologies))
    it(`${topology}, with relaying`, { timeout: 120_000 }, (test) => converges(test, topology, true))
  it('full mesh, without relaying', { timeout: 120_000 }, (test) => converges(test, 'full mesh', false))
})
