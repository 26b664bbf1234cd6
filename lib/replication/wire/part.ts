// Encodes and decodes one table's part of a transaction, as it stands in a frame.
//
// A part is a MessagePack array: id, timestamp, user or nil, writes, extra or nil. `writes` alternates between the number of an
// operation and its list of records or primary keys. `extra` is a map of what most transactions do not have. The part does not name
// its table: its stream does.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { Origin, PrimaryKey, RemoteTable, Transaction, VoidedRange, Write } from '../../host/host.ts'
import { wallTimeOf } from '../../host/hybrid-clock.ts'
import { type TraceContext, traceContext } from '../../host/trace-context.ts'
import { packr } from '../packr.ts'
import {
  isValidTransactionId,
  MAX_EPOCH_LENGTH,
  MAX_RELAYS,
  NODE_PATTERN,
  oneLine,
  TIMESTAMP_PATTERN,
  WireError,
} from './names.ts'
import { joinRuns } from './writes.ts'

const OPERATIONS = ['insert', 'update', 'upsert', 'delete'] as const satisfies readonly Write['operation'][]
const OPERATION_NUMBERS: Readonly<Record<Write['operation'], number>> = { insert: 0, update: 1, upsert: 2, delete: 3 }

/** Number of elements of a part. */
const PART_LENGTH = 5
/** Where the name of the node begins in a timestamp. */
const NAME_OFFSET = 20
const timestampPattern = new RegExp(TIMESTAMP_PATTERN)

const NodeType = Type.String({ pattern: NODE_PATTERN })
const TimestampType = Type.String({ pattern: TIMESTAMP_PATTERN })
const ExtraType = Type.Object({
  /** Absent: the owner of the stream. */
  node: Type.Optional(NodeType),
  epoch: Type.Optional(Type.String({ pattern: oneLine(MAX_EPOCH_LENGTH) })),
  index: Type.Optional(Type.Integer({ minimum: 1 })),
  relayedBy: Type.Optional(Type.Array(NodeType, { maxItems: MAX_RELAYS })),
  voids: Type.Optional(Type.Object({ node: NodeType, from: TimestampType, to: TimestampType })),
  trace: Type.Optional(Type.Object({})),
})
const extraValidator = Compile(ExtraType)
const keysValidator = Compile(Type.Array(Type.Union([Type.String(), Type.Number(), Type.BigInt()])))

type Extra = Type.Static<typeof ExtraType>
type Part = [id: string, timestamp: string, user: string | null, writes: unknown[], extra: Extra | null]

/** A decoded part. `node`: who committed it, if that is not the owner of the stream. */
export type DecodedPart = {
  id: string
  timestamp: string
  user: string | undefined
  writes: Write[]
  node: string | undefined
  epoch: string | undefined
  index: number | undefined
  relayedBy: string[]
  voids: VoidedRange | undefined
  trace: TraceContext | undefined
}

/**
 * Encodes one table's part of a transaction. `node`: the local node. A restamp keeps the name that its node had, because it voids
 * timestamps with that name. Throws for values that MessagePack cannot hold.
 */
export function encodePart(transaction: Transaction, writes: readonly Write[], node: string): Uint8Array {
  const { id, timestamp, user = null } = transaction
  const list: unknown[] = []
  for (const write of joinRuns(writes))
    list.push(OPERATION_NUMBERS[write.operation], (write.operation === 'delete' ? write.ids : write.records) ?? [])
  return packr.pack([id, timestamp, user, list, extraOf(transaction, node)])
}

function extraOf({ origin, voids, trace }: Transaction, node: string): Extra | null {
  if (!origin && !voids && !trace) return null
  const extra: Extra = {}
  const committedBy = origin?.node ?? voids?.node ?? node
  if (committedBy !== node) extra.node = committedBy
  if (origin) addOrigin(extra, origin)
  if (voids) extra.voids = { node: voids.node, from: voids.from, to: voids.to }
  const context = trace && traceContext(trace)
  if (context) extra.trace = context
  return extra
}

function addOrigin(extra: Extra, { epoch, index, relayedBy }: Origin): void {
  // A stream without epochs may begin again with the same running numbers, which only its readers notice.
  if (epoch && index !== undefined) {
    extra.epoch = epoch
    extra.index = index
  }
  extra.relayedBy = relayedBy
}

/** Throws WireError. The caller has checked the number of values with `checkDecodeLimits`. */
export function decodePart(source: RemoteTable, data: Uint8Array): DecodedPart {
  const [id, timestamp, user, list, extra] = unpack(data)
  const { node, epoch, index, relayedBy = [], voids, trace } = extra ?? {}
  return {
    id,
    timestamp,
    user: user ?? undefined,
    writes: writesOf(source, list),
    node,
    epoch,
    index,
    relayedBy,
    voids: voids && { node: voids.node, from: voids.from, to: voids.to },
    trace: traceContext(trace),
  }
}

/** The id of the transaction; '' when the part is unreadable. The caller has checked the number of values. */
export function idOfPart(data: Uint8Array): string {
  try {
    return unpack(data)[0]
  } catch {
    return ''
  }
}

function unpack(data: Uint8Array): Part {
  let value: unknown
  try {
    value = packr.unpack(data)
  } catch (error) {
    throw new WireError(`not valid MessagePack: ${reasonOf(error)}`)
  }
  if (!isPart(value)) throw new WireError('not a valid transaction')
  if (!isTimestamp(value[1])) throw new WireError(`'${value[1]}' is not a valid timestamp`)
  return value
}

/** By hand, because a compiled schema takes several times as long. The timestamp is any string. */
function isPart(value: unknown): value is Part {
  if (!Array.isArray(value) || value.length !== PART_LENGTH) return false
  const [id, timestamp, user, list, extra] = value as unknown[]
  if (typeof id !== 'string' || !isValidTransactionId(id) || typeof timestamp !== 'string') return false
  if ((user !== null && typeof user !== 'string') || !Array.isArray(list)) return false
  return extra === null || extraValidator.Check(extra)
}

/** The end of the last valid timestamp, from the name of its node on: nearly all timestamps of a stream have the same. */
let lastName = ''

function isTimestamp(text: string): boolean {
  if (Number.isNaN(wallTimeOf(text))) return false
  if (text.length === NAME_OFFSET + lastName.length && text.endsWith(lastName)) return true
  if (!timestampPattern.test(text)) return false
  lastName = text.slice(NAME_OFFSET)
  return true
}

const isRecords = (rows: unknown): rows is Record<string, unknown>[] => {
  if (!Array.isArray(rows)) return false
  for (const row of rows) if (typeof row !== 'object' || row === null || Array.isArray(row)) return false
  return true
}

function writesOf({ database, table }: RemoteTable, list: readonly unknown[]): Write[] {
  const writes: Write[] = []
  for (let at = 0; at < list.length; at += 2) {
    const number = list[at]
    // Other values may be names of properties of the list.
    const operation = typeof number === 'number' ? OPERATIONS[number] : undefined
    const rows = list[at + 1]
    if (operation === 'delete' && keysValidator.Check(rows))
      writes.push({ operation, database, table, ids: rows as PrimaryKey[] })
    else if (operation !== undefined && operation !== 'delete' && isRecords(rows))
      writes.push({ operation, database, table, records: rows })
    else throw new WireError('contains an invalid write')
  }
  return writes
}
