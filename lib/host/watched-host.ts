// The host as the other modules call it: every call has a time limit, and a call that does not answer is reported. Used for all
// calls into a host.

import { reasonOf } from '../errors.ts'
import type { Host, HostCallOptions, RemoteTable } from './host.ts'
import { type HostCall, HostCalls, type HostCallsOptions, type Lane } from './host-calls.ts'
import { watchIterable } from './watched-iterable.ts'

export type WatchedHost = Host & {
  /**
   * The manager closes: calls in progress and later ones have a short time left, then they reject closed. Call the returned
   * function when the manager is closed.
   */
  beginClose(): () => void
}

/** Calls that may still run after their time limit, of methods that may run at the same time as themselves. */
const MAX_OVERDUE_CALLS = 16

/** One call at a time, also after its time limit: `apply` never overlaps another `apply`, read or delete of the table's checkpoints. */
const tableLane = ({ database, table }: { database: string; table: string }): Lane => ({
  key: JSON.stringify([database, table]),
  maxOverdue: 1,
  isExclusive: true,
})
/** A late confirmation must not overwrite a newer one. Confirmations of different tables may overlap. */
const positionsLane: Lane = { key: 'positions', maxOverdue: 1 }
/** Only one iteration is open at a time. */
const outboxLane: Lane = { key: 'outbox', maxOverdue: 1 }
const restampLane: Lane = { key: 'restamp', maxOverdue: 1 }
const laneOf = (method: HostCall['method']): Lane => ({ key: method, maxOverdue: MAX_OVERDUE_CALLS })

/** Calls reject as the host does, and with host_timeout, aborted (by the caller's signal) and closed. */
export function watchHost(host: Host, options: HostCallsOptions): WatchedHost {
  const calls = new HostCalls(options)
  let info: ReturnType<Host['info']> = { version: 'unknown' }
  let infoError: string | undefined

  const ofTable = <T>(
    method: 'apply' | 'emptyTable' | 'loadCheckpoint' | 'deleteCheckpoint',
    { node, database, table }: RemoteTable,
    work: (options: HostCallOptions) => Promise<T>,
    caller?: HostCallOptions,
  ): Promise<T> => calls.run({ method, node, database, table }, tableLane({ database, table }), work, caller?.signal)

  const watched: WatchedHost = {
    info() {
      try {
        const { version, operationsApiPort } = host.info()
        info = { version, ...(operationsApiPort !== undefined && { operationsApiPort }) }
        infoError = undefined
      } catch (error) {
        const reason = reasonOf(error)
        if (reason !== infoError) options.logger.warn({ method: 'info', reason }, 'host method failed')
        infoError = reason
      }
      return info
    },
    lastTimestamp: (caller) =>
      calls.run(
        { method: 'lastTimestamp' },
        laneOf('lastTimestamp'),
        (each) => host.lastTimestamp(each),
        caller?.signal,
      ),
    describe: (caller) =>
      calls.run({ method: 'describe' }, laneOf('describe'), (each) => host.describe(each), caller?.signal),
    createTable: (table, caller) =>
      calls.run(
        { method: 'createTable', database: table.database, table: table.table },
        laneOf('createTable'),
        (each) => host.createTable(table, each),
        caller?.signal,
      ),
    apply: (batch, caller) => ofTable('apply', batch.source, (each) => host.apply(batch, each), caller),
    loadCheckpoint: (source, caller) =>
      ofTable('loadCheckpoint', source, (each) => host.loadCheckpoint(source, each), caller),
    deleteCheckpoint: (source, caller) =>
      ofTable('deleteCheckpoint', source, (each) => host.deleteCheckpoint(source, each), caller),
    beginClose: () => calls.beginClose(),
  }
  if (host.emptyTable)
    watched.emptyTable = (emptied, caller) =>
      ofTable('emptyTable', emptied.source, (each) => host.emptyTable!(emptied, each), caller)
  if (host.restamp)
    watched.restamp = (restamp, caller) =>
      calls.run({ method: 'restamp' }, restampLane, (each) => host.restamp!(restamp, each), caller?.signal)
  return Object.assign(watched, watchedAlterTable(host, calls), watchedRows(host, calls), watchedOutbox(host, calls))
}

type RowMethod = 'readRows' | 'setBaseTimestamp' | 'horizon' | 'lastUnrecorded'

/** The methods for rows that the host has. */
function watchedRows(host: Host, calls: HostCalls): Pick<Host, RowMethod> {
  const watched: Pick<Host, RowMethod> = {}
  if (host.setBaseTimestamp) watched.setBaseTimestamp = (timestamp) => host.setBaseTimestamp!(timestamp)
  if (host.readRows)
    watched.readRows = (table, selection, caller) =>
      calls.run(
        { method: 'readRows', database: table.database, table: table.table },
        laneOf('readRows'),
        (options) => host.readRows!(table, selection, options),
        caller?.signal,
      )
  if (host.horizon)
    watched.horizon = (table, caller) =>
      calls.run(
        { method: 'horizon', database: table.database, table: table.table },
        laneOf('horizon'),
        (options) => host.horizon!(table, options),
        caller?.signal,
      )
  if (host.lastUnrecorded)
    watched.lastUnrecorded = (table, caller) =>
      calls.run(
        { method: 'lastUnrecorded', database: table.database, table: table.table },
        laneOf('lastUnrecorded'),
        (options) => host.lastUnrecorded!(table, options),
        caller?.signal,
      )
  return watched
}

/** The method for attributes, if the host has it. */
function watchedAlterTable(host: Host, calls: HostCalls): Pick<Host, 'alterTable'> {
  if (!host.alterTable) return {}
  return {
    alterTable: (table, caller) =>
      calls.run(
        { method: 'alterTable', database: table.database, table: table.table },
        laneOf('alterTable'),
        (each) => host.alterTable!(table, each),
        caller?.signal,
      ),
  }
}

/** The outbox methods that the host has. */
function watchedOutbox(
  host: Host,
  calls: HostCalls,
): Pick<Host, 'readOutbox' | 'confirmPublished' | 'publishedPosition'> {
  if (!host.readOutbox || !host.confirmPublished || !host.publishedPosition) return {}
  return {
    readOutbox: (after) =>
      watchIterable(calls, { method: 'readOutbox' }, outboxLane, (options) => host.readOutbox!(after, options)),
    confirmPublished: (confirmation, caller) =>
      calls.run(
        { method: 'confirmPublished' },
        positionsLane,
        (options) => host.confirmPublished!(confirmation, options),
        caller?.signal,
      ),
    publishedPosition: (database, table, caller) =>
      calls.run(
        { method: 'publishedPosition', database, table },
        positionsLane,
        (options) => host.publishedPosition!(database, table, options),
        caller?.signal,
      ),
  }
}
