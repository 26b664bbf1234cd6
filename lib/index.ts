// The public surface of enmesh, and all of it.

export { ClusterManager, type ClusterState, type QuarantineControl } from './cluster-manager.ts'
export { ClusterError, type ErrorCode, errors, type Issue } from './errors.ts'
export type { AwaitOptions, ClusterEventSource, ListenOptions } from './event-source.ts'
export type {
  ClusterEvents,
  EventName,
  GapReason,
  Payload,
  SubscriptionState,
} from './events.ts'
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
export type { Mesh, MeshState } from './mesh/mesh.ts'
export type { Caller, OperationName, OperationOptions, RequestOf, ResponseOf } from './operations/index.ts'
export type { ClusterOptions } from './options.ts'
export { compareStamps } from './replication/clock.ts'
export type { Metrics, PublishCounters, ReplicationCounters } from './replication/metrics.ts'
export type { QuarantinedMessage } from './replication/quarantine.ts'
export type { ReplayOutcome, SubscriptionStatus } from './replication/subscriber.ts'
