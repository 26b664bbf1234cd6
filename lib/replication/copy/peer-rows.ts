// Asks remote nodes for rows: waits while they are busy, and joins the pieces of large rows.

import { clusterError, reasonOf } from '../../errors.ts'
import type { KeyedRow, PrimaryKey, RemoteTable } from '../../host/host.ts'
import { pause } from '../../util/pause.ts'
import type { Timers } from '../../util/timers.ts'
import { keyIdentity } from './key-identity.ts'
import { isBusy, isRowsAnswer, type PageAnswer, type PieceAnswer, type RowsRequest } from './row-messages.ts'
import {
  decodeKey,
  decodePage,
  decodeRow,
  encodeKey,
  encodeKeys,
  isTimestamp,
  MAX_ROW_BYTES,
  RowPageError,
} from './row-page.ts'
import type { ArrivedPage, RowPage, RowRequests } from './row-requests.ts'

type RequestOptions = { signal: AbortSignal }

type RowFields = Omit<RowsRequest, 'database' | 'table'>

/** How requests reach a node. */
export type RowTransport = {
  /** Sends a request and resolves with the message of its answer. Rejects as Peers.request; bounded in time. */
  request(node: string, operation: string, rows: RowsRequest, options: RequestOptions): Promise<unknown>
  timers: Timers
}

export type PeerRowsOptions = RowTransport & {
  /** Whether the node serves rows, as it was last described. */
  servesRows(node: string): boolean | undefined
  /** Asks the node for its tables. Never rejects. */
  refresh(node: string): Promise<void>
}

/** Keys of one request. */
const MAX_KEYS = 500
/** A row that changes more often while its pieces are read is given up. */
const MAX_RESTARTS = 10
/** ms between two questions to a node that is not known to serve rows. */
const REFRESH_INTERVAL_MS = 10_000

export class PeerRows implements RowRequests {
  readonly #options: PeerRowsOptions
  /** When each node was asked for its tables last. */
  readonly #refreshed = new Map<string, number>()

  constructor(options: PeerRowsOptions) {
    this.#options = options
  }

  /** Asks a node again from time to time, because a new version of it may serve rows. */
  serves({ node }: RemoteTable): boolean | undefined {
    const { servesRows, refresh, timers } = this.#options
    const serves = servesRows(node)
    const now = timers.elapsed()
    if (serves || now - (this.#refreshed.get(node) ?? Number.NEGATIVE_INFINITY) < REFRESH_INTERVAL_MS) return serves
    this.#refreshed.set(node, now)
    void refresh(node)
    return serves
  }

  /** Rejects as `request`, peer_rejected for an invalid answer, and with the signal's reason. */
  async page(source: RemoteTable, after: PrimaryKey | undefined, options: RequestOptions): Promise<RowPage> {
    return (await this.arrivedPage(source, after, options)).read()
  }

  /** Rejects as `page`. */
  async arrivedPage(source: RemoteTable, after: PrimaryKey | undefined, options: RequestOptions): Promise<ArrivedPage> {
    const asked = after === undefined ? {} : { after: encodeKey(after) }
    for (;;) {
      const answer = await this.#ask(source, asked, options)
      const page = await this.#arrived(source, answer, options)
      const { last } = page
      if (last !== undefined && after !== undefined && keyIdentity(last) === keyIdentity(after))
        throw invalid(source, 'the page ends at the row that it begins after')
      // A large row that is gone meanwhile is not the end.
      if (last !== undefined || !('piece' in answer)) return page
    }
  }

  /** Rejects as `page`. */
  async rows(source: RemoteTable, keys: readonly PrimaryKey[], options: RequestOptions): Promise<KeyedRow[]> {
    const found: KeyedRow[] = []
    for (let at = 0; at < keys.length; ) {
      const asked = keys.slice(at, at + MAX_KEYS)
      const answer = await this.#ask(source, { keys: encodeKeys(asked) }, options)
      const { rows } = await this.#pageOf(source, answer, options)
      const identities = new Set(asked.map(keyIdentity))
      if (!rows.every(({ key }) => identities.has(keyIdentity(key))))
        throw invalid(source, 'contains a row that was not asked for')
      const { done = 0 } = answer
      if (done < 1 || done > asked.length) throw invalid(source, `covers ${done} of ${asked.length} keys`)
      for (const row of rows) found.push(row)
      at += done
    }
    return found
  }

  async #arrived(source: RemoteTable, answer: PageAnswer | PieceAnswer, options: RequestOptions): Promise<ArrivedPage> {
    if (!('page' in answer) || !answer.last) {
      const page = await this.#pageOf(source, answer, options)
      return { last: page.rows.at(-1)?.key, read: () => page }
    }
    const { page: encoded, last: lastKey } = answer
    const last = decoded(source, () => decodeKey(lastKey))
    const read = () => {
      const page = decoded(source, () => decodePage(encoded))
      const found = page.rows.at(-1)
      if (!found || keyIdentity(found.key) !== keyIdentity(last))
        throw invalid(source, 'ends at another row than it says')
      return page
    }
    return { last, read }
  }

  async #pageOf(source: RemoteTable, answer: PageAnswer | PieceAnswer, options: RequestOptions): Promise<RowPage> {
    if ('page' in answer) return decoded(source, () => decodePage(answer.page))
    const { horizon } = answer
    if (horizon !== undefined && !isTimestamp(horizon)) throw invalid(source, 'contains an invalid timestamp')
    const row = await this.#join(source, answer, options)
    return { rows: row ? [row] : [], ...(horizon === undefined ? {} : { horizon }) }
  }

  /** The whole row; undefined when it is gone. */
  async #join(source: RemoteTable, first: PieceAnswer, options: RequestOptions): Promise<KeyedRow | undefined> {
    const key = decoded(source, () => decodeKey(first.key))
    let pieces = new Pieces(first)
    let restarts = 0
    for (let answer: PieceAnswer | PageAnswer = first; ; ) {
      if ('page' in answer) return this.#onlyRow(source, key, answer)
      if (answer.version !== pieces.version) {
        if (++restarts > MAX_RESTARTS) throw invalid(source, 'a large row changes while it is read')
        pieces = new Pieces(answer)
      }
      const fault = pieces.add(answer)
      if (fault) throw invalid(source, fault)
      if (pieces.isComplete) {
        const row = decoded(source, () => decodeRow(pieces.join()))
        if (keyIdentity(row.key) !== keyIdentity(key)) throw invalid(source, 'contains a row that was not asked for')
        return row
      }
      const { bytes: piece, version } = pieces
      answer = await this.#ask(source, { keys: encodeKeys([key]), piece, version }, options)
    }
  }

  /** The row became smaller, or was deleted, while its pieces were read. */
  #onlyRow(source: RemoteTable, key: PrimaryKey, { page }: PageAnswer): KeyedRow | undefined {
    const [row] = decoded(source, () => decodePage(page, 1)).rows
    if (row && keyIdentity(row.key) !== keyIdentity(key)) throw invalid(source, 'contains a row that was not asked for')
    return row
  }

  async #ask(source: RemoteTable, request: RowFields, options: RequestOptions): Promise<PageAnswer | PieceAnswer> {
    const answer = await askPatiently(this.#options, source, 'read_rows', request, options)
    if (!isRowsAnswer(answer)) throw invalid(source, 'is unreadable')
    return answer
  }
}

/** Repeats a request about a table while the node answers that it is busy. Rejects as `request`, and with the signal's reason. */
export async function askPatiently(
  { request, timers }: RowTransport,
  { node, database, table }: RemoteTable,
  operation: string,
  fields: RowFields,
  { signal }: RequestOptions,
): Promise<unknown> {
  for (;;) {
    signal.throwIfAborted()
    const answer = await request(node, operation, { database, table, ...fields }, { signal })
    signal.throwIfAborted()
    if (!isBusy(answer)) return answer
    // Longer at random: nodes that were refused together do not ask again together.
    await pause(timers, answer.busy * (1 + Math.random()), signal)
  }
}

export const invalid = ({ node, database, table }: RemoteTable, fault: string) =>
  clusterError('peer_rejected', node, `its answer about the rows of '${database}.${table}' ${fault}`)

/** Rejects peer_rejected for bytes that are not valid. */
export function decoded<T>(source: RemoteTable, decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    if (error instanceof RowPageError) throw invalid(source, `is invalid: ${reasonOf(error)}`)
    throw error
  }
}

/** The pieces of one version of a row so far. */
class Pieces {
  readonly version: string
  bytes = 0
  readonly #of: number
  readonly #pieces: Uint8Array[] = []

  constructor({ version, of }: PieceAnswer) {
    this.version = version
    this.#of = of
  }

  get isComplete(): boolean {
    return this.bytes === this.#of
  }

  /** The fault of a piece that does not continue the row. */
  add({ piece, at, of }: PieceAnswer): string | undefined {
    if (of !== this.#of || at !== this.bytes || piece.byteLength === 0 || at + piece.byteLength > of)
      return 'has pieces of a row that do not fit together'
    if (of > MAX_ROW_BYTES) return `has a row of ${of} bytes, more than ${MAX_ROW_BYTES}`
    this.#pieces.push(piece)
    this.bytes += piece.byteLength
    return undefined
  }

  join(): Uint8Array {
    return Buffer.concat(this.#pieces)
  }
}
