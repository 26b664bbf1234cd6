// Asks subscribers to report at once, as long as this node waits for their positions.

import type { TableName } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import { queueMicrotask, type Timers } from '../../util/timers.ts'
import { WATCH_MS } from './position-reporter.ts'

export type WatchesOptions = {
  timers: Timers
  isUp(node: string): boolean
  /** Rejects when the node does not answer. */
  send(node: string, tables: readonly TableName[]): Promise<void>
}

/** ms after which a node is asked again: earlier than its promise ends. */
const RENEW_AFTER_MS = WATCH_MS * (2 / 3)
const MAX_TABLES = 500

/** What one node has promised. */
class Watched {
  /** When (`Timers.elapsed`) each table, by its key, is to be asked for again. */
  readonly until = new Map<string, number>()
  /** To be asked for in the next request. */
  readonly wanted = new Map<string, TableName>()
  isSending = false
}

export class Watches {
  readonly #options: WatchesOptions
  readonly #nodes = new Map<string, Watched>()

  constructor(options: WatchesOptions) {
    this.#options = options
  }

  /** Call as long as it is waited for: now and about every second. */
  want(node: string, table: TableName): void {
    const { timers, isUp } = this.#options
    const key = tableKey(table)
    const known = this.#nodes.get(node)
    if ((known?.until.get(key) ?? 0) > timers.elapsed() || !isUp(node)) return
    const watched = known ?? new Watched()
    this.#nodes.set(node, watched)
    watched.wanted.set(key, { database: table.database, table: table.table })
    if (watched.isSending) return
    watched.isSending = true
    queueMicrotask(() => void this.#send(node, watched))
  }

  /** The process of the node or the link is a new one: it may have forgotten what it promised. Without a node: all have. */
  forget(node?: string): void {
    if (node === undefined) this.#nodes.clear()
    else this.#nodes.delete(node)
  }

  async #send(node: string, watched: Watched): Promise<void> {
    const { timers, send } = this.#options
    while (watched.wanted.size > 0) {
      const asked = [...watched.wanted].slice(0, MAX_TABLES)
      for (const [key] of asked) {
        watched.wanted.delete(key)
        watched.until.set(key, timers.elapsed() + RENEW_AFTER_MS)
      }
      try {
        await send(
          node,
          asked.map(([, table]) => table),
        )
      } catch {
        // It is asked again as long as it is waited for.
        for (const [key] of asked) watched.until.delete(key)
      }
    }
    watched.isSending = false
  }
}
