// Consumers are created by the node that owns the stream, at the request of the reading node: the creator of a consumer decides what
// it sends and to which subject. Nodes that do not answer such requests (HarperDB) let readers create consumers themselves.

import type { Logger } from '../../observe/logger.ts'
import { systemTimers } from '../../util/timers.ts'
import { MeshError, type MeshErrorCode, type RemoteTable, type RequestOptions, type TableName } from '../mesh.ts'
import { type Connection, parseJson, toMeshError } from './connection.ts'
import type { Consumer, ConsumerStart, JetStream } from './jetstream.ts'
import { serve } from './request-handler.ts'

/** Of all local streams together: each takes about 130 KB of the leaf's memory. */
const MAX_CONSUMERS = 20_000
/** How long a count of the server is used, plus the consumers created since. */
const COUNT_CACHE_MS = 1_000
/** A leaf creates about 1,500 a second, one after the other. */
const MAX_CONCURRENT_CREATES = 50
/** The reading node does not wait longer. */
const REQUEST_TIMEOUT_MS = 5_000
const PENDING_REQUEST_LIMITS = { requests: 10_000, bytes: 16 * 1024 * 1024 }
/** A request holds the names of a database and a table. */
const MAX_REQUEST_BYTES = 64 * 1024

const subjectOf = (node: string) => `enmesh.consumer.${node}`
const text = new TextDecoder('utf-8', { fatal: true })

export type ConsumersOptions = {
  /** Name of the local node. */
  node(): string
  jetStream: JetStream
  /** Leads to remote nodes. Throws while it is down. */
  mesh(): Connection
}

type ConsumerRequest = TableName & { start: ConsumerStart }
type ConsumerResponse = Consumer | { error: MeshErrorCode; reason: string }

export class Consumers {
  readonly #options: ConsumersOptions
  #lastCount: { at: number; consumers: Promise<number> } | undefined
  /** Created, or being created, since the last count. */
  #createdSinceCount = 0
  #creating = 0
  readonly #waiting: (() => void)[] = []

  constructor(options: ConsumersOptions) {
    this.#options = options
  }

  /** Creates consumers of the local streams at the request of remote nodes. */
  serve(logger: Logger): void {
    const { node, mesh } = this.#options
    serve({
      connection: mesh(),
      subject: subjectOf(node()),
      handler: async (data) => JSON.stringify(await this.#handleRequest(data).catch(errorResponse)),
      limits: PENDING_REQUEST_LIMITS,
      logger,
    })
  }

  /** Rejects as `request`, or not_found. */
  async create(source: RemoteTable, start: ConsumerStart, options: RequestOptions): Promise<Consumer> {
    const { node, jetStream, mesh } = this.#options
    if (source.node === node()) return jetStream.createConsumer(source, start, options)
    const request: ConsumerRequest = { database: source.database, table: source.table, start }
    try {
      const answer = await mesh().request(subjectOf(source.node), JSON.stringify(request), options)
      return parseConsumer(parseJson<unknown>(answer))
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'no_responders') throw toMeshError(error)
      return jetStream.createConsumer(source, start, options)
    }
  }

  async #handleRequest(data: Uint8Array): Promise<Consumer> {
    const receivedAt = systemTimers.elapsed()
    const request = data.byteLength <= MAX_REQUEST_BYTES ? parseConsumerRequest(text.decode(data)) : undefined
    if (!request) throw new MeshError('rejected', 'invalid consumer request')
    while (this.#creating >= MAX_CONCURRENT_CREATES) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#creating++
    try {
      // A consumer without a waiting reader would exist until the server notices.
      if (systemTimers.elapsed() - receivedAt > REQUEST_TIMEOUT_MS)
        throw new MeshError('timeout', 'too many concurrent consumer requests')
      return await this.#createWithinLimit(request)
    } finally {
      this.#creating--
      this.#waiting.shift()?.()
    }
  }

  async #createWithinLimit({ database, table, start }: ConsumerRequest): Promise<Consumer> {
    const { node, jetStream } = this.#options
    const counted = await this.#count()
    if (counted + this.#createdSinceCount >= MAX_CONSUMERS)
      throw new MeshError('rejected', `limit of ${MAX_CONSUMERS} consumers reached`)
    this.#createdSinceCount++
    try {
      return await jetStream.createConsumer({ node: node(), database, table }, start, { timeout: REQUEST_TIMEOUT_MS })
    } catch (error) {
      this.#createdSinceCount--
      throw error
    }
  }

  #count(): Promise<number> {
    const now = systemTimers.elapsed()
    if (this.#lastCount && now - this.#lastCount.at < COUNT_CACHE_MS) return this.#lastCount.consumers
    const { node, jetStream } = this.#options
    const before = this.#createdSinceCount
    const consumers = jetStream.info(node(), { timeout: REQUEST_TIMEOUT_MS }).then((info) => {
      // The count includes consumers created before the request.
      this.#createdSinceCount = Math.max(0, this.#createdSinceCount - before)
      return info.consumers
    })
    consumers.catch(() => {
      this.#lastCount = undefined
    })
    this.#lastCount = { at: now, consumers }
    return consumers
  }
}

const errorResponse = (error: unknown): ConsumerResponse => {
  const { code, message } = toMeshError(error)
  return { error: code, reason: message }
}

const FORWARDED_CODES: ReadonlySet<unknown> = new Set<MeshErrorCode>(['not_found', 'timeout', 'disconnected'])

/** Validates the answer of a remote node. */
function parseConsumer(answer: unknown): Consumer {
  const { name, before, error, reason } = (answer ?? {}) as Record<string, unknown>
  if (error !== undefined)
    throw new MeshError(
      FORWARDED_CODES.has(error) ? (error as MeshErrorCode) : 'rejected',
      String(reason).slice(0, 1_000),
    )
  if (typeof name !== 'string' || !/^\w{1,64}$/.test(name) || !Number.isSafeInteger(before))
    throw new MeshError('rejected', 'invalid answer to a consumer request')
  return { name, before: before as number }
}

const isName = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** Undefined for an invalid request. */
function parseConsumerRequest(request: string): ConsumerRequest | undefined {
  let parsed: Partial<Record<keyof ConsumerRequest, unknown>> | null
  try {
    parsed = JSON.parse(request)
  } catch {
    return undefined
  }
  const { database, table, start } = parsed ?? {}
  if (!isName(database) || !isName(table) || typeof start !== 'object' || start === null) return undefined
  const { sequence, time } = start as { sequence?: unknown; time?: unknown }
  if (Number.isSafeInteger(sequence) && (sequence as number) >= 1)
    return { database, table, start: { sequence: sequence as number } }
  const isTime = typeof time === 'number' && Math.abs(time) <= 8.64e15
  return isTime ? { database, table, start: { time } } : undefined
}
