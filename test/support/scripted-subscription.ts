// A subscriber to a scripted remote stream, with a database and a quarantine.

import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Copies } from '../../lib/replication/copy/copies.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { LocalTables } from '../../lib/replication/subscribe/local-tables.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Subscriber } from '../../lib/replication/subscribe/subscriber.ts'
import type { SubscriberContext } from '../../lib/replication/subscribe/subscriber-options.ts'
import { Begun, sourceTables } from './begun.ts'
import { eventually, temporaryDirectory } from './cluster.ts'
import { MemoryHost } from './memory-host.ts'
import { RemoteStream, source } from './remote-stream.ts'
import { subscriberEvents } from './subscriber-events.ts'

/** A subscriber to a scripted stream. `earlier`: what is left of another one, as after a restart of the process. */
export async function subscribe(
  test: TestContext,
  options: Partial<SubscriberContext> = {},
  earlier: { stream?: RemoteStream; host?: MemoryHost; directory?: string } = {},
) {
  const [directory, remove] = earlier.directory ? [earlier.directory, async () => {}] : await temporaryDirectory()
  const { stream = new RemoteStream(), host = new MemoryHost([['dev', 'dog']]) } = earlier
  const time = { ahead: 0 }
  const clock = new HybridClock('node2', 300_000, () => Date.now() + time.ahead)
  const counters = replicationCounters()
  const reported: string[] = []
  const quarantine = await Quarantine.open({
    directory: join(directory, 'q'),
    maxMessages: 1_000,
    maxBytes: 1e6,
    logger: silentLogger,
  })
  const begun = new Begun()
  const tables = new LocalTables({ host, timers: stream.mesh.timers, begun, sources: sourceTables })
  const validate: LocalTables['validate'] = (table, transactions) => tables.validate(table, transactions)
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {}, validate })
  const context: SubscriberContext = {
    node: 'node2',
    host,
    relayEnabled: false,
    mesh: stream.mesh,
    timers: stream.mesh.timers,
    clock,
    quarantine,
    counters,
    logger: silentLogger,
    requestTimeout: 10_000,
    maxBatch: 10,
    maxBatchBytes: 1e6,
    maxApplyAttempts: 0,
    begun,
    tables,
    sourceTables,
    isSubscribed: ({ table }) => table === source.table,
    onTableDropped() {},
    copies: new Copies({
      host,
      rows: undefined,
      repair: true,
      hasOtherSource: () => false,
      copyFromOthers: async () => {},
    }),
    events: subscriberEvents({
      gap: (_, { from, to, reason }) => void reported.push(`gap ${from}..${to} ${reason}`),
      stalled: (_, { sequence }, error, attempts) =>
        void reported.push(`stalled at ${sequence}: ${error}, ${attempts}`),
      quarantined: ({ index, count }) =>
        void reported.push(`quarantined ${index}${count > 1 ? `..${index + count - 1}` : ''}`),
    }),
    ...options,
  }
  const subscriber = new Subscriber(context, { source, applier })
  test.after(async () => {
    await subscriber.stop()
    await remove()
  })
  /** Stores a checkpoint at this sequence. */
  const checkpointAt = (sequence: number, more: object = {}) => {
    stream.last = Math.max(stream.last, sequence)
    return host.apply({ source, transactions: [], checkpoint: { epoch: 'e1', sequence, index: sequence, ...more } })
  }
  if (!earlier.host) await checkpointAt(0)
  const applied = (...ids: string[]) =>
    eventually(`applied: ${host.applied}`, () => ids.every((id) => host.applied.includes(id)))
  return {
    directory,
    stream,
    host,
    clock,
    time,
    reported,
    quarantine,
    applier,
    tables,
    subscriber,
    checkpointAt,
    applied,
  }
}
