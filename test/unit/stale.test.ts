// A subscription that was not caught up for longer than `tombstoneAge` is stale: it says so, also after a restart, until its table is
// replaced by a copy.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ClusterEvents } from '../../lib/index.ts'
import { type ClusterNode, eventually, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const AGE_MS = 180_000
const STEP_MS = 30_000
/** ms by which the stored time may be older. */
const PRECISION_MS = 90_000

async function open(test: { after(work: () => Promise<void>): void }) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const cluster = await startCluster(2, { network, tables: [dog], options: { tombstoneAge: AGE_MS } })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes as [ClusterNode, ClusterNode]
  const advance = async (ms: number) => {
    for (let at = 0; at < ms; at += STEP_MS) await clock.advance(STEP_MS)
  }
  const stale: ClusterEvents['replication:stale'][0][] = []
  two.cluster.on('replication:stale', (event) => void stale.push(event))
  const staleSince = () => two.cluster.subscriptions()[0]?.staleSince
  return { clock, network, cluster, one, two, advance, stale, staleSince }
}

it('is stale after a gap at the end of a long absence, until the table is replaced', {
  timeout: 180_000,
}, async (test) => {
  const { clock, network, cluster, one, two, advance, stale, staleSince } = await open(test)
  await one.host.insert('dev', 'dog', { id: 1 }, { id: 2 })
  await cluster.converged()
  await advance(2 * AGE_MS)
  assert.equal(staleSince(), undefined, 'a quiet table is caught up')
  const before = clock.now()
  network.cut('node1', 'node2')
  await advance(AGE_MS + 5 * STEP_MS)
  await eventually('it is reported while the source is away', () => stale.length === 1)
  assert.ok(Math.abs(stale[0]!.since - before) < PRECISION_MS, `${stale[0]!.since - before}`)
  await one.host.delete('dev', 'dog', 1)
  await eventually('the stream has it', () => one.host.outbox.length === 0)
  await one.cluster.purgeStream(dog)
  // The delete can no longer be learned: the tombstone is dropped as well.
  one.host.dropTombstones('dev', 'dog', one.cluster.timestamp())
  network.heal()
  await advance(10 * STEP_MS)
  await cluster.converged()
  assert.ok(two.host.get('dev', 'dog', 1), 'the row that was deleted is still here')
  await two.stop()
  await two.start()
  await advance(2 * STEP_MS)
  assert.equal(staleSince(), stale[0]!.since, 'it survives a restart')
  const [connection] = (await two.cluster.status()).connections
  assert.equal(connection!.subscriptions[0]!.state, 'stale')
  assert.match(connection!.subscriptions[0]!.reason!, /replace: true/)
  await two.cluster.copy(source, { replace: true })
  await eventually('it is replaced', async () => {
    await clock.advance(100)
    return staleSince() === undefined && two.cluster.subscriptions()[0]!.state === 'live'
  })
  assert.deepEqual(two.host.records('dev', 'dog'), [{ id: 2 }])
})

it('is not stale any more when the stream has everything', { timeout: 180_000 }, async (test) => {
  const { network, cluster, one, advance, stale, staleSince } = await open(test)
  network.cut('node1', 'node2')
  await one.host.insert('dev', 'dog', { id: 1 })
  await advance(AGE_MS + 5 * STEP_MS)
  await eventually('it is reported', () => stale.length === 1)
  network.heal()
  await advance(10 * STEP_MS)
  await cluster.converged()
  assert.equal(staleSince(), undefined)
})
