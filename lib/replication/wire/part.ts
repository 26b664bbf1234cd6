// Encodes and decodes one table's part of a transaction, as it stands in a frame.
//
// A part is a MessagePack array: id, time and counter of the timestamp, user or nil, writes, extra or nil. `writes` alternates between
// the number of an operation and its list of records or primary keys. `extra` is a map of what most transactions do not have. The part
// does not name its table and its node: its stream and its message do.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { Origin, PrimaryKey, RemoteTable, Transaction, VoidedRange, Write } from '../../host/host.ts'
import { counterOf, isIssuedBy, issuerOf, makeParsedTimestamp, wallTimeOf } from '../../host/hybrid-clock.ts'
import { type TraceContext, traceContext } from '../../host/trace-context.ts'
import { checkDecodeLimits, MAX_HARMLESS_BYTES } from '../../util/decode-limits.ts'
import { illFormedString, mayBeIllFormed } from '../../util/well-formed.ts'
import { packr, recordPackr } from '../packr.ts'
import {
  ISSUER_PATTERN,
  isValidTransactionId,
  MAX_EPOCH_LENGTH,
  MAX_RELAYS,
  NODE_PATTERN,
  oneLine,
  TIMESTAMP_PATTERN,
  WireError,
} from './names.ts'
import { UnusualValueError, ValueReader } from './value-reader.ts'
import { joinRuns } from './writes.ts'

const OPERATIONS = ['insert', 'update', 'upsert', 'delete'] as const satisfies readonly Write['operation'][]
const OPERATION_NUMBERS: Readonly<Record<Write['operation'], number>> = { insert: 0, update: 1, upsert: 2, delete: 3 }

/** Number of elements of a part. */
const PART_LENGTH = 6
const [MAX_TIME, MAX_COUNTER] = [2 ** 48 - 1, 2 ** 24 - 1] as const
const issuerPattern = new RegExp(ISSUER_PATTERN)

const NodeType = Type.String({ pattern: NODE_PATTERN })
const TimestampType = Type.String({ pattern: TIMESTAMP_PATTERN })
const ExtraType = Type.Object({
  /** Absent: the owner of the stream. */
  node: Type.Optional(NodeType),
  /** The name in the timestamp; absent: that of the node. */
  issuer: Type.Optional(Type.String({ pattern: ISSUER_PATTERN })),
  epoch: Type.Optional(Type.String({ pattern: oneLine(MAX_EPOCH_LENGTH) })),
  index: Type.Optional(Type.Integer({ minimum: 1 })),
  relayedBy: Type.Optional(Type.Array(NodeType, { maxItems: MAX_RELAYS })),
  voids: Type.Optional(Type.Object({ node: NodeType, from: TimestampType, to: TimestampType })),
  trace: Type.Optional(Type.Object({})),
})
const extraValidator = Compile(ExtraType)
const keysValidator = Compile(Type.Array(Type.Union([Type.String(), Type.Number(), Type.BigInt()])))

type Extra = Type.Static<typeof ExtraType>
type Part = [id: string, time: number, counter: number, user: string | null, writes: unknown[], extra: Extra | null]

const noExtra: Extra = Object.freeze({})

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
 * Encodes one table's part of a transaction. `node`: the local node. `asRecords`: with the names of attributes once, as HarperDB does. A restamp keeps the name that its node had, because it voids
 * timestamps with that name. Throws for values that MessagePack cannot hold, and for strings that UTF-8 cannot: as keys, two of them would
 * become one.
 */
export function encodePart(
  transaction: Transaction,
  writes: readonly Write[],
  node: string,
  { asRecords = false } = {},
): Uint8Array {
  const { id, timestamp, user = null } = transaction
  const time = wallTimeOf(timestamp)
  if (Number.isNaN(time)) throw new Error(`its timestamp '${timestamp}' is invalid`)
  const part = [id, time, counterOf(timestamp), user, listOf(joinRuns(writes)), extraOf(transaction, node)]
  const data = (asRecords ? recordPackr : packr).pack(part)
  const text = mayBeIllFormed(data) ? illFormedString(part) : undefined
  if (text !== undefined)
    throw new Error(`it has a string with half of a surrogate pair: ${JSON.stringify(text.slice(0, 200))}`)
  return data
}

const numberOf = ({ operation }: Write): number => OPERATION_NUMBERS[operation]
const rowsOf = (write: Write): readonly unknown[] => (write.operation === 'delete' ? write.ids : write.records) ?? []

/** Of one write, which most transactions have, a list without room for more: `push` makes room for 17. */
function listOf(writes: readonly Write[]): unknown[] {
  const first = writes[0]
  if (first && writes.length === 1) return [numberOf(first), rowsOf(first)]
  return writes.flatMap((write) => [numberOf(write), rowsOf(write)])
}

function extraOf({ origin, voids, trace, timestamp }: Transaction, node: string): Extra | null {
  const committedBy = origin?.node ?? voids?.node ?? node
  const isIssuer = isIssuedBy(timestamp, committedBy)
  if (isIssuer && !origin && !voids && !trace) return null
  const extra: Extra = {}
  if (committedBy !== node) extra.node = committedBy
  if (!isIssuer) extra.issuer = issuerOf(timestamp)
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

/** Decodes the bytes `from` to `to`. `owner`: the owner of the stream when it was stored. Throws WireError. */
export function decodePart(
  source: RemoteTable,
  owner: string,
  data: Uint8Array,
  from = 0,
  to = data.byteLength,
): DecodedPart {
  const usual = to - from <= MAX_HARMLESS_BYTES ? readUsual(source, owner, data, from, to) : undefined
  if (usual) return usual
  const [id, time, counter, user, list, extra] = unpack(data.subarray(from, to))
  const timestamp = timestampOf(time, counter, extra, owner)
  if (timestamp === undefined) throw new WireError('has an invalid timestamp')
  return decodedPart(id, timestamp, user, writesOf(source, list), extra)
}

function decodedPart(
  id: string,
  timestamp: string,
  user: string | null,
  writes: Write[],
  extra: Extra | null,
): DecodedPart {
  const { node, epoch, index, relayedBy = [], voids, trace } = extra ?? noExtra
  return {
    id,
    timestamp,
    user: user ?? undefined,
    writes,
    node,
    epoch,
    index,
    relayedBy,
    voids: voids && { node: voids.node, from: voids.from, to: voids.to },
    trace: traceContext(trace),
  }
}

/** The last valid name in a timestamp: nearly all timestamps of a stream have the same. */
let lastIssuer = ''

/** Undefined when it is invalid. */
function timestampOf(time: number, counter: number, extra: Extra | null, owner: string): string | undefined {
  if (!Number.isInteger(time) || time < 0 || time > MAX_TIME) return undefined
  if (!Number.isInteger(counter) || counter < 0 || counter > MAX_COUNTER) return undefined
  const issuer = extra?.issuer ?? extra?.node ?? owner
  if (issuer !== lastIssuer && !issuerPattern.test(issuer)) return undefined
  lastIssuer = issuer
  return makeParsedTimestamp(time, counter, issuer)
}

const reader = new ValueReader()

/** Undefined when the general decoder must read the part. */
function readUsual(
  source: RemoteTable,
  owner: string,
  data: Uint8Array,
  from: number,
  to: number,
): DecodedPart | undefined {
  try {
    reader.begin(data, from, to)
    if (reader.arrayLength() !== PART_LENGTH) return undefined
    const id = reader.string()
    if (!isValidTransactionId(id)) return undefined
    const [time, counter] = [reader.number(), reader.number()]
    const user = reader.stringOrNull()
    const writes = readWrites(source)
    if (!writes) return undefined
    const extra = reader.value()
    reader.finish()
    if (!isExtra(extra)) return undefined
    const timestamp = timestampOf(time, counter, extra, owner)
    return timestamp === undefined ? undefined : decodedPart(id, timestamp, user, writes, extra)
  } catch (error) {
    if (error instanceof UnusualValueError) return undefined
    throw error
  }
}

/** See `writesOf`. */
function readWrites(source: RemoteTable): Write[] | undefined {
  const length = reader.arrayLength()
  if (length % 2 !== 0) return undefined
  if (length === 0) return []
  const first = readWrite(source)
  if (!first) return undefined
  // See `listOf`.
  const writes = [first]
  while (2 * writes.length < length) {
    const write = readWrite(source)
    if (!write) return undefined
    writes.push(write)
  }
  return writes
}

function readWrite({ database, table }: RemoteTable): Write | undefined {
  const number = reader.value()
  const operation = typeof number === 'number' ? OPERATIONS[number] : undefined
  if (operation === undefined) return undefined
  if (operation !== 'delete') return { operation, database, table, records: readRecords(reader.arrayLength()) }
  const ids = reader.value()
  return keysValidator.Check(ids) ? { operation, database, table, ids: ids as PrimaryKey[] } : undefined
}

function readRecords(length: number): Record<string, unknown>[] {
  if (length === 0) return []
  const records = [reader.map()]
  while (records.length < length) records.push(reader.map())
  return records
}

/** The id of the transaction; '' when the part is unreadable. */
export function idOfPart(data: Uint8Array): string {
  try {
    return unpack(data)[0]
  } catch {
    return ''
  }
}

function unpack(data: Uint8Array): Part {
  const fault = checkDecodeLimits(data)
  if (fault) throw new WireError(fault)
  let value: unknown
  try {
    value = packr.unpack(data)
  } catch (error) {
    throw new WireError(`not valid MessagePack: ${reasonOf(error)}`)
  }
  if (!isPart(value)) throw new WireError('not a valid transaction')
  return value
}

/** By hand, because a compiled schema takes several times as long. The timestamp is any two numbers. */
function isPart(value: unknown): value is Part {
  if (!Array.isArray(value) || value.length !== PART_LENGTH) return false
  const [id, time, counter, user, list, extra] = value as unknown[]
  if (!isValidTransactionId(id)) return false
  if (typeof time !== 'number' || typeof counter !== 'number') return false
  if ((user !== null && typeof user !== 'string') || !Array.isArray(list)) return false
  return isExtra(extra)
}

const isExtra = (value: unknown): value is Extra | null => value === null || extraValidator.Check(value)

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
