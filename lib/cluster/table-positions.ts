// What this node has of a table: the end of its stream, and how far each subscription of the table is. For nodes that compare it.

import type { Checkpoint, Host, TableName } from '../host/host.ts'
import { newestAt } from '../replication/applied-ranges.ts'
import type { TableSource, TableStatus } from '../replication/copy/row-messages.ts'
import type { Publisher } from '../replication/publish/publisher.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'
import type { Timers } from '../util/timers.ts'

export type TablePositionsOptions = {
  host: Pick<Host, 'horizon' | 'loadCheckpoint'>
  publisher: Pick<Publisher, 'trackCommitted' | 'ensure'>
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
  const loadAll = () => {
    const ofTable = replicator.status().filter(({ source }) => source.database === database && source.table === table)
    const load = async ({ source, state }: SubscriptionStatus) => {
      return { node: source.node, state, stored: await host.loadCheckpoint(source) }
    }
    return Promise.all(ofTable.map(load))
  }
  // Before the end of the stream, which then has what they name.
  const relayed = relayEnabled ? await loadAll() : []
  const isPublished = await publishAll(publisher, timers)
  const { epoch, sequence } = await publisher.ensure({ database, table })
  const checkpoints = await loadAll()
  const sources = checkpoints.map(({ node, state, stored: { epoch = '', sequence = 0 } = {} }) => {
    const before = relayed.find((each) => each.node === node)?.stored
    return { node, state, epoch, sequence, ...relayedPosition(node, before, epoch) }
  })
  const isReplaced = checkpoints.some(({ stored }) => stored?.copy?.replace)
  const horizon = await host.horizon?.({ database, table })
  const optional = { ...(isReplaced && { isReplaced }), ...(horizon !== undefined && { horizon }) }
  return { epoch, sequence, isPublished, sources, ...optional }
}

/** Transactions that are missing or not copied yet are not in the local stream. */
function relayedPosition(node: string, checkpoint: Checkpoint | undefined, epoch: string): Partial<TableSource> {
  if (checkpoint?.epoch !== epoch) return {}
  const { sequence, index, applied, quarantined, missing, copy } = checkpoint
  if (quarantined || missing || copy) return {}
  if (index === undefined) return { relayedSequence: sequence }
  const newest = newestAt(applied, node, epoch, index)
  return { index, ...(newest !== undefined && { newest }) }
}

/** Resolves with true when everything that was committed before is in the streams; with false after a time. */
async function publishAll(publisher: Pick<Publisher, 'trackCommitted'>, timers: Timers): Promise<boolean> {
  const isPublished = publisher.trackCommitted()
  const end = timers.elapsed() + PUBLISH_TIMEOUT_MS
  while (!isPublished()) {
    if (timers.elapsed() >= end) return false
    await new Promise<void>((resolve) => timers.after(POLL_MS, resolve))
  }
  return true
}
