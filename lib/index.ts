// The public surface of enmesh, and all of it.

export { ClusterManager, type QuarantineControl } from './cluster-manager.ts'
export type { Traced } from './diagnostics.ts'
export { ClusterError, type ErrorCode, errors, type Issue } from './errors.ts'
export type { AwaitOptions, ClusterEventSource, ListenOptions } from './event-source.ts'
export type {
  ClusterEvents,
  EventName,
  GapReason,
  Payload,
  SubscriptionState,
} from './events.ts'
export { eventNames } from './events.ts'
export type {
  Batch,
  Checkpoint,
  Host,
  Key,
  Origin,
  Published,
  Range,
  RemoteTransaction,
  Source,
  Stamp,
  TableDescription,
  Transaction,
  Write,
} from './host.ts'
export type { Logger } from './logger.ts'
export type { Problem } from './manifest/config-file.ts'
export type { Cause, Change, Manifest, Node, Route, Routes, ServerName, Subscription } from './manifest/manifest.ts'
export { type Attributes, mergeRow, type Row, type RowChange, rowChanges } from './merge-row.ts'
export type { Mesh, MeshState } from './mesh/mesh.ts'
export type { Meter } from './meter.ts'
export type { Caller, OperationName, OperationOptions, RequestOf, ResponseOf } from './operations/index.ts'
export type { ClusterOptions } from './options.ts'
export type { Progress } from './progress.ts'
export { compareStamps } from './replication/clock.ts'
export type { Metrics, PublishCounters, ReplicationCounters } from './replication/metrics.ts'
export { type Metric, metricsTable } from './replication/metrics.ts'
export type { QuarantinedMessage } from './replication/quarantine.ts'
export type { ReplayOutcome, SubscriptionStatus } from './replication/subscriber.ts'
export { type TraceContext, traceContext } from './trace-context.ts'
export type { ClusterState, ClusterView } from './view.ts'
