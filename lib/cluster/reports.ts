// The events and log lines that report a commit, and what subscriptions do.

import type { ClusterEvents, EventName } from '../events/events.ts'
import type { Commit } from '../manifest/store.ts'
import type { Logger } from '../observe/logger.ts'
import type { SubscriberEvents } from '../replication/subscribe/subscriber.ts'

export type Emit = <Name extends EventName>(event: Name, ...args: ClusterEvents[Name]) => unknown

/** `manifest:changed` comes first, then one event for each change. */
export function reportCommit(emit: Emit, { previous, current, changes, cause }: Commit): void {
  emit('manifest:changed', { previous, current, changes, cause })
  for (const change of changes) {
    if (change.type === 'route:added') emit(change.type, { server: change.server, route: change.route, cause })
    else if (change.type === 'route:removed') emit(change.type, { server: change.server, route: change.route, cause })
    else if (change.type === 'node:added') emit(change.type, { node: change.node, cause })
    else if (change.type === 'node:updated') emit(change.type, { node: change.node, previous: change.previous, cause })
    else if (change.type === 'node:removed') emit(change.type, { node: change.node, cause })
  }
}

export const subscriptionReports = (emit: Emit, logger: Logger): SubscriberEvents => ({
  state: (source, state, previous, error) =>
    emit('subscription:state', { source, state, previous, ...(error ? { error } : {}) }),
  applied: (source, transactions, sequence) => emit('replication:applied', { source, transactions, sequence }),
  gap: (source, from, to, reason) => {
    const message =
      reason === 'checkpoint_lost'
        ? 'checkpoint lost: reading the stream from its first message'
        : 'replication gap: transactions lost before they were read'
    logger.warn({ ...source, from, to, reason }, message)
    emit('replication:gap', { source, from, to, reason })
  },
  stalled: (source, { sequence, id }, error, attempts) => {
    const at = { sequence, ...(id === undefined ? {} : { id }) }
    logger.warn({ ...source, ...at, reason: error, attempts }, 'subscription stalled, retrying')
    emit('replication:stalled', { source, error, attempts, ...at })
  },
  quarantined: (source, sequence, error) => {
    logger.error({ ...source, sequence, reason: error }, 'transaction quarantined')
    emit('replication:quarantined', { source, sequence, error })
  },
})

export function reportTableCreated(emit: Emit, logger: Logger, payload: ClusterEvents['table:created'][0]): void {
  logger.info({ ...payload }, 'table created for a subscription')
  emit('table:created', payload)
}
