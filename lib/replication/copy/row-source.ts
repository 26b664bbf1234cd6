// Serves the rows of local tables to remote nodes, in pages of bounded size, a few at a time.

import { createHash } from 'node:crypto'
import type { Host, KeyedRow, PrimaryKey, TableDescription, TableName } from '../../host/host.ts'
import { findNode, type Manifest, type Subscription, tableKey } from '../../manifest/manifest.ts'
import { SharedCall } from '../../util/shared-call.ts'
import { nextTurn, systemTimers, type Timers } from '../../util/timers.ts'
import { keyIdentity } from './key-identity.ts'
import { type LargeRow, PageBuilder } from './page-builder.ts'
import type { BusyAnswer, PageAnswer, PieceAnswer, ReadRowsAnswer, RowsRequest } from './row-messages.ts'
import { decodeKey, decodeKeys, encodeKey, encodePage, MAX_ROW_BYTES } from './row-page.ts'

export type RowSourceOptions = {
  host: Pick<Host, 'readRows' | 'horizon' | 'describe'>
  manifest(): Manifest
  /** Default: the system's. */
  timers?: Timers
}

const MAX_ROWS = 1_000
const MAX_BYTES = 1024 * 1024
/** Of a row that does not fit into a page. The largest answer is several times as large. */
const MAX_PIECE_BYTES = 4 * 1024 * 1024
/** Rows of one call of the host. Between two calls, other work of the process gets a turn. */
const MAX_CHUNK_ROWS = 250
/** Until the average size of the table's rows is known. */
const FIRST_CHUNK_ROWS = 32
/**
 * Requests that are worked on at once, for all nodes and tables. Those whose sender is asked for rows have a limit of their own: otherwise
 * two nodes that repair each other's tables would wait for each other.
 */
const MAX_AT_ONCE = { read: 4, repair: 4 }
const BUSY_MS = 100
const MAX_DESCRIPTION_AGE_MS = 1_000

/** Undefined: any direction. */
type Direction = 'publish' | 'subscribe' | undefined

export class RowSource {
  readonly #options: RowSourceOptions
  readonly #running = { read: 0, repair: 0 }
  /** Average bytes of a row in the last page of each table. */
  readonly #rowBytes = new Map<string, number>()

  /** All empty tables of a moment share one description of the database. */
  readonly #describe: SharedCall<TableDescription[]>

  constructor(options: RowSourceOptions) {
    this.#options = options
    const { host, timers = systemTimers } = options
    this.#describe = new SharedCall(() => host.describe(), { timers, maxAge: MAX_DESCRIPTION_AGE_MS })
  }

  isPublished(node: string, { database, table }: TableName): boolean {
    const subscriptions = findNode(this.#options.manifest(), node)?.subscriptions ?? []
    return subscriptions.some((each) => each.publish && each.database === database && each.table === table)
  }

  /**
   * Answers `read_rows` of a node that subscribes to the table here. Rejects with the reason of a refusal, with RowPageError for invalid
   * keys, and as the host does.
   */
  async answer(node: string, request: RowsRequest): Promise<ReadRowsAnswer> {
    this.requireSubscription(node, request, 'publish')
    return this.limited(() => this.#read(request))
  }

  /** Throws the reason why this node must not know the rows of the table. `direction`: as the manifest of this node has it. */
  requireSubscription(node: string, { database, table }: TableName, direction?: Direction): void {
    const isAllowed = (each: Subscription) =>
      each.database === database && each.table === table && (direction === undefined || each[direction])
    if (!findNode(this.#options.manifest(), node)?.subscriptions.some(isAllowed))
      throw new Error(`table '${database}.${table}' is not published to node '${node}'`)
    if (!this.#options.host.readRows) throw new Error('the database serves no rows: Host.readRows is missing')
  }

  /** Runs `work` unless enough of its kind is running already: then the answer is `busy`. */
  async limited<T>(work: () => Promise<T>, kind: keyof typeof MAX_AT_ONCE = 'read'): Promise<T | BusyAnswer> {
    if (this.#running[kind] >= MAX_AT_ONCE[kind]) return { busy: BUSY_MS }
    this.#running[kind]++
    try {
      return await work()
    } finally {
      this.#running[kind]--
    }
  }

  async #read(request: RowsRequest): Promise<PageAnswer | PieceAnswer> {
    const { limit = MAX_ROWS, maxBytes = MAX_BYTES, after, keys } = request
    const page = new PageBuilder({
      rows: Math.max(1, Math.min(limit, MAX_ROWS)),
      bytes: Math.min(maxBytes, MAX_BYTES),
      rowBytes: MAX_BYTES,
    })
    const done = keys && { done: await this.#readKeys(request, decodeKeys(keys), page) }
    if (!keys) await this.#readAfter(request, after && decodeKey(after), page)
    // After the rows: it covers each tombstone that was dropped before they were read.
    const horizon = await this.#options.host.horizon?.(tableOf(request))
    const last = done || page.lastKey === undefined ? {} : { last: encodeKey(page.lastKey) }
    if (!page.large) return { page: encodePage(page.encoded, horizon), ...last, ...done }
    return { ...pieceOf(page.large, request), ...(horizon === undefined ? {} : { horizon }), ...done }
  }

  async #readAfter(table: TableName, first: PrimaryKey | undefined, page: PageBuilder): Promise<void> {
    for (let after = first; page.isOpen; ) {
      const rows = await this.#readChunk(table, page, (limit) => ({ after, limit }))
      if (rows.length === 0) {
        if (page.encoded.length === 0) await this.#requireTable(table, after !== undefined)
        return
      }
      if (!rows.every((row) => page.add(row))) return
      after = rows.at(-1)!.key
    }
  }

  /** Resolves with the number of keys whose rows are in the page, or do not exist. */
  async #readKeys(table: TableName, keys: readonly PrimaryKey[], page: PageBuilder): Promise<number> {
    await this.#requireTable(table, true)
    let done = 0
    while (done < keys.length && page.isOpen) {
      let asked: PrimaryKey[] = []
      const found = await this.#readChunk(table, page, (limit) => {
        asked = keys.slice(done, done + limit)
        return { keys: asked }
      })
      const rows = new Map(found.map((row) => [keyIdentity(row.key), row]))
      for (const key of asked) {
        const row = rows.get(keyIdentity(key))
        if (row && !page.add(row)) return done
        done++
      }
    }
    return done
  }

  async #readChunk(
    table: TableName,
    page: PageBuilder,
    select: (limit: number) => Parameters<NonNullable<Host['readRows']>>[1],
  ): Promise<KeyedRow[]> {
    const known = page.rowBytes ?? this.#rowBytes.get(tableKey(table))
    const fitting = known === undefined ? FIRST_CHUNK_ROWS : Math.ceil(page.bytesLeft / Math.max(known, 1))
    const limit = Math.max(1, Math.min(fitting, page.rowsLeft, MAX_CHUNK_ROWS))
    await nextTurn()
    if (page.rowBytes !== undefined) this.#rowBytes.set(tableKey(table), page.rowBytes)
    return this.#options.host.readRows!(tableOf(table), select(limit))
  }

  /**
   * A table without rows exists; one that was dropped has no end that a copy could reach. `wasThere`: rows of it were read before. Then
   * a description from before is not enough.
   */
  async #requireTable({ database, table }: TableName, wasThere: boolean): Promise<void> {
    const isThere = (tables: readonly TableDescription[]) =>
      tables.some((each) => each.database === database && each.table === table)
    if (!wasThere && isThere(await this.#describe.get())) return
    if (!isThere(await this.#describe.fresh())) throw new Error(`table '${database}.${table}' does not exist`)
  }
}

const tableOf = ({ database, table }: TableName): TableName => ({ database, table })

/** The piece that the request asks for; the first one if the row has changed since. */
function pieceOf({ row, encoded }: LargeRow, { piece = 0, version }: RowsRequest): PieceAnswer {
  const of = encoded.byteLength
  if (of > MAX_ROW_BYTES) throw new Error(`a row has ${of} bytes, more than ${MAX_ROW_BYTES}`)
  const { timestamp, updated } = row.row
  const state = JSON.stringify([timestamp, updated ?? null, of])
  const current = createHash('sha256').update(state).digest('hex').slice(0, 32)
  const at = version === current && piece < of ? piece : 0
  return { piece: encoded.subarray(at, at + MAX_PIECE_BYTES), key: encodeKey(row.key), at, of, version: current }
}
