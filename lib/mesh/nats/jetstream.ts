// The JetStream API of any node's domain: names, requests, answers. Nothing here keeps state.

import { createHash } from 'node:crypto'
import { MeshError, type RequestOptions, type Source, type StreamState, type TableName } from '../mesh.ts'
import { leafName } from './configuration.ts'
import type { Connection } from './connection.ts'

/** Limits of a table's stream: age in seconds, size in bytes, number of messages; absent means none. */
export type StreamLimits = {
  maxAge?: number | undefined
  maxBytes?: number | undefined
  maxMsgs?: number | undefined
}

const NANOSECONDS = 1e9
/** The least the server takes: order is kept by expected sequences, not by remembering ids. */
const DUPLICATE_WINDOW = 0.1 * NANOSECONDS
/** A consumer whose reader is gone is dropped by its server after this many seconds. */
const INACTIVE_AFTER = 90

const STREAM_NOT_FOUND = 10059
const CONSUMER_NOT_FOUND = 10014
const WRONG_SEQUENCE = 10071
const WRONG_ID = 10070

export const streamName = ({ database, table }: TableName): string =>
  createHash('md5').update(`${database}.${table}`).digest('hex')
export const subjectOf = (node: string, { database, table }: TableName): string =>
  `txn.${database}.${table}.${leafName(node)}`

export type ApiError = { code: number; err_code?: number; description?: string }

export function apiError({ code, err_code, description = `error ${code}` }: ApiError): MeshError {
  if (err_code === STREAM_NOT_FOUND || err_code === CONSUMER_NOT_FOUND) return new MeshError('not_found', description)
  if (err_code === WRONG_SEQUENCE || err_code === WRONG_ID) return new MeshError('wrong_sequence', description)
  return new MeshError('refused', description)
}

type StreamInfo = {
  config: { description?: string } & Record<string, unknown>
  created: string
  state: { messages: number; first_seq: number; last_seq: number }
}

export class JetStream {
  readonly #connection: () => Connection

  constructor(connection: () => Connection) {
    this.#connection = connection
  }

  /** One API call in a node's domain. Rejects as `request`, not_found, or refused with the server's text. */
  async call<T>(node: string, verb: string, body: object | undefined, options: RequestOptions): Promise<T> {
    const subject = `$JS.${leafName(node)}.API.${verb}`
    const answer = await this.#connection().request(subject, body ? JSON.stringify(body) : '', options)
    const result = answer.json<T & { error?: ApiError }>()
    if (result.error) throw apiError(result.error)
    return result
  }

  /** Is JetStream up in this domain? */
  async ping(node: string, options: RequestOptions): Promise<void> {
    await this.call(node, 'INFO', undefined, options)
  }

  async stream(source: Source, options: RequestOptions): Promise<StreamState | undefined> {
    const info = await this.#info(source, options)
    return info && stateOf(info)
  }

  async #info(source: Source, options: RequestOptions): Promise<StreamInfo | undefined> {
    try {
      return await this.call<StreamInfo>(source.node, `STREAM.INFO.${streamName(source)}`, undefined, options)
    } catch (error) {
      if (error instanceof MeshError && error.code === 'not_found') return undefined
      throw error
    }
  }

  /** Created when missing; what was created by a node of another name, or with other limits, is brought into line. */
  async ensureStream(
    source: Source,
    description: string,
    limits: StreamLimits,
    options: RequestOptions,
  ): Promise<StreamState> {
    const name = streamName(source)
    const wanted = {
      name,
      subjects: [subjectOf(source.node, source)],
      retention: 'limits',
      storage: 'file',
      discard: 'old',
      num_replicas: 1,
      max_consumers: -1,
      max_age: (limits.maxAge ?? 0) * NANOSECONDS,
      max_bytes: limits.maxBytes ?? -1,
      max_msgs: limits.maxMsgs ?? -1,
      duplicate_window: DUPLICATE_WINDOW,
    }
    const change = (verb: string, config: object) =>
      this.call<StreamInfo>(source.node, `STREAM.${verb}.${name}`, config, options)
    const info = await this.#info(source, options)
    if (!info) return stateOf(await change('CREATE', { ...wanted, description }))
    const same = ['subjects', 'max_age', 'max_bytes', 'max_msgs'] as const
    if (same.every((key) => String(info.config[key]) === String(wanted[key]))) return stateOf(info)
    return stateOf(await change('UPDATE', { ...info.config, ...wanted }))
  }

  async describeStream(source: Source, description: string, options: RequestOptions): Promise<void> {
    const name = streamName(source)
    const { config } = await this.call<StreamInfo>(source.node, `STREAM.INFO.${name}`, undefined, options)
    await this.call(source.node, `STREAM.UPDATE.${name}`, { ...config, description }, options)
  }

  async purge(source: Source, body: { keep?: number; seq?: number }, options: RequestOptions): Promise<void> {
    await this.call(source.node, `STREAM.PURGE.${streamName(source)}`, body, options)
  }

  /** An ephemeral consumer without acknowledgements: the position is the database's business, not the server's. */
  async createConsumer(
    source: Source,
    start: { opt_start_seq: number } | { opt_start_time: string },
    options: RequestOptions,
  ): Promise<{ name: string; delivered: { stream_seq: number } }> {
    const stream = streamName(source)
    const config = {
      ...start,
      deliver_policy: 'opt_start_seq' in start ? 'by_start_sequence' : 'by_start_time',
      ack_policy: 'none',
      replay_policy: 'instant',
      max_deliver: -1,
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: INACTIVE_AFTER * NANOSECONDS,
    }
    const body = { stream_name: stream, config }
    return this.call(source.node, `CONSUMER.CREATE.${stream}`, body, options)
  }

  async deleteConsumer(source: Source, name: string, options: RequestOptions): Promise<void> {
    await this.call(source.node, `CONSUMER.DELETE.${streamName(source)}.${name}`, undefined, options)
  }
}

const stateOf = ({ config, created, state }: StreamInfo): StreamState => ({
  description: config.description ?? '',
  created,
  firstSequence: state.messages === 0 ? state.last_seq + 1 : state.first_seq,
  lastSequence: state.last_seq,
  messages: state.messages,
})
