// Watches one manager for as long as the page may be opened: samples, events, and snapshots for everyone who looks.

import type { ClusterView } from '../cluster/view.ts'
import type { EventName, Payload } from '../events/events.ts'
import { systemTimers, type Timers } from '../util/timers.ts'
import { EventLog } from './event-log.ts'
import { eventLine, shownEvents } from './event-text.ts'
import { History, SAMPLE_INTERVAL_MS, type Series, type TableSample } from './history.ts'
import { PeerLinks } from './links.ts'
import { type CollectedRow, collectRows, rowKey, toTableRow } from './rows.ts'
import { makeSnapshot } from './snapshot.ts'

/** ms from an event to the snapshot that shows it: several events that come together are shown together. */
const EVENT_DELAY_MS = 100
/** ms between two snapshots at least, however many events and requests there are. */
const MIN_SNAPSHOT_INTERVAL_MS = 500

export class Monitor {
  readonly #view: ClusterView
  readonly #timers: Timers
  readonly #history = new History()
  readonly #events = new EventLog()
  /** Transactions applied since the monitor began, by `rowKey`. */
  readonly #applied = new Map<string, number>()
  readonly #links: PeerLinks
  readonly #watchers = new Set<(snapshot: string) => void>()
  readonly #ended = new AbortController()
  #stopSampling: () => void
  #cancelPush: (() => void) | undefined
  #last: { text: string; at: number } | undefined

  constructor(view: ClusterView, timers: Timers = systemTimers) {
    this.#view = view
    this.#timers = timers
    this.#links = new PeerLinks({ view, timers })
    const { signal } = this.#ended
    for (const event of shownEvents)
      view.events.on(event, (...[payload]) => this.#onEvent(event, payload as Payload<typeof event>), { signal })
    view.events.on('replication:applied', (payload) => this.#onApplied(payload), { signal })
    this.#stopSampling = timers.every(SAMPLE_INTERVAL_MS, () => this.#sample())
    this.#sample()
  }

  /** Aborts when there will be no more snapshots. */
  get ended(): AbortSignal {
    return this.#ended.signal
  }

  /** Idempotent. */
  close(): void {
    this.#stopSampling()
    this.#cancelPush?.()
    this.#links.stop()
    this.#ended.abort()
  }

  /** As JSON; not older than half a second. */
  snapshot(): string {
    const now = this.#timers.elapsed()
    if (!this.#last || now - this.#last.at >= MIN_SNAPSHOT_INTERVAL_MS)
      this.#last = { text: this.#makeSnapshot(), at: now }
    return this.#last.text
  }

  /** Calls `receive` with each new snapshot, every two seconds and soon after events, until the returned function is called. */
  watch(receive: (snapshot: string) => void): () => void {
    this.#watchers.add(receive)
    this.#links.start()
    return () => {
      this.#watchers.delete(receive)
      if (this.#watchers.size === 0) this.#links.stop()
    }
  }

  nodeHistory() {
    return this.#history.node()
  }

  /** Undefined for a table that is not known. */
  tableHistory(row: { node: string; database: string; table: string }): Series<TableSample> | undefined {
    return this.#history.table(rowKey(row))
  }

  health() {
    return this.#view.health()
  }

  #onEvent<Name extends EventName>(event: Name, payload: Payload<Name>): void {
    const line = eventLine(event, payload)
    if (!line) return
    this.#events.add(event, line, this.#timers.now())
    if (event === 'peer:up' || event === 'peer:down') this.#links.refresh((payload as Payload<'peer:up'>).node)
    this.#cancelPush ??= this.#timers.after(this.#pushDelay(), () => {
      this.#cancelPush = undefined
      this.#push()
    })
  }

  #pushDelay(): number {
    const since = this.#last ? this.#timers.elapsed() - this.#last.at : MIN_SNAPSHOT_INTERVAL_MS
    return Math.max(EVENT_DELAY_MS, MIN_SNAPSHOT_INTERVAL_MS - since)
  }

  #onApplied({ source, transactions }: Payload<'replication:applied'>): void {
    const key = rowKey(source)
    this.#applied.set(key, (this.#applied.get(key) ?? 0) + transactions)
  }

  #sample(): void {
    const metrics = this.#view.metrics()
    const rows = collectRows(this.#view)
    const { transactions: committed = 0 } = metrics?.publish ?? {}
    const { applied = 0, copied = 0, lag = 0, lagSeconds = 0 } = metrics?.apply ?? {}
    const totals = { committed, applied, copied, lag, lagSeconds }
    this.#history.record(this.#timers.now(), totals, rows.map(this.#totalsOf))
    this.#forgetRemoved(rows)
    this.#push(rows)
    // A page that is open shows the last state; without a manager, nothing changes any more.
    if (this.#view.state === 'closed') this.close()
  }

  readonly #totalsOf = ({ key, status, replica }: CollectedRow) => {
    const known = replica === 'unknown' ? undefined : replica
    return {
      key,
      applied: this.#applied.get(key) ?? 0,
      lag: status?.lag ?? 0,
      sent: known?.appliedIndex,
      sentEpoch: known?.epoch,
      sentLag: known?.lag,
    }
  }

  #forgetRemoved(rows: readonly CollectedRow[]): void {
    if (this.#applied.size <= rows.length) return
    const known = new Set(rows.map(({ key }) => key))
    for (const key of this.#applied.keys()) if (!known.has(key)) this.#applied.delete(key)
  }

  /** Nothing is computed while nobody looks. */
  #push(rows?: CollectedRow[]): void {
    if (this.#watchers.size === 0) return
    const text = this.#makeSnapshot(rows)
    this.#last = { text, at: this.#timers.elapsed() }
    for (const receive of this.#watchers) receive(text)
  }

  #makeSnapshot(rows = collectRows(this.#view)): string {
    const snapshot = makeSnapshot(this.#view, {
      time: this.#timers.now(),
      tables: rows.map((row) => toTableRow(row, this.#history.rates(row.key))),
      sample: this.#history.lastSample(),
      events: this.#events.newest(),
      links: this.#links.rows(),
    })
    return JSON.stringify(snapshot)
  }
}
