// A stream message: a frame, which has one or more transactions of one table in the order of commit, or a single message of HarperDB.

import type { Origin, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { Entry, Message } from '../../mesh/mesh.ts'
import { decodeBody, encodeBody } from './frame-body.ts'
import type { MessageExtras, TableLookup } from './message-chain.ts'
import { frameId, MESSAGE_VERSION } from './message-ids.ts'
import { MAX_EPOCH_LENGTH } from './names.ts'
import { type DecodedPart, decodePart, idOfPart } from './part.ts'
import { decodeSingleMessage, idOfMessage } from './single-message.ts'
import { isForwarded } from './single-message-format.ts'

/** A frame with more transactions is unreadable. */
export const MAX_FRAME_TRANSACTIONS = 4_096
/** Bytes of a frame with several transactions: together they then have no more values than one transaction may have. */
export const MAX_FRAME_BYTES = 512 * 1024

/** A later version of enmesh wrote the message. */
export class MessageVersionError extends Error {
  override readonly name = 'MessageVersionError'
}

/** `node`: the local node. `first`: running number of the first part in this epoch. */
export function encodeFrame(
  { node, epoch, first }: { node: string; epoch: string; first: number },
  parts: readonly Uint8Array[],
): Message {
  return {
    data: encodeBody(parts),
    headers: {
      'Nats-Msg-Id': frameId(epoch, first, parts.length),
      origin: node,
      epoch,
      v: `${MESSAGE_VERSION}`,
      first: `${first}`,
      count: `${parts.length}`,
    },
  }
}

/**
 * One undecoded transaction of a stream message. `node`: the owner of the stream when it was stored. `format`: how `data` is encoded.
 * `headers`: those of a single message.
 */
export type StoredPart = {
  format: 'part' | 'single'
  data: Uint8Array
  node: string
  epoch: string
  index: number
  sequence: number
  /** ms since 1970 when the source stored it. */
  time: number
  headers: Entry['headers']
}

const noHeaders: Entry['headers'] = Object.freeze({})

/** A stream message whose transactions are not decoded yet. */
export class Frame {
  readonly sequence: number
  /** '' when the writer has no epochs. */
  readonly epoch: string
  /** Running number of the first transaction; undefined when the message is unreadable and does not say it. */
  readonly first: number | undefined
  /** Number of transactions, at least 1. */
  readonly count: number
  /** Why the message as a whole is unreadable. */
  readonly fault: string | undefined
  readonly entry: Entry
  readonly #data: Buffer
  /** Where each part begins and ends in the data, in turn. */
  readonly #bounds: readonly number[]
  readonly #format: StoredPart['format']

  private constructor(
    entry: Entry,
    content: {
      epoch?: string | undefined
      first: number | undefined
      count: number
      fault?: string
      bounds: readonly number[]
      format: StoredPart['format']
    },
  ) {
    const { epoch = '' } = content
    const { buffer, byteOffset, byteLength } = entry.data
    this.entry = entry
    this.#data = Buffer.from(buffer, byteOffset, byteLength)
    this.sequence = entry.sequence
    this.epoch = epoch.length <= MAX_EPOCH_LENGTH ? epoch : ''
    this.first = content.first
    this.count = content.count
    this.fault = content.fault
    this.#bounds = content.bounds
    this.#format = content.format
  }

  /** Throws MessageVersionError. An unreadable message is a frame with a `fault`. */
  static read(entry: Entry): Frame {
    const { v, epoch, first, count } = entry.headers
    if (v === undefined || isForwarded(entry.headers)) {
      // A message that HarperDB has stored: its sequence is its running number.
      return new Frame(entry, { first: entry.sequence, count: 1, bounds: [0, entry.data.byteLength], format: 'single' })
    }
    if (v !== `${MESSAGE_VERSION}`)
      throw new MessageVersionError(
        `message ${entry.sequence} has version '${v}', this node reads version ${MESSAGE_VERSION}`,
      )
    const unreadable = (fault: string, from?: number, number = 1) =>
      new Frame(entry, { epoch, first: from, count: number, fault, bounds: [], format: 'part' })
    const firstIndex = toCount(first)
    const expected = toCount(count)
    if (!epoch || epoch.length > MAX_EPOCH_LENGTH || firstIndex === undefined || expected === undefined)
      return unreadable('the headers do not name its epoch and its transactions', firstIndex)
    if (expected > MAX_FRAME_TRANSACTIONS)
      return unreadable(`has ${expected} transactions, more than ${MAX_FRAME_TRANSACTIONS}`, firstIndex)
    if (isMap(entry.data)) {
      if (expected !== 1) return unreadable('is one transaction, and its headers name several', firstIndex, expected)
      const bounds = [0, entry.data.byteLength]
      return new Frame(entry, { epoch, first: firstIndex, count: 1, bounds, format: 'single' })
    }
    if (expected > 1 && entry.data.byteLength > MAX_FRAME_BYTES)
      return unreadable(`has ${expected} transactions in more than ${MAX_FRAME_BYTES} bytes`, firstIndex, expected)
    const bounds = decodeBody(entry.data, MAX_FRAME_TRANSACTIONS)
    if (typeof bounds === 'string') return unreadable(bounds, firstIndex, expected)
    const stored = bounds.length / 2
    if (stored !== expected)
      return unreadable(`has ${stored} transactions, and its headers name ${expected}`, firstIndex, expected)
    return new Frame(entry, { epoch, first: firstIndex, count: expected, bounds, format: 'part' })
  }

  /** Running number of the last transaction; undefined with `first`. */
  get last(): number | undefined {
    return this.first === undefined ? undefined : this.first + this.count - 1
  }

  /** The transaction at this offset, from 0. Only without a fault. */
  part(offset: number): StoredPart {
    const { entry, epoch, sequence } = this
    return {
      format: this.#format,
      data: this.#data.subarray(this.#bounds[2 * offset], this.#bounds[2 * offset + 1]),
      node: entry.headers.origin ?? '',
      epoch,
      index: this.first! + offset,
      sequence,
      time: entry.time,
      headers: this.#format === 'single' ? entry.headers : noHeaders,
    }
  }

  /** The only transaction is encoded as HarperDB does. */
  get isSingle(): boolean {
    return this.#format === 'single'
  }

  /** The message has attributes or rows for HarperDB alone: it has a running number, and is no transaction of a database. */
  get isForHarperOnly(): boolean {
    return this.isSingle && this.idAt(0) === frameId(this.epoch, this.first!, 1)
  }

  /** As `decodeStored` of this part. Throws WireError. */
  decode(source: RemoteTable, offset: number): RemoteTransaction {
    if (this.#format === 'single') return decodeStored(source, this.part(offset))
    const owner = this.entry.headers.origin || source.node
    const part = decodePart(source, owner, this.#data, this.#bounds[2 * offset], this.#bounds[2 * offset + 1])
    return transactionOf(source, part, owner, this.epoch, this.sequence, this.first! + offset)
  }

  /** Bytes of the transaction at this offset. */
  bytesAt(offset: number): number {
    return this.#bounds[2 * offset + 1]! - this.#bounds[2 * offset]!
  }

  /** The id of the transaction at this offset; '' when it is unreadable or has none. `transaction`: the decoded part, if it is there. */
  idAt(offset: number, transaction?: RemoteTransaction): string {
    if (this.#bounds[2 * offset] === undefined) return ''
    if (transaction && this.#format === 'part') return transaction.id
    return storedId(this.part(offset))
  }
}

/** The id of the transaction; '' when it is unreadable or has none. */
export function storedId(stored: StoredPart): string {
  return stored.format === 'single' ? idOfMessage(stored) : idOfPart(stored.data)
}

/** A decoded transaction. `extras`: what a message of HarperDB contains besides. */
export type DecodedMessage = { transaction: RemoteTransaction; extras?: MessageExtras }

/** As `decodeMessage`, for the transaction alone. */
export const decodeStored = (source: RemoteTable, stored: StoredPart): RemoteTransaction =>
  decodeMessage(source, stored).transaction

/** Throws WireError, and MissingTableError for a message that writes a table not in `tables`. */
export function decodeMessage(source: RemoteTable, stored: StoredPart, tables?: TableLookup): DecodedMessage {
  const { format, data, node, epoch, sequence, index } = stored
  const owner = node || source.node
  if (format === 'part')
    return { transaction: transactionOf(source, decodePart(source, owner, data), owner, epoch, sequence, index) }
  const { extras, ...part } = decodeSingleMessage(source, { ...stored, delivery: 0 }, tables)
  return { transaction: transactionOf(source, part, owner, epoch, sequence, index), extras }
}

/**
 * For a transaction that the source committed itself, epoch and index are those of the stream. `owner`: the source as it was called
 * when the message was stored.
 */
function transactionOf(
  source: RemoteTable,
  part: DecodedPart,
  owner: string,
  epoch: string,
  sequence: number,
  index: number,
): RemoteTransaction {
  const { id, timestamp, writes, user, relayedBy, voids, trace } = part
  const node = part.node ?? owner
  const isOwn = node === source.node || (part.epoch === undefined && relayedBy.length === 0)
  const origin: Origin = isOwn ? { node, relayedBy, epoch, index } : relayedOrigin(node, part)
  const transaction: RemoteTransaction = { id, timestamp, writes, origin, sequence, index }
  if (user) transaction.user = user
  // A node voids its own timestamps only.
  if (voids && voids.node === node) transaction.voids = voids
  if (trace) transaction.trace = trace
  return transaction
}

const relayedOrigin = (node: string, { epoch, index, relayedBy }: DecodedPart): Origin =>
  epoch !== undefined && index !== undefined ? { node, relayedBy, epoch, index } : { node, relayedBy }

/** A map, or the definition of a record. */
const isMap = (data: Uint8Array): boolean => {
  const token = data[0] ?? 0
  return (token >= 0x80 && token <= 0x8f) || token === 0xde || token === 0xdf || (token === 0xd4 && data[1] === 0x72)
}

/** A positive integer; undefined for any other text. */
const toCount = (text: string | undefined): number | undefined =>
  text !== undefined && /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : undefined
