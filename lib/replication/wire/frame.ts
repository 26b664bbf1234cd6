// A stream message: a frame, which has one or more transactions of one table in the order of commit, or a single message of HarperDB.

import type { Origin, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { Entry, Message } from '../../mesh/mesh.ts'
import { checkDecodeLimits } from '../../util/decode-limits.ts'
import { decodeBody, encodeBody } from './frame-body.ts'
import type { MessageExtras, TableLookup } from './message-chain.ts'
import { MAX_EPOCH_LENGTH, WireError } from './names.ts'
import { type DecodedPart, decodePart, idOfPart } from './part.ts'
import { decodeSingleMessage, idOfMessage } from './single-message.ts'

/**
 * Version of stream messages, in their header `v`. A node reads this one and the one before.
 *
 * 1: the body is a MessagePack array of byte strings, one for each transaction (see part.ts). The headers are `Nats-Msg-Id`
 *    (`<epoch>:<first>:<count>`), `origin` (the owner of the stream), `epoch`, `first` (running number, in the epoch, of the first
 *    transaction, from 1) and `count`.
 * Without a version: a message of HarperDB, one transaction, whose running number is its sequence.
 */
export const MESSAGE_VERSION = 1
/** A frame with more transactions is unreadable. */
export const MAX_FRAME_TRANSACTIONS = 4_096
/** Bytes of a frame with several transactions: together they then have no more values than one transaction may have. */
export const MAX_FRAME_BYTES = 512 * 1024

/** A later version of enmesh wrote the message. */
export class MessageVersionError extends Error {
  override readonly name = 'MessageVersionError'
}

/** The same id is always the same content. */
export const frameId = (epoch: string, first: number, count: number): string => `${epoch}:${first}:${count}`

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
  readonly #parts: readonly Uint8Array[]
  readonly #format: StoredPart['format']

  private constructor(
    entry: Entry,
    content: {
      first: number | undefined
      count: number
      fault?: string
      parts: readonly Uint8Array[]
      format: StoredPart['format']
    },
  ) {
    const { epoch = '' } = entry.headers
    this.entry = entry
    this.sequence = entry.sequence
    this.epoch = epoch.length <= MAX_EPOCH_LENGTH ? epoch : ''
    this.first = content.first
    this.count = content.count
    this.fault = content.fault
    this.#parts = content.parts
    this.#format = content.format
  }

  /** Throws MessageVersionError. An unreadable message is a frame with a `fault`. */
  static read(entry: Entry): Frame {
    const { v, epoch, first, count } = entry.headers
    if (v === undefined) {
      // A message of another writer: its sequence is its running number.
      return new Frame(entry, { first: entry.sequence, count: 1, parts: [entry.data], format: 'single' })
    }
    if (v !== `${MESSAGE_VERSION}`)
      throw new MessageVersionError(
        `message ${entry.sequence} has version '${v}', this node reads version ${MESSAGE_VERSION}`,
      )
    const unreadable = (fault: string, from?: number, number = 1) =>
      new Frame(entry, { first: from, count: number, fault, parts: [], format: 'part' })
    const firstIndex = toCount(first)
    const expected = toCount(count)
    if (!epoch || epoch.length > MAX_EPOCH_LENGTH || firstIndex === undefined || expected === undefined)
      return unreadable('the headers do not name its epoch and its transactions', firstIndex)
    if (expected > MAX_FRAME_TRANSACTIONS)
      return unreadable(`has ${expected} transactions, more than ${MAX_FRAME_TRANSACTIONS}`, firstIndex)
    if (isMap(entry.data)) {
      if (expected !== 1) return unreadable('is one transaction, and its headers name several', firstIndex, expected)
      return new Frame(entry, { first: firstIndex, count: 1, parts: [entry.data], format: 'single' })
    }
    if (expected > 1 && entry.data.byteLength > MAX_FRAME_BYTES)
      return unreadable(`has ${expected} transactions in more than ${MAX_FRAME_BYTES} bytes`, firstIndex, expected)
    const parts = decodeBody(entry.data, MAX_FRAME_TRANSACTIONS)
    if (typeof parts === 'string') return unreadable(parts, firstIndex, expected)
    if (parts.length !== expected)
      return unreadable(`has ${parts.length} transactions, and its headers name ${expected}`, firstIndex, expected)
    return new Frame(entry, { first: firstIndex, count: expected, parts, format: 'part' })
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
      data: this.#parts[offset]!,
      node: entry.headers.origin ?? '',
      epoch,
      index: this.first! + offset,
      sequence,
      time: entry.time,
      headers: this.#format === 'single' ? entry.headers : noHeaders,
    }
  }

  /** The id of the transaction at this offset; '' when it is unreadable or has none. */
  idAt(offset: number): string {
    return this.#parts[offset] === undefined ? '' : storedId(this.part(offset))
  }
}

/** The id of the transaction; '' when it is unreadable or has none. `transaction`: the decoded part, if it is there. */
export function storedId(stored: StoredPart, transaction?: RemoteTransaction): string {
  if (stored.format === 'single') return idOfMessage(stored)
  if (transaction) return transaction.id
  return checkDecodeLimits(stored.data) === undefined ? idOfPart(stored.data) : ''
}

/** A decoded transaction. `extras`: what a message of HarperDB contains besides. */
export type DecodedMessage = { transaction: RemoteTransaction; extras?: MessageExtras }

/** As `decodeMessage`, for the transaction alone. */
export const decodeStored = (source: RemoteTable, stored: StoredPart): RemoteTransaction =>
  decodeMessage(source, stored).transaction

/**
 * For a transaction that the source committed itself, epoch and index are those of the stream. Its message names the source as the
 * node was called when it was stored. Throws WireError, and MissingTableError for a message that writes a table not in `tables`.
 */
export function decodeMessage(source: RemoteTable, stored: StoredPart, tables?: TableLookup): DecodedMessage {
  const fault = checkDecodeLimits(stored.data)
  if (fault) throw new WireError(fault)
  if (stored.format === 'part') return { transaction: toTransaction(source, stored, decodePart(source, stored.data)) }
  const { extras, ...part } = decodeSingleMessage(source, { ...stored, delivery: 0 }, tables)
  return { transaction: toTransaction(source, stored, part), extras }
}

function toTransaction(source: RemoteTable, stored: StoredPart, part: DecodedPart): RemoteTransaction {
  const { id, timestamp, writes, user, voids, trace } = part
  const { sequence, index } = stored
  const transaction: RemoteTransaction = {
    id,
    timestamp,
    writes,
    origin: originOf(source, stored, part),
    sequence,
    index,
  }
  if (user) transaction.user = user
  // A node voids its own timestamps only.
  if (voids && voids.node === (part.node ?? (stored.node || source.node))) transaction.voids = voids
  if (trace) transaction.trace = trace
  return transaction
}

function originOf(source: RemoteTable, stored: StoredPart, { node, epoch, index, relayedBy }: DecodedPart): Origin {
  const committedBy = node ?? (stored.node || source.node)
  const isOwn = committedBy === source.node || (epoch === undefined && relayedBy.length === 0)
  if (isOwn) return { node: committedBy, relayedBy, epoch: stored.epoch, index: stored.index }
  return epoch !== undefined && index !== undefined
    ? { node: committedBy, relayedBy, epoch, index }
    : { node: committedBy, relayedBy }
}

/** A map, or the definition of a record. */
const isMap = (data: Uint8Array): boolean => {
  const token = data[0] ?? 0
  return (token >= 0x80 && token <= 0x8f) || token === 0xde || token === 0xdf || (token === 0xd4 && data[1] === 0x72)
}

/** A positive integer; undefined for any other text. */
const toCount = (text: string | undefined): number | undefined =>
  text !== undefined && /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : undefined
