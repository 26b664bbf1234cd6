// Requests for rows and their answers, as they travel between nodes.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import type { TableName, Timestamp } from '../../host/host.ts'

/**
 * `read_rows`: either the next rows after the key `after` (from the first one on without it), at most `limit` rows and `maxBytes` bytes;
 * or the rows with these `keys`. A row that does not fit comes in pieces: `piece` is the offset of the next piece of the only key, and
 * `version` that of the row whose pieces came before. Keys are those of row-page.ts.
 *
 * `hash_rows` and `find_rows`: the rows after the key `after` in `buckets`, left out up to `cut` as row-hash.ts says; `values`: their
 * digests are of the values too, which the answer confirms. `repair_rows`: the
 * receiver is to read the rows with these `keys` from the sender. `table_status` has no other fields.
 */
export type RowsRequest = TableName & {
  after?: Uint8Array
  keys?: Uint8Array
  limit?: number
  maxBytes?: number
  piece?: number
  version?: string
  buckets?: number
  selected?: Uint8Array
  cut?: Timestamp
  values?: boolean
}

/** The source has too much to do: ask again after this time. */
export type BusyAnswer = { busy: number }
/**
 * `done`: number of the keys that this page covers; the rest is to be asked for again. `last`: the key of the last row, so that the next
 * page can be asked for before this one is decoded; only for rows after a key.
 */
export type PageAnswer = { page: Uint8Array; last?: Uint8Array; done?: number | undefined }
/** A part of one encoded row of `of` bytes, from the offset `at` on. Another `version`: the row has changed, `at` is 0. */
export type PieceAnswer = {
  piece: Uint8Array
  key: Uint8Array
  at: number
  of: number
  version: string
  horizon?: Timestamp | undefined
  done?: number | undefined
}
/** `hash_rows`: sums of the rows up to the key `next`; without it, of all rows up to the end. `rows`: their number. */
export type SumsAnswer = { sums: Uint8Array } & ScanAnswer
/** `find_rows`: the rows in the `selected` buckets, or those with the `keys`, with their digests. */
export type VersionsAnswer = { versions: Uint8Array } & ScanAnswer
export type ScanAnswer = { rows: number; next?: Uint8Array; values?: boolean }

/** `table_status`: what a node has of a table. */
export type TableStatus = {
  horizon?: Timestamp | undefined
  /** The last position of the node's own stream; it holds everything that the node had committed, if `isPublished`. */
  epoch: string
  sequence: number
  isPublished: boolean
  /** The node's subscriptions of the table, with the stored position. */
  sources: readonly TableSource[]
  /** The table is being replaced by a copy: rows are missing. */
  isReplaced?: boolean
}
/**
 * `index`: the transactions of this source up to it are in the node's own stream, because it relays; absent if some are not. `newest`: the
 * newest of their timestamps, as far as these are known. Instead of them `relayedSequence`: the same of messages, when the node does not know
 * how many transactions they had, because they were gone before it subscribed.
 */
export type TableSource = {
  node: string
  state: string
  epoch: string
  sequence: number
  index?: number
  newest?: Timestamp
  relayedSequence?: number
}

export type ReadRowsAnswer = BusyAnswer | PageAnswer | PieceAnswer

const MAX_BUSY_MS = 60_000
const BytesType = Type.Unsafe<Uint8Array>(
  Type.Refine(
    Type.Unknown(),
    (value) => value instanceof Uint8Array,
    () => 'must be bytes',
  ),
)
const CountType = Type.Integer({ minimum: 0 })
const BusyType = Type.Object({ busy: Type.Number({ minimum: 0, maximum: MAX_BUSY_MS }) })
const PageType = Type.Object({ page: BytesType, last: Type.Optional(BytesType), done: Type.Optional(CountType) })
const PieceType = Type.Object({
  piece: BytesType,
  key: BytesType,
  at: CountType,
  of: CountType,
  version: Type.String({ maxLength: 64 }),
  horizon: Type.Optional(Type.String({ maxLength: 512 })),
  done: Type.Optional(CountType),
})

const scanFields = { rows: CountType, next: Type.Optional(BytesType), values: Type.Optional(Type.Boolean()) }
const SumsType = Type.Object({ sums: BytesType, ...scanFields })
const VersionsType = Type.Object({ versions: BytesType, ...scanFields })
const TextType = Type.String({ maxLength: 1_000 })
const StatusType = Type.Object({
  horizon: Type.Optional(Type.Union([TextType, Type.Null()])),
  epoch: TextType,
  sequence: CountType,
  isPublished: Type.Boolean(),
  sources: Type.Array(
    Type.Object({
      node: TextType,
      state: TextType,
      epoch: TextType,
      sequence: CountType,
      index: Type.Optional(CountType),
      newest: Type.Optional(TextType),
      relayedSequence: Type.Optional(CountType),
    }),
    { maxItems: 10_000 },
  ),
  isReplaced: Type.Optional(Type.Boolean()),
})

const busyValidator = Compile(BusyType)
const rowsValidator = Compile(Type.Union([PageType, PieceType]))

export const isBusy = (answer: unknown): answer is BusyAnswer => busyValidator.Check(answer)
export const isRowsAnswer = (answer: unknown): answer is PageAnswer | PieceAnswer => rowsValidator.Check(answer)

const sumsValidator = Compile(SumsType)
const versionsValidator = Compile(VersionsType)
const statusValidator = Compile(StatusType)
export const isSumsAnswer = (answer: unknown): answer is SumsAnswer => sumsValidator.Check(answer)
export const isVersionsAnswer = (answer: unknown): answer is VersionsAnswer => versionsValidator.Check(answer)
export const isTableStatus = (answer: unknown): answer is TableStatus => statusValidator.Check(answer)
