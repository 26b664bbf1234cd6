// The quarantine as operators use it.

import type { RemoteTable } from '../host/host.ts'
import type { QuarantinedMessage } from '../replication/subscribe/quarantine.ts'
import type { ReplayOutcome } from '../replication/subscribe/quarantine-release.ts'
import type { Subscriber } from '../replication/subscribe/subscriber.ts'
import type { OperationRunner } from './operation-runner.ts'
import type { Service } from './service.ts'

export interface QuarantineControl {
  /** Those of one remote table, or of all, in the order of the streams. Empty while clustering is disabled. */
  list(source?: RemoteTable): QuarantinedMessage[]
  /**
   * Quarantines the transaction that the database refuses now (`refused` in `cluster.subscriptions()`), so that the table moves on.
   * It is tried once more before. Resolves with the quarantined message. Rejects subscription_not_stalled when no transaction is
   * refused, quarantine_full, subscription_not_found, clustering_disabled, closed, internal (the database refuses the new checkpoint too).
   */
  add(source: RemoteTable): Promise<QuarantinedMessage>
  /**
   * Applies the transactions with these indexes, or all; keeps those that still fail. Rejects subscription_not_found,
   * clustering_disabled, closed, internal (the host rejected one: it stays; all others were tried).
   */
  replay(source: RemoteTable, indexes?: readonly number[]): Promise<ReplayOutcome>
  /** Deletes them: they are lost for this node. Resolves with their indexes. Rejects as `replay`. */
  discard(source: RemoteTable, indexes?: readonly number[]): Promise<number[]>
}

/** `service` returns undefined while clustering is disabled. */
export function createQuarantineControl(
  runner: Pick<OperationRunner, 'withService'>,
  service: () => Pick<Service, 'quarantine'> | undefined,
): QuarantineControl {
  const withSubscriber = <T>(source: RemoteTable, work: (subscriber: Subscriber) => Promise<T>) =>
    runner.withService(async ({ replicator }) => work(replicator.requireSubscriber(source)))
  return {
    list: (source) => service()?.quarantine.list(source) ?? [],
    add: (source) => withSubscriber(source, (subscriber) => subscriber.quarantineRefused()),
    replay: (source, indexes) => withSubscriber(source, (subscriber) => subscriber.replay(indexes)),
    discard: (source, indexes) => withSubscriber(source, (subscriber) => subscriber.discard(indexes)),
  }
}
