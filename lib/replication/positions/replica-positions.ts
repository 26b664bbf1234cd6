// How far the subscribers of the local tables are, as they report it. A report that lies changes only what is shown of its own node.

import type { RemoteTable, TableName } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import { forEachConcurrently } from '../../util/for-each-concurrently.ts'
import type { Timers } from '../../util/timers.ts'
import type { Publisher } from '../publish/publisher.ts'
import { sourceKey } from '../subscribe/sources.ts'
import { type AppliedPosition, atLeast } from './applied-state.ts'
import { GrowthMarks } from './growth-marks.ts'
import { fromReport, type PositionReports } from './position-report.ts'
import type { TableIndex } from './table-index.ts'

/** A node that subscribes to a local table, and how far it is by its last report; without a position before the first one. */
export type Replica = {
  node: string
  /** Epoch of the local stream in which it reads, and the last transaction applied there, by its running number. */
  epoch?: string
  appliedIndex?: number
  /** The last message that is applied as a whole. */
  appliedSequence?: number
  /** Transactions behind that position. */
  lag?: number
  /** Seconds, to about one, for which the oldest of them has been stored here. */
  lagSeconds?: number
  /** Transactions up to the position that it has not: quarantined, discarded, or lost and not copied yet. */
  missing?: number
  /** A copy of the rows is under way. */
  copying?: true
  /** The operator of that node has paused the subscription. */
  paused?: true
  /** ms since 1970: when the last report arrived. A node that has nothing new sends none. */
  reportedAt?: number
}

/** The last report of a node about a table. */
export type ReplicaReport = {
  position: AppliedPosition
  paused: boolean
  /** See PositionReport. */
  session: string | undefined
  at: number
}

export type ReplicaPositionsOptions = {
  timers: Timers
  index: Pick<TableIndex, 'subscribersOf'>
  publisher: Pick<Publisher, 'endOf' | 'recentPositions'>
  /** Of the local streams' server: see Mesh. */
  session(): string
  /** ms since 1970 when this message of a local stream was stored; undefined if it is gone. */
  storedAt(table: TableName, sequence: number): Promise<number | undefined>
  /** A report arrived that counts. `previous`: the one before, if it counts. */
  reported(source: RemoteTable, report: ReplicaReport, previous: ReplicaReport | undefined): void
}

const MARK_INTERVAL_MS = 1_000
/** Requests for times at once. */
const MAX_DATING = 8
/** ms for which reports of an earlier process of a node are refused, and the number of such processes. A process that runs sends them again. */
const ENDED_MS = 60_000
const MAX_ENDED = 8

export class ReplicaPositions {
  readonly #options: ReplicaPositionsOptions
  readonly #marks = new GrowthMarks()
  /** By `tableKey`, then by node. */
  readonly #reports = new Map<string, { table: TableName; nodes: Map<string, ReplicaReport> }>()
  /** The last request of each node that was taken, and until when (`Timers.elapsed`) none of its earlier processes is. */
  readonly #requests = new Map<string, { instance: string; order: number; ended: ReadonlyMap<string, number> }>()
  /** By `sourceKey`: nodes that may be behind with what was stored before this process started. */
  readonly #undated = new Map<string, RemoteTable>()
  /** While it asks for times. */
  #isDating = false
  #isClosed = false
  #stop = () => {}

  constructor(options: ReplicaPositionsOptions) {
    this.#options = options
  }

  start(): void {
    const { timers, publisher } = this.#options
    this.#isClosed = false
    this.#stop = timers.every(MARK_INTERVAL_MS, () => {
      this.#marks.note(publisher.recentPositions(), timers.elapsed())
      if (!this.#isDating && this.#undated.size > 0) void this.#datePositions()
    })
  }

  close(): void {
    this.#isClosed = true
    this.#stop()
  }

  /** Takes the reports of a node. Returns the tables that are not taken now: they are not published to it, or its process is an earlier one. */
  accept(node: string, { instance, order, tables }: PositionReports): TableName[] {
    const last = this.#requests.get(node)
    if (last?.instance === instance && order <= last.order) return []
    if ((last?.ended.get(instance) ?? 0) > this.#options.timers.elapsed())
      return tables.map(({ database, table }) => ({ database, table }))
    const refused: TableName[] = []
    for (const report of tables) {
      const { database, table } = report
      const name = { database, table }
      if (!this.#options.index.subscribersOf(name).includes(node)) {
        refused.push(name)
        continue
      }
      const ofTable = this.#reports.get(tableKey(name))?.nodes ?? new Map<string, ReplicaReport>()
      this.#reports.set(tableKey(name), { table: name, nodes: ofTable })
      const previous = this.#counted(ofTable.get(node))
      const current = {
        position: this.#completed(name, fromReport(report)),
        paused: report.paused ?? false,
        session: report.session,
        at: this.#options.timers.now(),
      }
      ofTable.set(node, current)
      if (this.#counted(current)) this.#options.reported({ node, ...name }, current, previous)
      if (this.#isBehind(name, current.position) !== false)
        this.#undated.set(sourceKey({ node, ...name }), { node, ...name })
    }
    if (refused.length < tables.length)
      this.#requests.set(node, { instance, order, ended: this.#endedBefore(instance, last) })
    return refused
  }

  /** Undefined: not known yet, because the writer of the stream is not in step. */
  #isBehind(table: TableName, { epoch, sequence }: AppliedPosition): boolean | undefined {
    const end = this.#options.publisher.endOf(table)
    return end && end.epoch === epoch && sequence < end.sequence
  }

  /** Asks the streams for the times of the next messages, a few at once: after a restart there may be one for each table and node. */
  async #datePositions(): Promise<void> {
    this.#isDating = true
    await forEachConcurrently([...this.#undated], MAX_DATING, (each) => this.#dateOne(each))
    this.#isDating = false
  }

  async #dateOne([key, source]: [string, RemoteTable]): Promise<void> {
    const position = this.#reports.get(tableKey(source))?.nodes.get(source.node)?.position
    const isBehind = position && this.#isBehind(source, position)
    if (this.#isClosed || (position && isBehind === undefined)) return
    this.#undated.delete(key)
    if (position && isBehind && this.#marks.isOlder(source, position.epoch, position.index))
      await this.#date(source, position)
  }

  async #date({ database, table }: RemoteTable, { epoch, sequence, index }: AppliedPosition): Promise<void> {
    const { timers, storedAt } = this.#options
    const time = await storedAt({ database, table }, sequence + 1).catch(() => undefined)
    if (time === undefined) return
    const now = timers.elapsed()
    const at = now - Math.max(0, timers.now() - time)
    this.#marks.noteMessage({ database, table }, epoch, { index: index + 1, sequence: sequence + 1, at }, now)
  }

  /** The processes that ended a short time ago: what they sent may have been held up on the way. */
  #endedBefore(instance: string, last: { instance: string; ended: ReadonlyMap<string, number> } | undefined) {
    if (!last || last.instance === instance) return last?.ended ?? new Map<string, number>()
    const now = this.#options.timers.elapsed()
    const recent = [...last.ended].filter(([each, until]) => until > now && each !== instance)
    return new Map([...recent.slice(1 - MAX_ENDED), [last.instance, now + ENDED_MS]])
  }

  /** A subscription that began at the end of the stream may not know which transaction that is. */
  #completed(table: TableName, position: AppliedPosition): AppliedPosition {
    const end = this.#options.publisher.endOf(table)
    const isAtEnd = end?.epoch === position.epoch && end.sequence <= position.sequence
    return isAtEnd ? atLeast(position, end.index ?? 0) : position
  }

  /** The last report of this node, if it counts; undefined before the first one, and when the table is not published to it. */
  reportOf({ node, ...table }: RemoteTable): ReplicaReport | undefined {
    return this.#options.index.subscribersOf(table).includes(node)
      ? this.#counted(this.#reports.get(tableKey(table))?.nodes.get(node))
      : undefined
  }

  /**
   * While the server was down, stream and database may have been replaced by older copies, in the same epoch: a position that was not
   * compared with the stream since then may be one of a future that is lost.
   */
  #counted(report: ReplicaReport | undefined): ReplicaReport | undefined {
    return report?.session === this.#options.session() ? report : undefined
  }

  /** See GrowthMarks. `at`: `Timers.elapsed`. */
  lastStoredAt(table: TableName, epoch: string, at: number): number | undefined {
    return this.#marks.lastStoredAt(table, epoch, at)
  }

  /** Deletes what nodes reported that are no longer subscribers. */
  onManifest(): void {
    for (const [key, { table, nodes }] of this.#reports) {
      const subscribers = this.#options.index.subscribersOf(table)
      for (const node of nodes.keys()) if (!subscribers.includes(node)) nodes.delete(node)
      if (nodes.size === 0) this.#reports.delete(key)
    }
  }

  replicas(table: TableName): Replica[] {
    return this.#options.index.subscribersOf(table).map((node) => this.#replica({ node, ...table }))
  }

  /** Undefined if the table is not published to the node. */
  replica({ node, database, table }: RemoteTable): Replica | undefined {
    const isSubscriber = this.#options.index.subscribersOf({ database, table }).includes(node)
    return isSubscriber ? this.#replica({ node, database, table }) : undefined
  }

  #replica({ node, database, table }: RemoteTable): Replica {
    const { timers, publisher } = this.#options
    const report = this.#reports.get(tableKey({ database, table }))?.nodes.get(node)
    if (!report) return { node }
    const { position, paused, at } = report
    const end = publisher.endOf({ database, table })
    const isCurrent = end?.epoch === position.epoch
    // Nobody can have applied what the stream does not have.
    const limit = (value: number, last: number | undefined) => (isCurrent ? Math.min(value, last ?? value) : value)
    const index = limit(position.index, end?.index)
    const applied = isCurrent ? index : 0
    const lag = end?.index === undefined ? undefined : end.index - applied
    const storedBy = lag ? this.#marks.storedBy({ database, table }, applied) : undefined
    const lagSeconds = storedBy === undefined ? 0 : Math.max(0, timers.elapsed() - storedBy) / 1_000
    return {
      node,
      epoch: position.epoch,
      appliedIndex: index,
      appliedSequence: limit(position.sequence, end?.sequence),
      ...(lag !== undefined && { lag, lagSeconds }),
      missing: missingUpTo(position, index),
      ...(position.isCopying && { copying: true }),
      ...(paused && { paused: true }),
      reportedAt: at,
    }
  }
}

/** Number of transactions up to `index` in the epoch of the position that are missing. */
function missingUpTo({ epoch, missing }: AppliedPosition, index: number): number {
  let count = 0
  let next = 1
  for (const [from, to] of missing[epoch] ?? []) {
    const [first, last] = [Math.max(from, next), Math.min(to, index)]
    if (first > last) continue
    count += last - first + 1
    next = last + 1
  }
  return count
}
