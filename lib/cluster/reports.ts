// The events and log lines that report what happens to the configuration, and what subscriptions do.

import type { ClusterEvents, EventName } from '../events/events.ts'
import type { CopyReason, RemoteTable } from '../host/host.ts'
import { type Problem, problemText } from '../manifest/config-text.ts'
import { type ChangeAuthor, type Subscription, tableKey } from '../manifest/manifest.ts'
import type { Commit, ManifestStore, StoreListener } from '../manifest/store.ts'
import type { ClusterMeshState, Mesh } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { SubscriberEvents } from '../replication/subscribe/subscription-status.ts'
import type { Timers } from '../util/timers.ts'
import { CatchUpLog } from './catch-up-log.ts'
import type { CheckedOptions } from './options.ts'
import { STALE_HINT } from './subscription-problem.ts'
import { packageVersion } from './version.ts'

type ConfigEvent = 'config:rejected' | 'config:missing' | 'config:warning'

export type Emit = <Name extends EventName>(event: Name, ...args: ClusterEvents[Name]) => unknown

const authorOf = ({ cause, user }: Commit): ChangeAuthor => ({ cause, ...(user === undefined ? {} : { user }) })

/** `manifest:changed` comes first, then one event for each change. */
function emitCommit(emit: Emit, commit: Commit): void {
  const { previous, current, changes } = commit
  const author = authorOf(commit)
  emit('manifest:changed', { previous, current, changes, ...author })
  for (const change of changes) {
    if (change.type === 'route:added') emit(change.type, { server: change.server, route: change.route, ...author })
    else if (change.type === 'route:removed')
      emit(change.type, { server: change.server, route: change.route, ...author })
    else if (change.type === 'node:added') emit(change.type, { node: change.node, ...author })
    else if (change.type === 'node:updated')
      emit(change.type, { node: change.node, previous: change.previous, ...author })
    else if (change.type === 'node:removed') emit(change.type, { node: change.node, ...author })
  }
}

/** One line for each route, node and subscription that changed. */
function logCommit(logger: Logger, commit: Commit): void {
  const author = authorOf(commit)
  for (const change of commit.changes) {
    if (change.type === 'route:added') logger.info({ server: change.server, ...change.route, ...author }, 'route added')
    else if (change.type === 'route:removed')
      logger.info({ server: change.server, ...change.route, ...author }, 'route removed')
    else if (change.type === 'node:added') {
      logger.info({ peer: change.node.name, ...author }, 'node added')
      logSubscriptions(logger, change.node.name, [], change.node.subscriptions, author)
    } else if (change.type === 'node:updated')
      logSubscriptions(logger, change.node.name, change.previous.subscriptions, change.node.subscriptions, author)
    else if (change.type === 'node:removed') {
      logSubscriptions(logger, change.node.name, change.node.subscriptions, [], author)
      logger.info({ peer: change.node.name, ...author }, 'node removed')
    }
  }
}

function logSubscriptions(
  logger: Logger,
  peer: string,
  previous: readonly Subscription[],
  current: readonly Subscription[],
  author: ChangeAuthor,
): void {
  const before = new Map(previous.map((each) => [tableKey(each), each]))
  for (const each of current) {
    const known = before.get(tableKey(each))
    before.delete(tableKey(each))
    if (!known) logger.info({ peer, ...each, ...author }, 'subscription added')
    else if (known !== each) logger.info({ peer, ...each, ...author }, 'subscription changed')
  }
  for (const { database, table } of before.values())
    logger.info({ peer, database, table, ...author }, 'subscription removed')
}

export function storeReports(
  emit: Emit,
  { configFile: file, logger }: Pick<CheckedOptions, 'configFile' | 'logger'>,
): Partial<StoreListener> {
  const reportFile = (event: ConfigEvent, problems: readonly Problem[], message: string) => {
    logger.warn({ file, problems: problems.map(problemText) }, message)
    emit(event, { problems })
  }
  return {
    committed: (commit) => {
      logCommit(logger, commit)
      emitCommit(emit, commit)
    },
    rejected: (problems) => reportFile('config:rejected', problems, 'configuration file rejected'),
    missing: (problems) => reportFile('config:missing', problems, 'configuration file missing'),
    warned: (problems) => reportFile('config:warning', problems, 'configuration file has unknown keys'),
  }
}

/** The manager is open. */
export function logOpened(
  { logger, host, mesh: foreignMesh }: CheckedOptions,
  { manifest, settings }: Pick<ManifestStore, 'manifest' | 'settings'>,
  mesh: Pick<Mesh, 'serverVersion'> | undefined,
): void {
  const fields = {
    version: packageVersion,
    databaseVersion: host.info().version,
    enabled: manifest.enabled,
    nodes: manifest.nodes.length,
    ...(mesh?.serverVersion === undefined ? {} : { natsServer: mesh.serverVersion }),
    ...(mesh && !foreignMesh ? { ports: settings.ports } : {}),
  }
  logger.info(fields, 'cluster manager opened')
}

export function logMeshState(logger: Logger, state: ClusterMeshState, reason: string | undefined): void {
  if (state === 'disconnected') logger.warn({ reason }, 'mesh disconnected')
  else if (state === 'isolated') logger.warn({ reason }, 'mesh isolated: no other node is reached')
  else if (state === 'connected') logger.info({}, 'mesh connected')
  else logger.debug({ state }, 'mesh state')
}

/** What is known of remote nodes; `rejected`: a connection, in either direction. */
export const peerReports = (emit: Emit, logger: Logger) => ({
  up(peer: string): void {
    logger.info({ peer }, 'peer up')
    emit('peer:up', { node: peer })
  },
  down(peer: string, reason: string): void {
    logger.info({ peer, reason }, 'peer down')
    emit('peer:down', { node: peer, reason })
  },
  rejected(peer: string, reason: string): void {
    logger.error({ peer, reason }, 'connection rejected')
    emit('connection:rejected', { node: peer, reason })
  },
})

/** These copies repair no loss. */
const PLANNED_COPIES: readonly CopyReason[] = ['initial', 'requested', 'source_changed', 'table_replaced']

export function subscriptionReports(
  emit: Emit,
  logger: Logger,
  timers: Timers,
  copyProgress: SubscriberEvents['copyProgress'],
): SubscriberEvents {
  const catchUpLog = new CatchUpLog(logger, timers)
  const fieldsOf = ({ node: peer, database, table }: RemoteTable) => ({ peer, database, table })
  return {
    state: (source, state, previous, error) => {
      catchUpLog.onState(source, state)
      emit('subscription:state', { source, state, previous, ...(error ? { error } : {}) })
    },
    applied: (source, transactions, sequence) => emit('replication:applied', { source, transactions, sequence }),
    gap: (source, { isRepaired: repair, reason, ...range }) => {
      const known = Object.fromEntries(Object.entries(range).filter(([, value]) => value !== undefined))
      const message =
        reason === 'checkpoint_lost'
          ? 'checkpoint lost: reading the stream from its first message'
          : 'replication gap: transactions lost before they were read'
      logger.warn({ ...fieldsOf(source), ...known, reason, repair }, message)
      emit('replication:gap', { source, ...known, reason, repair })
    },
    copyBegan: (source, reason) => logger.info({ ...fieldsOf(source), reason }, 'copying rows'),
    copied: (source, { rows, reason, ms }) => {
      const isRepair = !PLANNED_COPIES.includes(reason)
      // An empty table is no news.
      if (rows > 0 || isRepair) logger.info({ ...fieldsOf(source), rows, reason, seconds: ms / 1_000 }, 'rows copied')
      emit('replication:copied', { ...source, rows, reason, ms })
      if (isRepair) emit('replication:repaired', { ...source, rows, reason })
    },
    copyProgress,
    refusedOld: (source, writes) => {
      logger.warn({ ...fieldsOf(source), writes }, 'old writes refused: they are older than dropped tombstones')
      emit('replication:refused-old', { ...source, writes })
    },
    stale: (source, since) => {
      const caughtUpAt = new Date(since).toISOString()
      logger.warn({ ...fieldsOf(source), caughtUpAt, reason: STALE_HINT }, 'subscription stale')
      emit('replication:stale', { ...source, since })
    },
    stalled: (source, { sequence, index, id }, error, attempts) => {
      const at = { sequence, ...(index !== undefined && { index }), ...(id !== undefined && { id }) }
      logger.warn({ ...fieldsOf(source), ...at, reason: error, attempts }, 'subscription stalled, retrying')
      emit('replication:stalled', { source, error, attempts, ...at })
    },
    quarantined: ({ source, epoch, index, count, sequence, reason: error }) => {
      const at = { epoch, index, count, sequence }
      logger.error({ ...fieldsOf(source), ...at, reason: error }, 'transaction quarantined')
      emit('replication:quarantined', { source, ...at, error })
    },
  }
}
