// The entry point `enmesh/status-page`: a web page, as a request handler, that shows what a cluster does now.

export { advice } from './status-page/advice.ts'
export type { EventLevel, EventRecord } from './status-page/event-log.ts'
export { type StatusPage, type StatusPageOptions, statusPage } from './status-page/handler.ts'
export type { NodeSample, TableSample } from './status-page/history.ts'
export type { LinkRow } from './status-page/links.ts'
export type { PeerRow, ReceivedState, SentState, TableRow } from './status-page/rows.ts'
export { SNAPSHOT_VERSION, type Snapshot, type SnapshotCondition } from './status-page/snapshot.ts'
