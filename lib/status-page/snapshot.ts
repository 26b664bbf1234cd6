// Everything that the page shows at one moment, as JSON.

import type { ClockStatus } from '../cluster/clock-control.ts'
import { packageVersion } from '../cluster/version.ts'
import type { ClusterState, ClusterView } from '../cluster/view.ts'
import type { HealthCondition } from '../observe/health.ts'
import { advice } from './advice.ts'
import type { EventRecord } from './event-log.ts'
import type { NodeSample } from './history.ts'
import type { LinkRow } from './links.ts'
import { type PeerRow, peerRows, type TableRow } from './rows.ts'

/**
 * Version of the snapshot.
 *
 * 1: the fields below.
 */
export const SNAPSHOT_VERSION = 1

export type SnapshotCondition = HealthCondition & { readonly advice: string }

export type Snapshot = {
  version: typeof SNAPSHOT_VERSION
  /** ms since 1970, by the clock of this node. */
  time: number
  enmesh: string
  node: string
  state: ClusterState
  enabled: boolean
  ready: boolean
  /** Absent while clustering is disabled. */
  mesh?: { state: string; reason?: string }
  clock: ClockStatus
  /** Everything that is wrong now, at most 1,000 of `conditionCount`. */
  conditions: readonly SnapshotCondition[]
  conditionCount: number
  /** The newest sample; absent before the first one. */
  sample?: NodeSample & { time: number }
  /** Transactions that the leaf has not acknowledged, and waiting calls of `publish`. */
  outbox: { inFlight: number; waiting: number }
  peers: readonly PeerRow[]
  /**
   * Between peers, as they describe them while a page is open; worst first, at most 400 of `linkCount`. With more than 20 peers, only those
   * between peers that are up, and that are not live.
   */
  links: readonly LinkRow[]
  linkCount: number
  tables: readonly TableRow[]
  /** The first 50 of `quarantineCount`, by remote table. */
  quarantine: readonly QuarantineRow[]
  quarantineCount: number
  /** Newest first. */
  events: readonly EventRecord[]
}

export type QuarantineRow = {
  node: string
  database: string
  table: string
  index: number
  count: number
  reason: string
  /** `timestamp`: it is applied by itself when its time has come. */
  cause: string
  /** ms since 1970. */
  quarantinedAt: number
}

const MAX_CONDITIONS = 1_000
const MAX_QUARANTINE = 50
const MAX_REASON = 300

export type SnapshotParts = {
  time: number
  tables: readonly TableRow[]
  sample: Snapshot['sample'] | undefined
  events: readonly EventRecord[]
  links: { rows: readonly LinkRow[]; count: number }
}

export function makeSnapshot(view: ClusterView, { time, tables, sample, events, links }: SnapshotParts): Snapshot {
  const { ready, degraded } = view.health()
  const { state, manifest, meshState, meshReason, clock } = view
  const publish = view.metrics()?.publish
  const quarantine = view.quarantine.list()
  return {
    version: SNAPSHOT_VERSION,
    time,
    enmesh: packageVersion,
    node: manifest.nodeName,
    state,
    enabled: manifest.enabled,
    ready,
    ...(meshState !== undefined && {
      mesh: { state: meshState, ...(meshReason !== undefined && { reason: meshReason }) },
    }),
    clock,
    conditions: degraded.slice(0, MAX_CONDITIONS).map((each) => ({ ...each, advice: advice[each.code] })),
    conditionCount: degraded.length,
    ...(sample && { sample }),
    outbox: { inFlight: publish?.inFlight ?? 0, waiting: publish?.waiting ?? 0 },
    peers: peerRows(view.peers(), tables),
    links: links.rows,
    linkCount: links.count,
    tables,
    quarantine: quarantine.slice(0, MAX_QUARANTINE).map(({ source, index, count, reason, cause, quarantinedAt }) => ({
      ...{ node: source.node, database: source.database, table: source.table },
      ...{ index, count, reason: reason.slice(0, MAX_REASON), cause, quarantinedAt },
    })),
    quarantineCount: quarantine.length,
    events,
  }
}
