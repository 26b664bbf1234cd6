// Tells each source how far its tables are applied here: once a second what has changed, and at once while the source waits for it. A
// report is a request that is repeated until it is answered; nothing of correctness depends on it.

import { randomUUID } from 'node:crypto'
import type { RemoteTable, TableName } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import { Backoff } from '../../util/backoff.ts'
import { queueMicrotask, type Timers } from '../../util/timers.ts'
import { sourceKey } from '../subscribe/sources.ts'
import type { PositionReport, PositionReports } from './position-report.ts'

export type PositionReporterOptions = {
  timers: Timers
  /** All subscriptions. */
  sources(): readonly RemoteTable[]
  /** Undefined: there is nothing to report, because the subscription has ended or not begun. */
  report(source: RemoteTable): PositionReport | undefined
  /** Heartbeats of the node arrive. A node of HarperDB sends none, and gets no reports. */
  isUp(node: string): boolean
  /** Resolves with the tables that the node does not publish to this one, by its manifest; rejects when it does not answer. */
  send(node: string, reports: PositionReports): Promise<readonly TableName[]>
}

const INTERVAL_MS = 1_000
/** ms for which a source gets reports at once after it has asked for it. */
export const WATCH_MS = 15_000
const RETRY_BACKOFF = { first: 250, max: 30_000 }
const MAX_TABLES = 500
/** Every holder of the credentials can send requests. */
const MAX_WATCHED = 20_000

/** What one source is still to get. */
class Source {
  /** To be sent; each table by its key. */
  readonly marked = new Map<string, RemoteTable>()
  /** Until when (`Timers.elapsed`) each table is reported at once. */
  readonly watched = new Map<string, number>()
  readonly backoff = new Backoff(RETRY_BACKOFF)
  /** `Timers.elapsed` */
  notBefore = 0
  isSending = false
  /** Tables that the source does not publish to this node yet, to be sent again after `retryRefusedAt` (`Timers.elapsed`): others do not wait for them. */
  readonly refused = new Map<string, RemoteTable>()
  readonly refusedBackoff = new Backoff(RETRY_BACKOFF)
  retryRefusedAt = 0
}

export class PositionReporter {
  readonly #options: PositionReporterOptions
  readonly #instance = randomUUID()
  readonly #sources = new Map<string, Source>()
  #order = 0
  #stop = () => {}
  #isOpen = false

  constructor(options: PositionReporterOptions) {
    this.#options = options
  }

  /** After `close`, it may be started again. */
  start(): void {
    this.#isOpen = true
    this.#stop = this.#options.timers.every(INTERVAL_MS, () => {
      for (const [node, of] of this.#sources) {
        this.#retryRefused(of)
        this.#flush(node)
      }
    })
    this.resend()
  }

  close(): void {
    this.#isOpen = false
    this.#stop()
    this.#sources.clear()
  }

  /** The position of this source may have changed. */
  mark(source: RemoteTable): void {
    if (!this.#isOpen) return
    const { node } = source
    const of = this.#sourceOf(node)
    const key = sourceKey(source)
    if (of.refused.has(key)) return
    of.marked.set(key, source)
    const until = of.watched.get(key)
    if (until === undefined) return
    if (until > this.#options.timers.elapsed()) this.#flush(node)
    else of.watched.delete(key)
  }

  /** The process or the link of the node is a new one, or the local link is (without a name): all positions are sent again. */
  resend(node?: string): void {
    for (const source of this.#options.sources()) if (node === undefined || source.node === node) this.mark(source)
    const nodes = node === undefined ? [...this.#sources.keys()] : [node]
    for (const each of nodes) {
      const of = this.#sources.get(each)
      if (!of) continue
      of.notBefore = 0
      of.backoff.reset()
      of.refusedBackoff.reset()
      of.retryRefusedAt = 0
      this.#retryRefused(of)
      if (this.#options.isUp(each)) this.#flush(each)
    }
  }

  /** The node waits for the positions of these tables: reports them at once, and whenever they change. */
  watch(node: string, tables: readonly TableName[]): void {
    const sources = tables.map(({ database, table }) => ({ node, database, table }))
    const known = sources.filter((source) => this.#options.report(source))
    // Any name may ask.
    if (!this.#isOpen || known.length === 0) return
    const of = this.#sourceOf(node)
    const now = this.#options.timers.elapsed()
    if (of.watched.size > MAX_WATCHED) of.watched.clear()
    for (const source of known) {
      of.watched.set(sourceKey(source), now + WATCH_MS)
      of.marked.set(sourceKey(source), source)
      of.refused.delete(sourceKey(source))
    }
    of.notBefore = 0
    this.#flush(node)
  }

  #sourceOf(node: string): Source {
    const known = this.#sources.get(node) ?? new Source()
    this.#sources.set(node, known)
    return known
  }

  #flush(node: string): void {
    const of = this.#sources.get(node)
    const { timers, isUp } = this.#options
    if (!of || of.isSending || of.marked.size === 0 || timers.elapsed() < of.notBefore || !isUp(node)) return
    of.isSending = true
    // What is applied in the same turn goes into one request.
    queueMicrotask(() => void this.#send(node, of))
  }

  async #send(node: string, of: Source): Promise<void> {
    const { timers, report, send } = this.#options
    const marked = [...of.marked].slice(0, MAX_TABLES)
    for (const [key] of marked) of.marked.delete(key)
    const tables = marked.flatMap(([, source]) => report(source) ?? [])
    try {
      const refused =
        tables.length === 0 ? [] : await send(node, { instance: this.#instance, order: ++this.#order, tables })
      this.#onAnswer(of, marked, refused)
    } catch {
      for (const [, source] of marked) this.#markAgain(of, source)
      of.notBefore = timers.elapsed() + of.backoff.next()
    }
    of.isSending = false
    if (this.#sources.get(node) === of && this.#hasUrgent(of, marked.length === MAX_TABLES)) this.#flush(node)
  }

  #onAnswer(of: Source, sent: readonly [string, RemoteTable][], refused: readonly TableName[]): void {
    of.backoff.reset()
    const keys = new Set(refused.map((table) => tableKey(table)))
    for (const [key, source] of sent)
      if (keys.has(tableKey(source))) of.refused.set(key, source)
      else of.refused.delete(key)
    if (keys.size > 0) of.retryRefusedAt = this.#options.timers.elapsed() + of.refusedBackoff.next()
    else if (of.refused.size === 0) of.refusedBackoff.reset()
  }

  #retryRefused(of: Source): void {
    if (of.refused.size === 0 || this.#options.timers.elapsed() < of.retryRefusedAt) return
    for (const source of of.refused.values()) this.#markAgain(of, source)
    of.refused.clear()
  }

  #markAgain(of: Source, source: RemoteTable): void {
    if (this.#options.report(source)) of.marked.set(sourceKey(source), source)
  }

  /** `isCut`: one request was not enough. */
  #hasUrgent(of: Source, isCut: boolean): boolean {
    if (of.marked.size === 0) return false
    const now = this.#options.timers.elapsed()
    return isCut || [...of.marked.keys()].some((key) => (of.watched.get(key) ?? 0) > now)
  }
}
