// The rows that a copy applies, in parts: all rows of the source in its order, or those that differ (differing-rows.ts).

import type { KeyedRow, PrimaryKey, RemoteTable, Timestamp } from '../../host/host.ts'
import { withAbort } from '../../util/abort.ts'
import { hasWrite, type IsAnnounced } from './row-effect.ts'
import type { RowPage, RowRequests } from './row-requests.ts'

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

/** All rows of the source after a key. The next page is requested while one is applied. */
export class AllRows implements RowFeed {
  readonly isOrdered = true
  readonly #source: RemoteTable
  readonly #requests: RowRequests
  readonly #isAnnounced: IsAnnounced
  #after: PrimaryKey | undefined
  #next: Promise<RowPage> | undefined

  constructor(options: { source: RemoteTable; requests: RowRequests; isAnnounced: IsAnnounced; after?: PrimaryKey }) {
    this.#source = options.source
    this.#requests = options.requests
    this.#isAnnounced = options.isAnnounced
    this.#after = options.after
  }

  async next(signal: AbortSignal): Promise<FeedPart> {
    this.#next ??= this.#request(signal)
    const page = await withAbort(this.#next, signal)
    const last = page.rows.at(-1)
    if (last) {
      this.#after = last.key
      this.#next = this.#request(signal)
    }
    return { ...page, announce: page.rows.some((row) => hasWrite(row, this.#isAnnounced)) }
  }

  done(): void {}

  #request(signal: AbortSignal): Promise<RowPage> {
    const page = this.#requests.page(this.#source, this.#after, { signal })
    // It may be in flight when the copy ends.
    page.catch(() => {})
    return page
  }
}
