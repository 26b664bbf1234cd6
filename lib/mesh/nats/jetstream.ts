// The JetStream API of any node's domain: names, requests, answers.

import { createHash } from 'node:crypto'
import { KeyedMutex } from '../../util/keyed-mutex.ts'
import {
  MeshError,
  type RemoteTable,
  type RequestOptions,
  type StreamLimits,
  type StreamState,
  type TableName,
} from '../mesh.ts'
import { leafName, MAX_PAYLOAD_BYTES } from './configuration.ts'
import { type Connection, parseJson } from './connection.ts'

const NANOSECONDS_PER_SECOND = 1e9
/** The server's minimum: expected sequences keep the order, deduplication by id is not used. */
const DUPLICATE_WINDOW_NS = 0.1 * NANOSECONDS_PER_SECOND
/** After this time without requests the server deletes a consumer. */
const INACTIVE_AFTER_SECONDS = 90

const STREAM_NOT_FOUND = 10059
const CONSUMER_NOT_FOUND = 10014
const MESSAGE_NOT_FOUND = 10037
const WRONG_SEQUENCE = 10071
const WRONG_ID = 10070
const NOT_FOUND: ReadonlySet<number | undefined> = new Set([STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, MESSAGE_NOT_FOUND])

export const streamName = ({ database, table }: TableName): string =>
  createHash('md5').update(`${database}.${table}`).digest('hex')
export const subjectOf = (node: string, { database, table }: TableName): string =>
  `txn.${database}.${table}.${leafName(node)}`

export type ApiError = { code: number; err_code?: number; description?: string }

export function apiError({ code, err_code, description = `error ${code}` }: ApiError): MeshError {
  if (NOT_FOUND.has(err_code)) return new MeshError('not_found', description)
  if (err_code === WRONG_SEQUENCE || err_code === WRONG_ID) return new MeshError('wrong_sequence', description)
  return new MeshError('rejected', description)
}

type StreamInfo = {
  config: { name: string; description?: string; subjects?: string[] } & Record<string, unknown>
  created: string
  state: { messages: number; first_seq: number; last_seq: number; consumer_count?: number }
}

/** The window is set on existing streams too: HarperDB's have minutes, and the server rejects a maximum age below the window. */
const limitsOf = ({ maxAge = 0, maxBytes = -1, maxMsgs = -1 }: StreamLimits) => ({
  duplicate_window: DUPLICATE_WINDOW_NS,
  max_age: maxAge * NANOSECONDS_PER_SECOND,
  max_bytes: maxBytes,
  max_msgs: maxMsgs,
})

/** As the API answers it: `hdrs` and `data` are base64, `time` is ISO 8601. */
export type StoredMessage = { seq: number; hdrs?: string; data?: string; time: string }

export type ConsumerInfo = {
  name: string
  config: { ack_policy?: string; deliver_subject?: string; max_ack_pending?: number; ack_wait?: number }
  delivered: { stream_seq: number }
  ack_floor: { stream_seq: number }
  num_pending: number
}

/** True when the stream's configuration, as the server reports it, has all desired values. */
const matches = ({ config }: StreamInfo, desired: Record<string, unknown>) =>
  Object.entries(desired).every(([key, value]) => String(config[key]) === String(value))

/** A consumer starts at a sequence, or at the first message at or after a time (ms since 1970). */
export type ConsumerStart = { sequence: number } | { time: number }
/** `before`: the last sequence that the consumer skips. */
export type Consumer = { name: string; before: number }

export class JetStream {
  readonly #connection: (node: string) => Connection
  /** Changes of a local stream's configuration. The server takes whole configurations: two concurrent changes would undo each other. */
  readonly #changes = new KeyedMutex()

  /** `connection` returns the connection that leads to a node's streams. */
  constructor(connection: (node: string) => Connection) {
    this.#connection = connection
  }

  /** One API call in a node's domain. Rejects as `request`, not_found, or rejected with the server's text. */
  async call<T>(
    node: string,
    verb: string,
    body: object | undefined,
    options: RequestOptions,
    maxBytes?: number,
  ): Promise<T> {
    const subject = `$JS.${leafName(node)}.API.${verb}`
    const answer = await this.#connection(node).request(subject, body ? JSON.stringify(body) : '', options)
    const result = parseJson<T & { error?: ApiError }>(answer, maxBytes)
    if (result.error) throw apiError(result.error)
    return result
  }

  /** Answers while JetStream is up in this domain. */
  async info(node: string, options: RequestOptions): Promise<{ streams: number; consumers: number }> {
    return this.call(node, 'INFO', undefined, options)
  }

  async stream(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined> {
    const info = await this.#info(source, options)
    return info && stateOf(info)
  }

  /** The message with this sequence, its bytes in base64; undefined when the server does not have it. */
  async message(source: RemoteTable, seq: number, options: RequestOptions): Promise<StoredMessage | undefined> {
    const verb = `STREAM.MSG.GET.${streamName(source)}`
    try {
      const answer = await this.call<{ message?: StoredMessage }>(
        source.node,
        verb,
        { seq },
        options,
        2 * MAX_PAYLOAD_BYTES,
      )
      return answer.message
    } catch (error) {
      if (error instanceof MeshError && error.code === 'not_found') return undefined
      throw error
    }
  }

  async #info(source: RemoteTable, options: RequestOptions): Promise<StreamInfo | undefined> {
    try {
      return await this.call<StreamInfo>(source.node, `STREAM.INFO.${streamName(source)}`, undefined, options)
    } catch (error) {
      if (error instanceof MeshError && error.code === 'not_found') return undefined
      throw error
    }
  }

  /** Creates the stream when missing; otherwise corrects its subject (the node may have had another name) and its limits. */
  ensureStream(
    source: RemoteTable,
    description: string,
    limits: StreamLimits,
    options: RequestOptions,
  ): Promise<StreamState> {
    const name = streamName(source)
    const kept = { subjects: [subjectOf(source.node, source)], ...limitsOf(limits) }
    return this.#changes.run(name, async () => {
      const info = await this.#info(source, options)
      if (info) return stateOf(await this.#update(source.node, info, kept, options))
      const config = {
        name,
        description,
        ...kept,
        retention: 'limits',
        storage: 'file',
        discard: 'old',
        num_replicas: 1,
        max_consumers: -1,
      }
      return stateOf(await this.call<StreamInfo>(source.node, `STREAM.CREATE.${name}`, config, options))
    })
  }

  async describeStream(source: RemoteTable, description: string, options: RequestOptions): Promise<void> {
    const name = streamName(source)
    await this.#changes.run(name, async () => {
      const info = await this.call<StreamInfo>(source.node, `STREAM.INFO.${name}`, undefined, options)
      await this.#update(source.node, info, { description }, options)
    })
  }

  /** Sets the limits of all table streams of this node. Tries all of them, then rejects with the first failure. */
  async limitStreams(node: string, limits: StreamLimits, options: RequestOptions): Promise<void> {
    const desired = limitsOf(limits)
    const outdated = (await this.#list(node, options)).filter((info) => isOfTable(info) && !matches(info, desired))
    const failures: unknown[] = []
    for (const { config } of outdated) {
      const change = this.#changes.run(config.name, async () => {
        const info = await this.call<StreamInfo>(node, `STREAM.INFO.${config.name}`, undefined, options)
        await this.#update(node, info, desired, options)
      })
      await change.catch((error) => failures.push(error))
    }
    if (failures.length > 0) throw failures[0]
  }

  async #list(node: string, options: RequestOptions): Promise<StreamInfo[]> {
    const all: StreamInfo[] = []
    for (let more = true; more; ) {
      const page = await this.call<{ streams: StreamInfo[] | null; total: number }>(
        node,
        'STREAM.LIST',
        { offset: all.length },
        options,
      )
      all.push(...(page.streams ?? []))
      more = all.length < page.total && (page.streams ?? []).length > 0
    }
    return all
  }

  async #update(node: string, info: StreamInfo, desired: object, options: RequestOptions): Promise<StreamInfo> {
    if (matches(info, { ...desired })) return info
    return this.call<StreamInfo>(node, `STREAM.UPDATE.${info.config.name}`, { ...info.config, ...desired }, options)
  }

  async purge(source: RemoteTable, body: { keep?: number; seq?: number }, options: RequestOptions): Promise<void> {
    await this.call(source.node, `STREAM.PURGE.${streamName(source)}`, body, options)
  }

  /**
   * An ephemeral consumer without acknowledgements: the database keeps the position, not the server. A start beyond the end is moved
   * to the end, as 2.9 does by itself; later servers would wait for that sequence.
   */
  async createConsumer(source: RemoteTable, start: ConsumerStart, options: RequestOptions): Promise<Consumer> {
    const { name, delivered, num_pending } = await this.#createConsumer(source, start, options)
    if (num_pending > 0 || !('sequence' in start)) return { name, before: delivered.stream_seq }
    const info = await this.#info(source, options)
    const end = (info?.state.last_seq ?? 0) + 1
    if (start.sequence <= end) return { name, before: delivered.stream_seq }
    this.deleteConsumer(source, name, options).catch(() => {
      // Its server deletes it after `INACTIVE_AFTER_SECONDS`.
    })
    const moved = await this.#createConsumer(source, { sequence: end }, options)
    return { name: moved.name, before: moved.delivered.stream_seq }
  }

  async #createConsumer(source: RemoteTable, start: ConsumerStart, options: RequestOptions): Promise<ConsumerInfo> {
    const stream = streamName(source)
    const config = {
      ...('sequence' in start
        ? { deliver_policy: 'by_start_sequence', opt_start_seq: start.sequence }
        : { deliver_policy: 'by_start_time', opt_start_time: new Date(start.time).toISOString() }),
      ack_policy: 'none',
      replay_policy: 'instant',
      max_deliver: -1,
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: INACTIVE_AFTER_SECONDS * NANOSECONDS_PER_SECOND,
    }
    return this.call(source.node, `CONSUMER.CREATE.${stream}`, { stream_name: stream, config }, options)
  }

  /** Undefined when the stream has no consumer of this name, or does not exist. */
  consumer(source: RemoteTable, name: string, options: RequestOptions): Promise<ConsumerInfo | undefined> {
    return this.consumerByName(source.node, streamName(source), name, options)
  }

  /** Undefined when there is no such consumer, or no such stream. */
  async consumerByName(
    node: string,
    stream: string,
    name: string,
    options: RequestOptions,
  ): Promise<ConsumerInfo | undefined> {
    try {
      return await this.call<ConsumerInfo>(node, `CONSUMER.INFO.${stream}.${name}`, undefined, options)
    } catch (error) {
      if (error instanceof MeshError && error.code === 'not_found') return undefined
      throw error
    }
  }

  /** A pull consumer that stays, with acknowledgements. `ack_wait`: seconds. A start beyond the end is moved to the end. */
  async createDurable(
    source: RemoteTable,
    { name, sequence, ...more }: { name: string; sequence: number; max_ack_pending: number; ack_wait: number },
    options: RequestOptions,
  ): Promise<ConsumerInfo> {
    const stream = streamName(source)
    const end = ((await this.#info(source, options))?.state.last_seq ?? 0) + 1
    const config = {
      durable_name: name,
      deliver_policy: 'by_start_sequence',
      opt_start_seq: Math.max(1, Math.min(sequence, end)),
      ack_policy: 'explicit',
      replay_policy: 'instant',
      ...more,
      ack_wait: more.ack_wait * NANOSECONDS_PER_SECOND,
    }
    const verb = `CONSUMER.DURABLE.CREATE.${stream}.${name}`
    return this.call(source.node, verb, { stream_name: stream, config }, options)
  }

  /** Changes a consumer that stays. `ack_wait`: seconds. */
  updateDurable(
    node: string,
    stream: string,
    { name, config }: ConsumerInfo,
    change: { max_ack_pending: number; ack_wait: number },
    options: RequestOptions,
  ): Promise<ConsumerInfo> {
    const changed = { ...config, ...change, ack_wait: change.ack_wait * NANOSECONDS_PER_SECOND }
    return this.call(
      node,
      `CONSUMER.DURABLE.CREATE.${stream}.${name}`,
      { stream_name: stream, config: changed },
      options,
    )
  }

  /** Names of the consumers of the streams of a node; streams without one are left out. */
  async consumersByStream(node: string, options: RequestOptions): Promise<{ stream: string; consumers: string[] }[]> {
    const all: { stream: string; consumers: string[] }[] = []
    for (const { config, state } of await this.#list(node, options)) {
      if (!state.consumer_count) continue
      const consumers: string[] = []
      for (let more = true; more; ) {
        const verb = `CONSUMER.NAMES.${config.name}`
        const body = { offset: consumers.length }
        const page = await this.call<{ consumers: string[] | null; total: number }>(node, verb, body, options)
        consumers.push(...(page.consumers ?? []))
        more = consumers.length < page.total && (page.consumers ?? []).length > 0
      }
      all.push({ stream: config.name, consumers })
    }
    return all
  }

  /** Does nothing without such a consumer. */
  async deleteByName(node: string, stream: string, name: string, options: RequestOptions): Promise<void> {
    try {
      await this.call(node, `CONSUMER.DELETE.${stream}.${name}`, undefined, options)
    } catch (error) {
      if (!(error instanceof MeshError && error.code === 'not_found')) throw error
    }
  }

  async deleteConsumer(source: RemoteTable, name: string, options: RequestOptions): Promise<void> {
    await this.call(source.node, `CONSUMER.DELETE.${streamName(source)}.${name}`, undefined, options)
  }
}

const isOfTable = ({ config: { subjects = [] } }: StreamInfo) =>
  subjects.length === 1 && subjects[0]!.startsWith('txn.')

const stateOf = ({ config, created, state }: StreamInfo): StreamState => ({
  description: config.description ?? '',
  created,
  firstSequence: state.messages === 0 ? state.last_seq + 1 : state.first_seq,
  lastSequence: state.last_seq,
  messages: state.messages,
})
