// The limit: the plain `nats` client on the same servers, with only the necessary work, within the same bounds.

import { createInbox, headers, type Msg, type NatsConnection } from 'nats'
import { leafName, meshUserOf } from '../../lib/mesh/nats/configuration.ts'
import { streamName, subjectOf } from '../../lib/mesh/nats/jetstream.ts'
import { clusterUser, eventually, type TestCluster, type TestNode } from '../support/cluster.ts'
import type { Send } from './flow.ts'
import { nextId } from './transactions.ts'

/** As many as enmesh has in flight: four messages of 256. */
export const WINDOW = 1_024
/** As the module's `maxBatch`, twice, and its readers' bytes in one request. */
const MAX_MESSAGES = 1_000
const PULL_BYTES = 4 * 1024 * 1024
const PULL_EXPIRES = 30_000
/** The beginning of a positive acknowledgement. */
const STORED = '{"stream"'.charCodeAt(2)

const tableOf = (table: string) => ({ database: 'dev', table })

/** A client in the account of a node's streams, and one in that of the mesh. */
export const storeClient = (scene: TestCluster, node: TestNode) => scene.client(node, 'leaf')
export const meshClient = (scene: TestCluster, node: TestNode) => scene.client(node, 'leaf', meshUserOf(clusterUser))

/** A stream as enmesh creates it, for a table with no other writer. Resolves with its last sequence. */
export async function makeStream(client: NatsConnection, node: string, table: string): Promise<number> {
  const manager = await client.jetstreamManager()
  const name = streamName(tableOf(table))
  const subjects = [subjectOf(node, tableOf(table))]
  // enmesh sets its limits on every stream of the leaf: adding the stream again would be refused.
  const known = await manager.streams.info(name).catch(() => undefined)
  const make = () => manager.streams.add({ name, subjects, duplicate_window: 100_000_000 })
  // enmesh may create it at the same time.
  const { state } = known ?? (await make().catch(() => manager.streams.info(name)))
  return state.last_seq
}

export async function emptyStream(client: NatsConnection, table: string): Promise<void> {
  const manager = await client.jetstreamManager()
  await manager.streams.purge(streamName(tableOf(table)))
}

/** Bytes of all messages of a stream, with their headers. */
export async function storedBytes(client: NatsConnection, table: string): Promise<number> {
  const manager = await client.jetstreamManager()
  return (await manager.streams.info(streamName(tableOf(table)))).state.bytes
}

/** The headers of enmesh for a message after another. */
function headersOf(node: string, id: string, before: string, sequence: number) {
  const values = headers()
  values.set('Nats-Msg-Id', id)
  values.set('origin', node)
  values.set('epoch', '0123456789abcdef')
  values.set('Nats-Expected-Last-Sequence', String(sequence))
  if (before !== '') values.set('Nats-Expected-Last-Msg-Id', before)
  return values
}

/** The only writer of a stream. All acknowledgements arrive on one inbox. */
export class RawPublisher {
  readonly #client: NatsConnection
  readonly #node: string
  readonly #subject: string
  readonly #inbox = createInbox()
  #sequence: number
  #before = ''
  #settled = () => {}
  #failed: (error: unknown) => void = () => {}

  private constructor(client: NatsConnection, node: string, table: string, sequence: number) {
    this.#client = client
    this.#node = node
    this.#sequence = sequence
    this.#subject = subjectOf(node, tableOf(table))
    client.subscribe(this.#inbox, { callback: (_, message) => this.#acknowledged(message) })
  }

  static async open(client: NatsConnection, node: string, table: string): Promise<RawPublisher> {
    return new RawPublisher(client, node, table, await makeStream(client, node, table))
  }

  /** The functions of the flow, or of the one message in flight. */
  send(data: Uint8Array, settled: () => void, failed: (error: unknown) => void): void {
    this.#settled = settled
    this.#failed = failed
    const id = nextId()
    const values = headersOf(this.#node, id, this.#before, this.#sequence++)
    this.#before = id
    this.#client.publish(this.#subject, data, { reply: this.#inbox, headers: values })
  }

  #acknowledged(message: Msg): void {
    if (message.data[2] === STORED) this.#settled()
    else this.#failed(new Error(`not stored: ${message.headers?.code ?? message.string()}`))
  }
}

/** Sends the same bytes repeatedly, as the flow requests. */
export const sending =
  (publisher: RawPublisher, data: Uint8Array): Send =>
  (settled, failed) =>
    publisher.send(data, settled, failed)

export type RawReaderOptions = {
  /** Any node's connection to the mesh will do: the stream belongs to `node`. */
  client: NatsConnection
  node: string
  table: string
  take(message: Msg): void
  /** Checked before each request for more; call `refill` when the result may have changed. */
  hasRoom?(): boolean
}

/** A pull consumer without acknowledgements on a remote stream, with the bounds of enmesh's readers. */
export class RawReader {
  readonly #options: RawReaderOptions
  readonly #subscription: { unsubscribe(): void }
  readonly #inbox = createInbox()
  readonly #consumer: string
  #outstanding = 0

  private constructor(options: RawReaderOptions, consumer: string) {
    this.#options = options
    this.#consumer = consumer
    this.#subscription = options.client.subscribe(this.#inbox, { callback: (_, message) => this.#receive(message) })
    this.refill()
  }

  /** Rejects when the owner of the stream creates no consumer. */
  static async open(options: RawReaderOptions, sequence = 1): Promise<RawReader> {
    const request = JSON.stringify({ ...tableOf(options.table), start: { sequence } })
    // A new link may lose requests: repeat them.
    const answer = await eventually(`${options.node} makes a consumer`, () =>
      options.client.request(`enmesh.consumer.${options.node}`, request, { timeout: 1_000 }).catch(() => undefined),
    )
    const { name, reason } = answer.json<{ name?: string; reason?: string }>()
    if (name === undefined) throw new Error(`no consumer was made: ${reason}`)
    return new RawReader(options, name)
  }

  refill(): void {
    const { client, hasRoom } = this.#options
    if (this.#outstanding > MAX_MESSAGES / 2 || hasRoom?.() === false) return
    const batch = MAX_MESSAGES - this.#outstanding
    this.#outstanding += batch
    const body = { batch, expires: PULL_EXPIRES * 1e6, max_bytes: PULL_BYTES }
    client.publish(this.#call('MSG.NEXT'), JSON.stringify(body), { reply: this.#inbox })
  }

  close(): void {
    const { client } = this.#options
    this.#subscription.unsubscribe()
    client.publish(this.#call('DELETE'))
  }

  #call(name: string): string {
    const { node, table } = this.#options
    return `$JS.${leafName(node)}.API.CONSUMER.${name}.${streamName(tableOf(table))}.${this.#consumer}`
  }

  /** Messages have the subject of their stream. A status has the inbox as its subject and ends a request; the rest is requested again. */
  #receive(message: Msg): void {
    const isMessage = message.subject !== this.#inbox
    this.#outstanding -= isMessage ? 1 : Number(message.headers?.get('Nats-Pending-Messages') || 0)
    if (isMessage) this.#options.take(message)
    if (this.#outstanding <= MAX_MESSAGES / 2) this.refill()
  }
}
