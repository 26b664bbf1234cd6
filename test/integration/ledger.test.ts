// Thousands of concurrent writes on three nodes, partly on the same keys, while a leaf, a hub and a whole node are killed.
// Afterwards all three tables equal each other and the ledger of acknowledged writes, row for row.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { Ledger } from '../support/ledger.ts'
import { isLong } from '../support/long.ts'
import { canonical, NodeProcess } from '../support/node-process.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

const WRITES = isLong ? 10_000 : 1_500
const SHARED_KEYS = 200
/** Concurrent requests to each node. */
const CONCURRENCY = 8
const dog = { database: 'dev', table: 'dog' }

let directory: string
let remove: () => Promise<void>
const nodes: NodeProcess[] = []

before(async () => {
  ;[directory, remove] = await temporaryDirectory()
  for (const name of ['node1', 'node2', 'node3']) nodes.push(await NodeProcess.create(directory, name))
  await Promise.all(nodes.map((node) => node.start()))
})

after(async () => {
  await Promise.all(nodes.map((node) => node.end()))
  await remove()
})

async function connect([first, second, third]: NodeProcess[]): Promise<void> {
  const route = { host: '127.0.0.1', port: first!.ports.cluster }
  for (const node of [second!, third!])
    await node.operation({ operation: 'cluster_set_routes', server: 'hub', routes: [route] })
  await first!.operation({ operation: 'create_database', database: 'dev' })
  await first!.operation({ operation: 'create_table', ...dog, primary_key: 'id' })
  const pairs: [NodeProcess, NodeProcess][] = [
    [first!, second!],
    [first!, third!],
    [second!, third!],
  ]
  for (const [node, other] of pairs) {
    const subscriptions = [{ ...dog, publish: true, subscribe: true }]
    const body = { operation: 'set_node_replication', node_name: other.name, subscriptions }
    await eventually(`${node.name} with ${other.name}`, async () => (await node.request(body)).status === 200)
  }
}

test('thousands of writes and three kills lose and change no acknowledged write', { timeout: 180_000 }, async (t) => {
  const seed = seedOf()
  t.diagnostic(`SEED=${seed}`)
  const random = randomNumbers(seed)
  await connect(nodes)
  const ledger = new Ledger()
  let started = 0

  /** One write. Without an answer it may be committed or not. */
  const write = async (node: NodeProcess): Promise<void> => {
    const number = started++
    const shared = random() < 0.5
    const id = shared ? `shared-${Math.trunc(random() * SHARED_KEYS)}` : `${node.name}-${number}`
    const value = shared && random() < 0.1 ? undefined : `${number} from ${node.name}`
    const body =
      value === undefined
        ? { operation: 'delete', ...dog, ids: [id] }
        : { operation: 'upsert', ...dog, records: [{ id, value, nested: { number } }] }
    try {
      const answer = await node.operation<{ timestamp: string; skipped_hashes?: string[] }>(body)
      // A delete of a missing row commits nothing and has no timestamp.
      if (answer.skipped_hashes?.length !== 1) ledger.addAcknowledged(id, value, answer.timestamp)
    } catch {
      ledger.addUnanswered(id, value)
      // A killed node starts again after 10 % more writes, and its start is slow on a busy machine.
      const answers = () => node.operation({ operation: 'describe_all' }).catch(() => false)
      await eventually(`${node.name} answers`, answers, 60_000)
    }
  }
  const writer = async (node: NodeProcess): Promise<void> => {
    while (started < WRITES) await write(node)
  }

  const reached = (share: number) => eventually(`${share * 100} % written`, () => started >= share * WRITES, 120_000)
  const [first, second, third] = nodes as [NodeProcess, NodeProcess, NodeProcess]
  const faults = async () => {
    await reached(0.2)
    await first.killServer('leaf')
    await reached(0.4)
    await second.killServer('hub')
    await reached(0.6)
    await third.kill()
    await reached(0.7)
    await third.start()
  }
  const writers = nodes.flatMap((node) => Array.from({ length: CONCURRENCY }, () => writer(node)))
  await Promise.all([faults(), ...writers])

  const tables = await eventually(
    'three equal tables',
    async () => {
      const all = await Promise.all(nodes.map(async (node) => (await node.rows('dev', 'dog')).map(canonical).sort()))
      return all.every((table) => table.join('\n') === all[0]!.join('\n')) && all
    },
    60_000,
  )
  assert.deepEqual(ledger.differences(await first.rows('dev', 'dog')), [])
  t.diagnostic(`${ledger.acknowledged} acknowledged writes, ${tables[0]!.length} rows on each of three nodes`)
})
