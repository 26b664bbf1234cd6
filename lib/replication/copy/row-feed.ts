// The rows that a copy applies, in parts: all rows of the source in its order, or those that differ (differing-rows.ts).

import type { KeyedRow, PrimaryKey, RemoteTable, Timestamp } from '../../host/host.ts'
import { withAbort } from '../../util/abort.ts'
import { type EffectOptions, effectiveRows, hasWrite } from './row-effect.ts'
import type { ArrivedPage, RowRequests } from './row-requests.ts'

/**
 * `announce`: the subscribers of the local table learn of the rows. No rows: the end, with the horizon of the source's table as it was after that.
 */
export type FeedPart = { rows: readonly KeyedRow[]; announce: boolean; horizon?: Timestamp | undefined }

export interface RowFeed {
  /** True: a copy that is interrupted continues behind the last key. False: it begins again, and finds the rest. */
  readonly isOrdered: boolean
  /** The next rows. The same again until `done` is called. Rejects as `RowRequests` and the host do, and with the signal's reason. */
  next(signal: AbortSignal): Promise<FeedPart>
  /** The rows of the last part are applied. */
  done(): void
}

export type AllRowsOptions = Omit<EffectOptions, 'table' | 'primaryKey'> & {
  source: RemoteTable
  requests: RowRequests
  /** Of the local table. Rejects when the table does not exist. */
  primaryKey(): Promise<string>
  after?: PrimaryKey
}

/** Pages that are requested, or have arrived, while one is applied. */
const PAGES_AHEAD = 2

/** All rows of the source after a key. The next pages are requested while one is applied, each when the one before it has arrived. */
export class AllRows implements RowFeed {
  readonly isOrdered = true
  readonly #options: AllRowsOptions
  /** Rows to announce were found. */
  #announce = false
  /** In order, at most PAGES_AHEAD. */
  readonly #pages: Promise<ArrivedPage>[] = []
  /** The next page begins after this key. */
  #after: PrimaryKey | undefined
  /** A page is requested; or it had no rows, and is the last one. */
  #isRequested = false

  constructor(options: AllRowsOptions) {
    this.#options = options
    this.#after = options.after
  }

  async next(signal: AbortSignal): Promise<FeedPart> {
    signal.throwIfAborted()
    this.#requestNext(signal)
    const page = (await withAbort(this.#pages[0]!, signal)).read()
    if (page.rows.length > 0) this.#pages.shift()
    this.#requestNext(signal)
    return { ...page, announce: await this.#isToAnnounce(page.rows) }
  }

  done(): void {}

  /** A write of the local node usually comes back because the source has applied it: then the row is here, and not announced. */
  async #isToAnnounce(rows: readonly KeyedRow[]): Promise<boolean> {
    const { source, isAnnounced, primaryKey } = this.#options
    const candidates = this.#announce ? [] : rows.filter((row) => hasWrite(row, isAnnounced))
    if (candidates.length > 0) {
      const options = { ...this.#options, table: source, primaryKey: await primaryKey() }
      this.#announce = (await effectiveRows(candidates, options)).announce
    }
    // The first announcement of a copy is one of all its rows.
    return this.#announce
  }

  #requestNext(signal: AbortSignal): void {
    if (this.#isRequested || this.#pages.length >= PAGES_AHEAD || signal.aborted) return
    const { source, requests } = this.#options
    const page = requests.arrivedPage(source, this.#after, { signal })
    this.#isRequested = true
    this.#pages.push(page)
    page.then(
      ({ last }) => {
        if (last === undefined) return
        this.#after = last
        this.#isRequested = false
        this.#requestNext(signal)
      },
      // It may be in flight when the copy ends.
      () => {},
    )
  }
}
