// Consumers of streams, made by the node whose streams they are: whoever makes one says what it sends and whereto, so another
// node asks for it. Nodes that do not answer that (HarperDB) are expected to let everybody make them.

import type { Logger } from '../../logger.ts'
import { MeshError, type MeshErrorCode, type RequestOptions, type Source, type TableName } from '../mesh.ts'
import { asMeshError, type Connection, jsonOf } from './connection.ts'
import type { Consumer, ConsumerStart, JetStream } from './jetstream.ts'
import { serve } from './service.ts'

/** Of all our streams together: each takes about 130 KB of our leaf's memory. */
const MOST_CONSUMERS = 20_000
/** ms after which they are counted again, instead of those being added that we made since. */
const COUNT_AGAIN = 1_000
/** Made at once: our leaf makes some 1,500 a second, one after the other. */
const AT_ONCE = 50
/** ms: who asked waits no longer. */
const TIMEOUT = 5_000
const MOST_ASKING = { requests: 10_000, bytes: 16 * 1024 * 1024 }
/** Bytes: names of a database and a table. */
const MOST_BYTES = 64 * 1024

const subjectOf = (node: string) => `enmesh.consumer.${node}`
const text = new TextDecoder('utf-8', { fatal: true })

export type ConsumersOptions = {
  /** Ours. */
  node(): string
  jetStream: JetStream
  /** To other nodes. Throws while it is down. */
  mesh(): Connection
}

type Wanted = TableName & { start: ConsumerStart }
type Answer = Consumer | { error: MeshErrorCode; reason: string }

export class Consumers {
  readonly #options: ConsumersOptions
  #counted: { at: number; consumers: Promise<number> } | undefined
  /** Made since they were counted, or being made. */
  #made = 0
  #making = 0
  readonly #waiting: (() => void)[] = []

  constructor(options: ConsumersOptions) {
    this.#options = options
  }

  /** Makes consumers of our streams for those who ask. */
  serve(logger: Logger): void {
    const { node, mesh } = this.#options
    serve({
      connection: mesh(),
      subject: subjectOf(node()),
      handler: async (data) => JSON.stringify(await this.#answer(data).catch(refusal)),
      most: MOST_ASKING,
      logger,
    })
  }

  /** Rejects as `request`, or not_found. */
  async create(source: Source, start: ConsumerStart, options: RequestOptions): Promise<Consumer> {
    const { node, jetStream, mesh } = this.#options
    if (source.node === node()) return jetStream.createConsumer(source, start, options)
    const wanted: Wanted = { database: source.database, table: source.table, start }
    try {
      const answer = await mesh().request(subjectOf(source.node), JSON.stringify(wanted), options)
      return consumerIn(jsonOf<unknown>(answer))
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'no_responders') throw asMeshError(error)
      return jetStream.createConsumer(source, start, options)
    }
  }

  async #answer(data: Uint8Array): Promise<Consumer> {
    const askedAt = performance.now()
    const wanted = data.byteLength <= MOST_BYTES ? wantedIn(text.decode(data)) : undefined
    if (!wanted) throw new MeshError('refused', 'this is no request for a consumer')
    while (this.#making >= AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#making++
    try {
      // One that nobody waits for any more would stay until its server notices.
      if (performance.now() - askedAt > TIMEOUT) throw new MeshError('timeout', 'too many were asked for at once')
      return await this.#make(wanted)
    } finally {
      this.#making--
      this.#waiting.shift()?.()
    }
  }

  async #make({ database, table, start }: Wanted): Promise<Consumer> {
    const { node, jetStream } = this.#options
    const counted = await this.#count()
    if (counted + this.#made >= MOST_CONSUMERS)
      throw new MeshError('refused', `there are ${counted + this.#made} consumers already`)
    this.#made++
    try {
      return await jetStream.createConsumer({ node: node(), database, table }, start, { timeout: TIMEOUT })
    } catch (error) {
      this.#made--
      throw error
    }
  }

  #count(): Promise<number> {
    const now = performance.now()
    if (this.#counted && now - this.#counted.at < COUNT_AGAIN) return this.#counted.consumers
    const { node, jetStream } = this.#options
    const before = this.#made
    const consumers = jetStream.info(node(), { timeout: TIMEOUT }).then((info) => {
      // What was made before it was asked is among those it counts.
      this.#made = Math.max(0, this.#made - before)
      return info.consumers
    })
    consumers.catch(() => {
      this.#counted = undefined
    })
    this.#counted = { at: now, consumers }
    return consumers
  }
}

const refusal = (error: unknown): Answer => {
  const { code, message } = asMeshError(error)
  return { error: code, reason: message }
}

const REASONS: ReadonlySet<unknown> = new Set<MeshErrorCode>(['not_found', 'timeout', 'disconnected'])

/** What was answered, not believed before it is looked at. */
function consumerIn(answer: unknown): Consumer {
  const { name, before, error, reason } = (answer ?? {}) as Record<string, unknown>
  if (error !== undefined)
    throw new MeshError(REASONS.has(error) ? (error as MeshErrorCode) : 'refused', String(reason).slice(0, 1_000))
  if (typeof name !== 'string' || !/^\w{1,64}$/.test(name) || !Number.isSafeInteger(before))
    throw new MeshError('refused', 'this is no answer to a request for a consumer')
  return { name, before: before as number }
}

const isName = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** What is asked for; undefined when it is no such request. */
function wantedIn(request: string): Wanted | undefined {
  let parsed: Partial<Record<keyof Wanted, unknown>> | null
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
