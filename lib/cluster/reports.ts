// The events and log lines that report what happens to the configuration, and what subscriptions do.

import type { ClusterEvents, EventName } from '../events/events.ts'
import { type Problem, problemText } from '../manifest/config-text.ts'
import type { Commit, StoreListener } from '../manifest/store.ts'
import type { Logger } from '../observe/logger.ts'
import type { SubscriberEvents } from '../replication/subscribe/subscriber.ts'
import type { CheckedOptions } from './options.ts'

export type Emit = <Name extends EventName>(event: Name, ...args: ClusterEvents[Name]) => unknown

/** `manifest:changed` comes first, then one event for each change. */
function reportCommit(emit: Emit, { previous, current, changes, cause }: Commit): void {
  emit('manifest:changed', { previous, current, changes, cause })
  for (const change of changes) {
    if (change.type === 'route:added') emit(change.type, { server: change.server, route: change.route, cause })
    else if (change.type === 'route:removed') emit(change.type, { server: change.server, route: change.route, cause })
    else if (change.type === 'node:added') emit(change.type, { node: change.node, cause })
    else if (change.type === 'node:updated') emit(change.type, { node: change.node, previous: change.previous, cause })
    else if (change.type === 'node:removed') emit(change.type, { node: change.node, cause })
  }
}

export function storeReports(
  emit: Emit,
  { configFile: file, logger }: Pick<CheckedOptions, 'configFile' | 'logger'>,
): Partial<StoreListener> {
  const reportFile = (event: 'config:rejected' | 'config:missing', problems: readonly Problem[], message: string) => {
    logger.warn({ file, problems: problems.map(problemText) }, message)
    emit(event, { problems })
  }
  return {
    committed: (commit) => reportCommit(emit, commit),
    rejected: (problems) => reportFile('config:rejected', problems, 'configuration file rejected'),
    missing: (problems) => reportFile('config:missing', problems, 'configuration file missing'),
  }
}

export const subscriptionReports = (emit: Emit, logger: Logger): SubscriberEvents => ({
  state: (source, state, previous, error) =>
    emit('subscription:state', { source, state, previous, ...(error ? { error } : {}) }),
  applied: (source, transactions, sequence) => emit('replication:applied', { source, transactions, sequence }),
  gap: (source, from, to, reason) => {
    logger.warn({ ...source, from, to, reason }, 'replication gap: transactions lost before they were read')
    emit('replication:gap', { source, from, to, reason })
  },
  stalled: (source, sequence, error, attempts) => {
    logger.warn({ ...source, sequence, reason: error, attempts }, 'database rejected a batch, retrying')
    emit('replication:stalled', { source, sequence, error, attempts })
  },
  quarantined: (source, sequence, error) => {
    logger.error({ ...source, sequence, reason: error }, 'transaction quarantined')
    emit('replication:quarantined', { source, sequence, error })
  },
})
