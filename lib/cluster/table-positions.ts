// What this node has of a table: the end of its stream, and how far each subscription of the table is. For nodes that compare it.

import type { Host, TableName } from '../host/host.ts'
import type { TableStatus } from '../replication/copy/row-messages.ts'
import type { Publisher } from '../replication/publish/publisher.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { Timers } from '../util/timers.ts'

export type TablePositionsOptions = {
  host: Pick<Host, 'horizon' | 'loadCheckpoint'>
  publisher: Pick<Publisher, 'metrics' | 'ensure'>
  replicator: Pick<Replicator, 'status'>
  timers: Timers
  /** Transactions that were applied here are in the local stream. */
  relayEnabled: boolean
}

/** ms that transactions which are committed may take to be published. */
const PUBLISH_TIMEOUT_MS = 1_000
const POLL_MS = 5

/** Rejects as the host does, and mesh_unavailable. */
export async function tableStatus(
  { database, table }: TableName,
  { host, publisher, replicator, timers, relayEnabled }: TablePositionsOptions,
): Promise<TableStatus> {
  const isPublished = await publishAll(publisher, timers)
  const { epoch, sequence } = await publisher.ensure({ database, table })
  const ofTable = replicator.status().filter(({ source }) => source.database === database && source.table === table)
  const checkpoints = await Promise.all(
    ofTable.map(async ({ source, state }) => ({ node: source.node, state, stored: await host.loadCheckpoint(source) })),
  )
  const sources = checkpoints.map(({ node, state, stored }) => {
    const { epoch = '', sequence = 0, index, quarantined, missing, copy } = stored ?? {}
    const isRelayed = relayEnabled && index !== undefined && !quarantined && !missing && !copy
    return { node, state, epoch, sequence, ...(isRelayed && { index }) }
  })
  const isReplaced = checkpoints.some(({ stored }) => stored?.copy?.replace)
  const horizon = await host.horizon?.({ database, table })
  const optional = { ...(isReplaced && { isReplaced }), ...(horizon !== undefined && { horizon }) }
  return { epoch, sequence, isPublished, sources, ...optional }
}

/** Resolves with true when everything that was committed before is in the streams; with false after a time. */
async function publishAll(publisher: Pick<Publisher, 'metrics'>, timers: Timers): Promise<boolean> {
  const first = publisher.metrics()
  // While more is committed all the time, there is always something in flight.
  const target = first.transactions + first.inFlight + first.waiting
  const end = timers.elapsed() + PUBLISH_TIMEOUT_MS
  for (;;) {
    const { inFlight, waiting, transactions } = publisher.metrics()
    if (inFlight + waiting === 0 || transactions >= target) return true
    if (timers.elapsed() >= end) return false
    await new Promise<void>((resolve) => timers.after(POLL_MS, resolve))
  }
}
