// Lets nodes of HarperDB 4.3 and later read the local streams. They make a durable consumer on the node that they read from, which no remote node
// can do here: the gate stands in both accounts of the leaf, answers their requests in MESH, makes the consumer in HDB as it sees fit,
// and passes their acknowledgements on. Messages go over the import that all nodes use.
//
// The consumer has a name of its own, which HarperDB learns from the answer: acknowledgements then have a subject that no other node's
// consumer has, although the streams of a table have one name on all nodes.
// Consumers from the time when HarperDB ran on this node keep their names: see FormerConsumers.

import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { KeyedMutex } from '../../util/keyed-mutex.ts'
import { RateLimit } from '../../util/rate-limit.ts'
import { systemTimers } from '../../util/timers.ts'
import { MeshError, type ReaderAdmission, type RequestOptions } from '../mesh.ts'
import { leafName } from './configuration.ts'
import type { Connection } from './connection.ts'
import { type AdmittedTable, adoptFormer, FLOW, FormerConsumers, isAdopted } from './former-consumers.ts'
import { type JetStream, streamName } from './jetstream.ts'
import { serve } from './request-handler.ts'

export type HarperGateOptions = {
  /** Name of the local node. */
  node: string
  jetStream: JetStream
  /** Leads to remote nodes. */
  mesh: Connection
  /** Leads to the local streams. */
  store: Connection
  admission: ReaderAdmission
  logger: Logger
}

const REQUEST: RequestOptions = { timeout: 5_000 }
const PENDING_REQUEST_LIMITS = { requests: 1_000, bytes: 4 * 1024 * 1024 }
const MAX_DELETIONS = 1_000
const LOG_LIMIT = { limit: 20, windowMs: 60_000 }
const CREATE = 'io.nats.jetstream.api.v1.consumer_create_response'
const INFO = 'io.nats.jetstream.api.v1.consumer_info_response'
/** Between the name that HarperDB asks for and the name of the local node. */
const MARK = '--of--'
const LEAF = leafName('')
/** Names of consumers have at most 255 bytes. */
const MAX_NAME_BYTES = 255
/** What HarperDB sends, and what clients of its kind may add without an effect. */
const KNOWN_KEYS: ReadonlySet<string> = new Set([
  'ack_policy',
  'ack_wait',
  'deliver_policy',
  'durable_name',
  'max_ack_pending',
  'name',
  'opt_start_time',
  'replay_policy',
])
/** Tokens of an acknowledgement's subject, and where they name the consumer. Later servers name domain and account before the stream. */
const ACK_FORMS: readonly { tokens: (count: number) => boolean; consumer: number }[] = [
  { tokens: (count) => count === 9, consumer: 3 },
  { tokens: (count) => count >= 11, consumer: 5 },
]
const ACK = '+ACK'

/** A request that is not admitted. */
class Refusal extends Error {
  override readonly name = 'Refusal'
}

/** A node's consumer of one stream, as the node calls it (`asked`) and as it is called here. */
type Reader = AdmittedTable & { node: string; stream: string; asked: string; name: string }

export class HarperGate {
  readonly #options: HarperGateOptions
  readonly #work = new KeyedMutex()
  /** By node: its subscriptions, and the tables among them that it may read, by stream. */
  readonly #tables = new Map<string, { subscriptions: readonly object[]; byStream: Map<string, AdmittedTable> }>()
  readonly #lines: RateLimit
  /** Consumers that were made: a node may delete and ask for them without end. */
  readonly #begun: RateLimit
  #deletions = 0
  readonly #former: FormerConsumers

  constructor(options: HarperGateOptions) {
    this.#options = options
    const leftOut = (count: number) =>
      options.logger.warn({ count }, 'more requests of HarperDB refused than are listed')
    this.#lines = new RateLimit({ ...LOG_LIMIT, leftOut })
    const moreBegun = (count: number) => options.logger.info({ count }, 'more readers of HarperDB than are listed')
    this.#begun = new RateLimit({ ...LOG_LIMIT, leftOut: moreBegun })
    const { node, jetStream } = options
    const admitted = (stream: string, name: string) => this.#tablesOf(name.slice(0, -LEAF.length)).get(stream)
    this.#former = new FormerConsumers({ node, jetStream, admitted })
  }

  /** Until the connections are closed. */
  open(): void {
    const { mesh } = this.#options
    const answer = (subject: string, type: string, work: (reader: Reader, body: unknown) => Promise<object>) =>
      this.#serve(subject, type, work)
    answer('$JS.API.CONSUMER.CREATE.*.*', CREATE, (reader, body) => this.#create(reader, body))
    answer('$JS.API.CONSUMER.DURABLE.CREATE.*.*', CREATE, (reader, body) => this.#create(reader, body))
    answer('$JS.API.CONSUMER.INFO.*.*', INFO, (reader) => this.#info(reader))
    // The server answers this one as well.
    mesh.subscribe('$JS.API.CONSUMER.DELETE.*.*', ({ subject }) => this.#delete(subject))
    mesh.subscribe('$JS.ACK.>', ({ subject, data }) => this.#acknowledge(subject, data))
  }

  #serve(subject: string, type: string, work: (reader: Reader, body: unknown) => Promise<object>) {
    const { mesh, logger } = this.#options
    const handle = async (data: Uint8Array, from: string): Promise<object> => {
      const reader = this.#readerOf(from)
      const body: unknown = data.byteLength > 0 ? JSON.parse(Buffer.from(data).toString()) : undefined
      return this.#work.run(reader.name + reader.stream, () => work(reader, body))
    }
    return serve({
      connection: mesh,
      subject,
      logger,
      limits: PENDING_REQUEST_LIMITS,
      handler: async (data, from) => {
        const answer = await handle(data, from).catch((error) => this.#errorAnswer(from, error))
        return JSON.stringify({ ...answer, type })
      },
    })
  }

  #errorAnswer(subject: string, error: unknown): object {
    const reason = reasonOf(error)
    if (error instanceof MeshError && error.code === 'not_found')
      return { error: { code: 404, err_code: 10014, description: 'consumer not found' } }
    if (this.#lines.allows()) this.#options.logger.warn({ subject, reason }, 'a request of HarperDB was refused')
    const isRefusal = error instanceof Refusal || error instanceof SyntaxError
    const [code, err_code] = isRefusal ? [400, 10012] : [503, 10008]
    return { error: { code, err_code, description: reason } }
  }

  /** Throws Refusal when the node does not subscribe to the table. */
  #readerOf(subject: string): Reader {
    const [stream = '', name = ''] = subject.split('.').slice(-2)
    const mark = name.indexOf(LEAF + MARK)
    const asked = mark < 0 ? name : name.slice(0, mark + LEAF.length)
    const node = asked.endsWith(LEAF) ? asked.slice(0, -LEAF.length) : ''
    const admitted = this.#tablesOf(node).get(stream)
    if (!admitted) throw new Refusal(`node '${node}' does not subscribe to a table with the stream '${stream}'`)
    return { node, ...admitted, stream, asked, name: this.#nameOf(asked) }
  }

  #nameOf(asked: string): string {
    const name = `${asked}${MARK}${this.#options.node}`
    if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw new Refusal(`'${name}' is too long for the name of a consumer`)
    return name
  }

  #tablesOf(node: string): ReadonlyMap<string, AdmittedTable> {
    const subscriptions = node === '' ? [] : this.#options.admission.subscriptionsOf(node)
    const known = this.#tables.get(node)
    if (known?.subscriptions === subscriptions) return known.byStream
    const byStream = new Map(
      subscriptions.flatMap(({ database, table, publish, isAsked = false }) =>
        publish ? [[streamName({ database, table }), { table: { database, table }, isAsked }] as const] : [],
      ),
    )
    if (byStream.size > 0) this.#tables.set(node, { subscriptions, byStream })
    else this.#tables.delete(node)
    return byStream
  }

  async #create(reader: Reader, body: unknown): Promise<object> {
    const { stream_name, config } = (body ?? {}) as { stream_name?: unknown; config?: Record<string, unknown> }
    const name = config?.durable_name ?? config?.name
    const isDurable = stream_name === reader.stream && name === reader.asked && config?.ack_policy === 'explicit'
    if (!isDurable || Object.keys(config).some((key) => !KNOWN_KEYS.has(key)))
      throw new Refusal(
        'only durable pull consumers with explicit acknowledgements are made here, as HarperDB asks for them',
      )
    if ((await this.#find(reader)) !== undefined)
      return { error: { code: 400, err_code: 10148, description: 'consumer already exists' } }
    if (config.deliver_policy === undefined || config.deliver_policy === 'all')
      return this.#make(reader, { sequence: 1 })
    const time = config.deliver_policy === 'by_start_time' ? Date.parse(String(config.opt_start_time)) : Number.NaN
    return this.#make(reader, { time: Number.isNaN(time) ? systemTimers.now() : time })
  }

  /** Rejects not_found. */
  async #info(reader: Reader): Promise<object> {
    const found = await this.#find(reader)
    if (!found) throw new MeshError('not_found')
    return found
  }

  /** The node's consumer here, perhaps one that it has from the time when HarperDB ran here. */
  async #find(reader: Reader): Promise<object | undefined> {
    const { node, jetStream } = this.#options
    const own = await jetStream.consumer(this.#source(reader), reader.name, REQUEST)
    return own ?? adoptFormer(node, jetStream, { ...reader, name: reader.asked })
  }

  async #make(reader: Reader, wanted: { time: number } | { sequence: number }): Promise<object> {
    const { admission, jetStream, logger } = this.#options
    const start = await admission.startOf(reader.node, reader.table)
    if (!start) throw new Refusal('the stream has no messages that HarperDB reads')
    // HarperDB asks for the present, also when its consumer was lost: what it has already changes nothing.
    const { since = Number.POSITIVE_INFINITY } = start
    const from = 'time' in wanted ? await this.#sequenceAt(reader, Math.min(wanted.time, since)) : wanted.sequence
    const sequence = Math.max(start.sequence, from)
    const { node: peer, table } = reader
    if (this.#begun.allows()) logger.info({ peer, ...table, sequence }, 'a HarperDB node begins to read')
    const made = await jetStream.createDurable(this.#source(reader), { name: reader.name, sequence, ...FLOW }, REQUEST)
    if (this.#tablesOf(peer).has(reader.stream)) return made
    // The review after the end of the subscription did not see it.
    await jetStream.deleteConsumer(this.#source(reader), reader.name, REQUEST)
    throw new Refusal(`node '${peer}' does not subscribe to the table any more`)
  }

  async #sequenceAt(reader: Reader, time: number): Promise<number> {
    const { jetStream } = this.#options
    const source = this.#source(reader)
    const { name, before } = await jetStream.createConsumer(source, { time }, REQUEST)
    jetStream.deleteConsumer(source, name, REQUEST).catch(() => {})
    return before + 1
  }

  #source({ table }: Reader) {
    return { node: this.#options.node, ...table }
  }

  #delete(subject: string): void {
    const [stream = '', asked = ''] = subject.split('.').slice(-2)
    if (!/^[0-9a-f]{32}$/.test(stream) || !asked.endsWith(LEAF) || this.#deletions >= MAX_DELETIONS) return
    const { node, jetStream } = this.#options
    const name = `${asked}${MARK}${node}`
    this.#deletions++
    const ended = () => {
      this.#deletions--
    }
    this.#work.run(name + stream, () => jetStream.deleteByName(node, stream, name, REQUEST)).then(ended, ended)
  }

  /** Nothing but an acknowledgement passes, and no reply is asked for. */
  #acknowledge(subject: string, data: Uint8Array): void {
    const tokens = subject.split('.')
    const form = ACK_FORMS.find((each) => each.tokens(tokens.length))
    if (!form) return
    if (data.byteLength > 0 && Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString() !== ACK) return
    const [stream, name, , sequence, , time] = tokens.slice(form.consumer - 1) as [string, string, ...string[]]
    const pass = () => this.#options.store.publish(subject, data)
    try {
      if (name.endsWith(`${MARK}${this.#options.node}`)) pass()
      else if (name.endsWith(LEAF))
        this.#former.acknowledge({ stream, name, sequence: Number(sequence), time: `${time}`, pass })
    } catch {
      // The leaf is down: the message comes again.
    }
  }
}

/**
 * Adopts the consumers that HarperDB nodes have from the time when HarperDB ran here, and removes those of nodes that are not admitted; all
 * of them without an admission. A former consumer that was not adopted stays: its node may be added yet. Rejects as `JetStream.call`.
 */
export async function reviewHarperReaders(
  node: string,
  jetStream: JetStream,
  admission: ReaderAdmission | undefined,
  logger: Logger,
): Promise<void> {
  for (const { stream, consumers } of await jetStream.consumersByStream(node, REQUEST))
    for (const name of consumers) {
      const mark = name.indexOf(LEAF + MARK)
      const isFormer = mark < 0 && name.endsWith(LEAF)
      if (mark < 0 && !isFormer) continue
      const peer = isFormer ? name.slice(0, -LEAF.length) : name.slice(0, mark)
      const isOurs = isFormer || name === `${peer}${LEAF}${MARK}${node}`
      const tables = isOurs ? (admission?.subscriptionsOf(peer) ?? []) : []
      const admitted = tables.filter((each) => each.publish && streamName(each) === stream)
      const isAdmitted = admitted.length > 0
      if (isFormer && isAdmitted)
        await adoptFormer(node, jetStream, { stream, name, isAsked: admitted.every(({ isAsked }) => isAsked) })
      if (isAdmitted) continue
      if (isFormer) {
        const former = await jetStream.consumerByName(node, stream, name, REQUEST)
        if (!former || !isAdopted(former)) continue
      }
      await jetStream.deleteByName(node, stream, name, REQUEST)
      logger.info({ peer, stream }, 'a HarperDB node does not read any more')
    }
}
