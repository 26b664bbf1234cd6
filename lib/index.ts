// The public API of enmesh: every export of the package, except those for tests (`enmesh/testing`).

export type { ClockStatus, RestampOutcome } from './cluster/clock-control.ts'
export type { OperationMethod, OperationRequest, OperationResponse } from './cluster/operation-types.ts'
export type { ClusterOptions } from './cluster/options.ts'
export type { QuarantineControl } from './cluster/quarantine-control.ts'
export type { ClusterState, ClusterView } from './cluster/view.ts'
export type { CaughtUpOptions, ReplicatedOptions } from './cluster/waiting-options.ts'
export { ClusterManager } from './cluster-manager.ts'
export { ClusterError, type ErrorCode, errors, type Issue } from './errors.ts'
export type { AwaitOptions, ClusterEventSource, ListenOptions } from './events/event-source.ts'
export type {
  ClockReason,
  ClusterEvents,
  EventMessage,
  EventName,
  GapReason,
  Payload,
  SubscriptionState,
} from './events/events.ts'
export { eventNames } from './events/events.ts'
export type {
  AppliedRange,
  ApplyOutcome,
  ApplyResult,
  Batch,
  Checkpoint,
  CopyPosition,
  CopyReason,
  EmptiedTable,
  Host,
  HostCallOptions,
  KeyedRow,
  NewAttributes,
  Origin,
  PrimaryKey,
  PublishConfirmation,
  PublishedPosition,
  RemoteTable,
  RemoteTransaction,
  Restamp,
  RestampedRows,
  RestampPass,
  RowSelection,
  SequenceRange,
  StoredRow,
  TableDescription,
  TableRow,
  Timestamp,
  Transaction,
  VoidedRange,
  VoidedTransactions,
  Write,
} from './host/host.ts'
export type { HostCall, SlowHostCall } from './host/host-calls.ts'
export { compareTimestamps, LOWEST_TIMESTAMP } from './host/hybrid-clock.ts'
export type { MergeConflict, RowVersion } from './host/merge-conflict.ts'
export { type Attributes, type MergeOptions, mergeRow, type RowChange, rowChanges } from './host/merge-row.ts'
export { type TimestampSource, timestampAfter, timestampsFrom } from './host/timestamp-source.ts'
export { type TraceContext, traceContext } from './host/trace-context.ts'
export type { VerifyResult } from './host/verify-result.ts'
export type { Problem } from './manifest/config-file.ts'
export type {
  ChangeCause,
  Manifest,
  ManifestChange,
  ManifestNode,
  Route,
  Routes,
  ServerName,
  Subscription,
} from './manifest/manifest.ts'
export type {
  ClusterMeshState,
  Entry,
  ExpectedLast,
  Member,
  Mesh,
  MeshErrorCode,
  MeshListener,
  MeshProblem,
  MeshState,
  Message,
  NameCheck,
  Reader,
  ReadOptions,
  RequestOptions,
  StreamLimits,
  StreamState,
  TableName,
} from './mesh/mesh.ts'
export { MeshError } from './mesh/mesh.ts'
export { ReadBudget } from './mesh/read-budget.ts'
export type { ApplyMessage, OperationMessage, PublishMessage, Traced } from './observe/diagnostics.ts'
export { type Health, type HealthCode, type HealthCondition, healthCodes } from './observe/health.ts'
export type { Logger } from './observe/logger.ts'
export type { Meter } from './observe/meter.ts'
export type { Metrics, PublishCounters, ReplicationCounters } from './observe/metrics.ts'
export { type MetricDefinition, metricDefinitions } from './observe/metrics.ts'
export type { Progress } from './observe/progress.ts'
export type {
  AddNodeRequest,
  AddNodeResponse,
  Caller,
  ClusterNetworkRequest,
  ClusterNetworkResponse,
  ClusterStatusRequest,
  ClusterStatusResponse,
  ConfigureClusterRequest,
  ConfigureClusterResponse,
  ConfiguredConnection,
  ConnectionStatus,
  DeleteRoutesRequest,
  DeleteRoutesResponse,
  GetRoutesRequest,
  GetRoutesResponse,
  NetworkNode,
  OperationName,
  OperationOptions,
  PauseReplicationRequest,
  PauseReplicationResponse,
  PendingSubscription,
  PlanEntry,
  PurgeStreamRequest,
  PurgeStreamResponse,
  RemoveNodeRequest,
  RemoveNodeResponse,
  RequestOf,
  ResponseOf,
  SetRoutesRequest,
  SetRoutesResponse,
  SkippedResponse,
  SubscriptionBody,
  SubscriptionResponse,
  UpdateNodeRequest,
  UpdateNodeResponse,
} from './operations/index.ts'
export type { VerifyOptions } from './replication/copy/verifier.ts'
export type { Replica } from './replication/positions/replica-positions.ts'
export type { QuarantinedMessage } from './replication/subscribe/quarantine.ts'
export type { ReplayOutcome } from './replication/subscribe/quarantine-release.ts'
export type { SubscriptionStatus } from './replication/subscribe/subscription-status.ts'
export type { Timers } from './util/timers.ts'
