// How the messages of a local stream are written: as frames, or as single messages, which HarperDB reads.

import type { TableDescription } from '../../host/host.ts'
import { compareTimestamps, issuerOf } from '../../host/hybrid-clock.ts'
import type { Message, TableName } from '../../mesh/mesh.ts'
import { encodeFrame } from '../wire/frame.ts'
import { type DecodedPart, decodePart } from '../wire/part.ts'
import {
  encodeDefinition,
  encodeSingleMessage,
  harperTime,
  type MessagePosition,
} from '../wire/single-message-encoder.ts'
import { PARTS_OF_MS } from '../wire/single-message-format.ts'

/** A message that is no transaction. `stored`: call it when the stream has it. */
export type Definition = { message: Message; stored(): void }

export interface MessageFormat {
  /**
   * Each message has one transaction, and the next one is sent when it is stored. It names no expected message: a HarperDB node that relays the
   * message repeats its headers, and its own stream would refuse it.
   */
  readonly isSingle: boolean
  /** Call it before the first message, and after an interruption. Rejects as the host does. */
  prepare(): Promise<void>
  encode(position: MessagePosition, parts: readonly Uint8Array[]): Message
  /** What has to be stored before this part. */
  definitionFor(position: MessagePosition, part: Uint8Array): Definition | undefined
}

export const frameFormat: MessageFormat = {
  isSingle: false,
  prepare: async () => {},
  encode: encodeFrame,
  definitionFor: () => undefined,
}

export type SingleMessagesOptions = {
  table: TableName
  times: HarperTimes
  /** The tables of the host. */
  describe(): Promise<readonly TableDescription[]>
}

/** Attributes of one table that are defined for HarperDB. */
const MAX_ATTRIBUTES = 10_000

export class SingleMessages implements MessageFormat {
  readonly isSingle = true
  readonly #options: SingleMessagesOptions
  /** Undefined while the table does not exist. */
  #primaryKey: string | undefined
  /** Attributes that HarperDB knows from this process. */
  readonly #defined = new Set<string>()
  #decoded: { data: Uint8Array; part: DecodedPart; time: number } | undefined

  constructor(options: SingleMessagesOptions) {
    this.#options = options
  }

  async prepare(): Promise<void> {
    const { database, table } = this.#options.table
    const described = (await this.#options.describe()).find(
      (each) => each.database === database && each.table === table,
    )
    if (described) this.#primaryKey = described.primaryKey
  }

  encode(position: MessagePosition, [data]: readonly Uint8Array[]): Message {
    const { part, time } = this.#decode(position.node, data!)
    const primaryKey = this.#primaryKeyFor(part)
    const message = encodeSingleMessage(position, this.#options.table, part, { primaryKey, time })
    this.#decoded = undefined
    return message
  }

  /** HarperDB stores attributes that it does not know, and shows them only to those who ask for them by name. */
  definitionFor(position: MessagePosition, data: Uint8Array): Definition | undefined {
    const { part, time } = this.#decode(position.node, data)
    const names = new Set<string>()
    for (const write of part.writes)
      if (write.operation !== 'delete')
        for (const record of write.records)
          for (const name in record) if (name !== this.#primaryKey && !this.#defined.has(name)) names.add(name)
    if (names.size === 0 || this.#defined.size + names.size > MAX_ATTRIBUTES) return undefined
    const message = encodeDefinition(position, this.#options.table, [...names], { timestamp: part.timestamp, time })
    const stored = () => {
      for (const name of names) this.#defined.add(name)
    }
    return { message, stored }
  }

  /** Of a table that was dropped, or created again with another key, the attribute that is probably it: hosts usually have it first. */
  #primaryKeyFor({ writes }: DecodedPart): string {
    const record = writes.flatMap((write) => (write.operation === 'delete' ? [] : write.records))[0]
    const known = this.#primaryKey ?? ''
    if (!record || Object.hasOwn(record, known)) return known
    this.prepare().catch(() => {})
    return Object.keys(record)[0] ?? ''
  }

  /** The part that is sent next is decoded once. */
  #decode(node: string, data: Uint8Array): { part: DecodedPart; time: number } {
    if (this.#decoded?.data === data) return this.#decoded
    const part = decodePart({ node, ...this.#options.table }, node, data)
    this.#decoded = { data, part, time: this.#options.times.of(part.timestamp) }
    return this.#decoded
  }
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
