// How the messages of a local stream are written: as frames, or as single messages, which HarperDB reads.

import type { PrimaryKey, TableDescription } from '../../host/host.ts'
import { compareTimestamps, issuerOf } from '../../host/hybrid-clock.ts'
import type { Message, TableName } from '../../mesh/mesh.ts'
import { checkDecodeLimits } from '../../util/decode-limits.ts'
import { encodeFrame } from '../wire/frame.ts'
import { netWrites, type RowWrite } from '../wire/net-writes.ts'
import { type DecodedPart, decodePart } from '../wire/part.ts'
import {
  chainLength,
  divideRows,
  encodeDefinition,
  encodeRows,
  encodeSingleMessage,
  encodeWhole,
  harperTime,
  MAX_CHAIN,
  type MessagePosition,
} from '../wire/single-message-encoder.ts'
import { PARTS_OF_MS } from '../wire/single-message-format.ts'

/** A message for HarperDB alone, which is no transaction of a database. `stored`: call it when the stream has it. */
export type MessageAhead = { message: Message; stored(): void }

export interface MessageFormat {
  /**
   * Each message has one transaction, and the next one is sent when it is stored. It names no expected message: a HarperDB node that relays the
   * message repeats its headers, and its own stream would refuse it.
   */
  readonly isSingle: boolean
  /** Call it before the first message, and after an interruption. Rejects as the host does. */
  prepare(): Promise<void>
  encode(position: MessagePosition, parts: readonly Uint8Array[]): Message
  /** What has to be stored next, before this part. After `prepare` in the same epoch: what was not stored. */
  aheadOf(position: MessagePosition, part: Uint8Array): MessageAhead | undefined
}

export const frameFormat: MessageFormat = {
  isSingle: false,
  prepare: async () => {},
  encode: encodeFrame,
  aheadOf: () => undefined,
}

export type SingleMessagesOptions = {
  table: TableName
  times: HarperTimes
  /** Bytes that a message may have, without its headers. */
  maxBytes: number
  /** The tables of the host. */
  describe(): Promise<readonly TableDescription[]>
  /** HarperDB does not get this row of a transaction: no message can hold it. Called once for each row. */
  withheld(row: { id: string; key: PrimaryKey; reason: string }): void
}

/** Bytes of a part whose single message can be neither too large nor have too many values. */
const SMALL_PART_BYTES = 64 * 1024
/** Bytes of the rows in one message when a transaction is divided, and of the names in one definition. So few bytes have not too many values. */
const DIVIDED_BYTES = 128 * 1024

type Decoded = {
  data: Uint8Array
  part: DecodedPart
  time: number
  /** Lists of attributes that are still to be defined; undefined before they were looked for. */
  names?: string[][]
  /** If no single message can hold the transaction. */
  divided?: { lists: RowWrite[][]; progress: Progress }
}

/**
 * Of a divided transaction. It outlasts interruptions: a transaction whose last message is refused again and again would fill the stream with
 * the others. `sent`: how many of its lists are stored in this epoch, or withheld; `reported`: up to where withheld ones were reported.
 */
type Progress = Pick<DecodedPart, 'id' | 'timestamp'> & {
  epoch: string
  primaryKey: string
  sent: number
  reported: number
}

/** Attributes of one table that are defined for HarperDB. */
const MAX_ATTRIBUTES = 10_000
/** Of an attribute that is defined for HarperDB. */
const MAX_NAME_LENGTH = 1_024

export class SingleMessages implements MessageFormat {
  readonly isSingle = true
  readonly #options: SingleMessagesOptions
  /** Undefined while the table does not exist. */
  #primaryKey: string | undefined
  /** Attributes that HarperDB knows from this process. */
  readonly #defined = new Set<string>()
  #decoded: Decoded | undefined
  /** Of the last divided transaction. */
  #progress: Progress | undefined

  constructor(options: SingleMessagesOptions) {
    this.#options = options
  }

  async prepare(): Promise<void> {
    this.#decoded = undefined
    await this.#describe()
  }

  async #describe(): Promise<void> {
    const { database, table } = this.#options.table
    const described = (await this.#options.describe()).find(
      (each) => each.database === database && each.table === table,
    )
    if (described) this.#primaryKey = described.primaryKey
  }

  encode(position: MessagePosition, [data]: readonly Uint8Array[]): Message {
    const decoded = this.#decode(position.node, data!)
    const { part, time, divided } = decoded
    const message = divided
      ? encodeWhole(position, this.#options.table, part, { data: data!, time })
      : this.#encodeSingle(position, decoded)
    this.#decoded = undefined
    return message
  }

  aheadOf(position: MessagePosition, data: Uint8Array): MessageAhead | undefined {
    const decoded = this.#decode(position.node, data)
    decoded.names ??= this.#undefinedNames(decoded.part)
    return this.#nextDefinition(position, decoded, decoded.names) ?? this.#nextRows(position, decoded)
  }

  /**
   * Attributes of a transaction that HarperDB does not know, as lists for one definition each. HarperDB stores others all the same, and shows
   * them only to those who ask for them by name: so too many, and too long names, are left out.
   */
  #undefinedNames({ writes }: DecodedPart): string[][] {
    const names = new Set<string>()
    const maxNames = MAX_ATTRIBUTES - this.#defined.size
    if (maxNames <= 0) return []
    for (const write of writes)
      if (write.operation !== 'delete')
        for (const record of write.records) {
          for (const name in record) if (this.#isUndefined(name)) names.add(name)
          if (names.size > maxNames) return []
        }
    return names.size === 0 ? [] : divideNames(names)
  }

  #isUndefined(name: string): boolean {
    return name !== this.#primaryKey && !this.#defined.has(name) && name.length <= MAX_NAME_LENGTH
  }

  #nextDefinition(position: MessagePosition, { part, time }: Decoded, lists: string[][]): MessageAhead | undefined {
    const names = lists[0]
    if (!names) return undefined
    const message = encodeDefinition(position, this.#options.table, names, { timestamp: part.timestamp, time })
    const stored = () => {
      for (const name of names) this.#defined.add(name)
      lists.shift()
    }
    return { message, stored }
  }

  /** The next rows of a transaction that no single message can hold. */
  #nextRows(position: MessagePosition, decoded: Decoded): MessageAhead | undefined {
    const { table, withheld } = this.#options
    const { part, time } = decoded
    if (!decoded.divided && !this.#fitsIntoOne(position, decoded)) decoded.divided = this.#divide(position, part)
    if (!decoded.divided) return undefined
    const { lists, progress } = decoded.divided
    for (; progress.sent < lists.length; progress.sent++) {
      const rows = lists[progress.sent]!
      const message = encodeRows(position, table, part, { rows, time })
      const reason = this.#faultOf(message)
      if (reason === undefined) return { message, stored: () => void progress.sent++ }
      if (progress.sent < progress.reported) continue
      progress.reported = progress.sent + 1
      withheld({ id: part.id, key: rows[0]!.key, reason })
    }
    return undefined
  }

  #divide({ epoch }: MessagePosition, part: DecodedPart): NonNullable<Decoded['divided']> {
    const { id, timestamp } = part
    const primaryKey = this.#primaryKeyFor(part)
    const last = this.#progress
    const isKnown = last?.id === id && last.timestamp === timestamp && last.primaryKey === primaryKey
    const { sent, reported } = isKnown ? last : { sent: 0, reported: 0 }
    const progress = { id, timestamp, epoch, primaryKey, sent: last?.epoch === epoch ? sent : 0, reported }
    this.#progress = progress
    return { lists: divideRows(netWrites(part.writes, primaryKey), DIVIDED_BYTES), progress }
  }

  #fitsIntoOne(position: MessagePosition, decoded: Decoded): boolean {
    if (chainLength(decoded.part.writes) > MAX_CHAIN) return false
    return decoded.data.byteLength <= SMALL_PART_BYTES || !this.#faultOf(this.#encodeSingle(position, decoded))
  }

  #encodeSingle(position: MessagePosition, { part, time }: Decoded): Message {
    return encodeSingleMessage(position, this.#options.table, part, { primaryKey: this.#primaryKeyFor(part), time })
  }

  /** Why a message cannot be sent. */
  #faultOf({ data }: Message): string | undefined {
    const { maxBytes } = this.#options
    return data.byteLength > maxBytes ? `has more than ${maxBytes} bytes` : checkDecodeLimits(data)
  }

  /** Of a table that was dropped, or created again with another key, the attribute that is probably it: hosts usually have it first. */
  #primaryKeyFor({ writes }: DecodedPart): string {
    const record = writes.flatMap((write) => (write.operation === 'delete' ? [] : write.records))[0]
    const known = this.#primaryKey ?? ''
    if (!record || Object.hasOwn(record, known)) return known
    this.#describe().catch(() => {})
    return Object.keys(record)[0] ?? ''
  }

  /** The part that is sent next is decoded once. */
  #decode(node: string, data: Uint8Array): Decoded {
    if (this.#decoded?.data === data) return this.#decoded
    const part = decodePart({ node, ...this.#options.table }, node, data)
    this.#decoded = { data, part, time: this.#options.times.of(part.timestamp) }
    return this.#decoded
  }
}

/** A definition has each name twice. */
function divideNames(names: ReadonlySet<string>): string[][] {
  const lists: string[][] = []
  let bytes = 0
  for (const name of names) {
    const size = Buffer.byteLength(name)
    if (lists.length === 0 || bytes + size > DIVIDED_BYTES) {
      lists.push([])
      bytes = 0
    }
    lists.at(-1)!.push(name)
    bytes += size
  }
  return lists
}

/** Nodes whose last time is known. */
const MAX_ISSUERS = 1_000

/**
 * Times for HarperDB, in the order of the timestamps of each node. Beyond 4,095 timestamps in a millisecond, which occur while the clock of
 * the node waits for that of another one, a time is as little higher than the one before as HarperDB can tell.
 */
export class HarperTimes {
  readonly #last = new Map<string, { timestamp: string; time: number }>()

  of(timestamp: string): number {
    const issuer = issuerOf(timestamp)
    const last = this.#last.get(issuer)
    const exact = harperTime(timestamp)
    if (last && compareTimestamps(timestamp, last.timestamp) <= 0)
      return timestamp === last.timestamp ? last.time : exact
    const time = last && exact <= last.time ? last.time + 1 / PARTS_OF_MS : exact
    this.#last.delete(issuer)
    this.#last.set(issuer, { timestamp, time })
    if (this.#last.size > MAX_ISSUERS) this.#last.delete(this.#last.keys().next().value!)
    return time
  }
}
