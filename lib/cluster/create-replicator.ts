// The replicator as the options of the manager want it.

import type { RemoteTable } from '../host/host.ts'
import type { HybridClock } from '../host/hybrid-clock.ts'
import type { ManifestStore } from '../manifest/store.ts'
import { ReadBudget } from '../mesh/read-budget.ts'
import { createDelayRecorder } from '../observe/meter.ts'
import type { ProgressTask } from '../observe/progress.ts'
import { Replicator } from '../replication/subscribe/replicator.ts'
import type { ReplicatorOptions } from '../replication/subscribe/replicator-options.ts'
import type { Foundation } from './foundation.ts'
import type { CheckedOptions } from './options.ts'
import { type Emit, subscriptionReports } from './reports.ts'
import type { RowExchange } from './row-exchange.ts'

export type ReplicatorParts = Pick<
  ReplicatorOptions,
  'relay' | 'sourceTables' | 'onCheckpoint' | 'sessionOf' | 'isSilent' | 'onCompared'
> & {
  store: ManifestStore
  clock: HybridClock
  emit: Emit
  rows: RowExchange['requests']
  /** ms by which the clock of that node is ahead of the local one, as far as that is known. */
  aheadOf(peer: string): number | undefined
  progress(task: ProgressTask): (done: number, total?: number) => void
}

export function createReplicator(
  options: CheckedOptions,
  { mesh, quarantine, registers }: Pick<Foundation, 'mesh' | 'quarantine' | 'registers'>,
  { store, clock, emit, rows, aheadOf, progress, ...parts }: ReplicatorParts,
): Replicator {
  const { host, logger, requestTimeout, maxBatch, maxBatchBytes, maxApplyAttempts, maxCatchUpBytes } = options
  const { repair, meter, tombstoneAge } = options
  const { nodeName: node } = store.manifest
  const now = () => mesh.timers.now()
  return new Replicator({
    ...{ mesh, host, node, clock, quarantine, logger, requestTimeout },
    ...{ maxBatch, maxBatchBytes, maxApplyAttempts, repair, tombstoneAge },
    ...rows,
    ...parts,
    ...(meter && { onApplied: createDelayRecorder({ meter, node, now, aheadOf }) }),
    progress: () => progress({ task: 'catch-up' }),
    earlierNames: registers.earlierNames,
    begun: registers.begun,
    isPaused: (source) => registers.paused.has(source),
    requestedStart: (source) => registers.openStart(source),
    budget: new ReadBudget(maxCatchUpBytes),
    relayEnabled: store.settings.republishMessages,
    subscribedSince: (source: RemoteTable) => registers.get(source.node, source)?.subscribeSince,
    events: subscriptionReports(emit, logger, mesh.timers, (source) => progress({ task: 'copy', ...source })),
  })
}
