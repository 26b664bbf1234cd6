// The consumers that HarperDB nodes have from the time when HarperDB ran on this node. They keep their names, because the client that HarperDB
// uses never takes another one: it would request messages of a consumer that is gone. They are adopted: their flow becomes that of the consumers
// that the gate makes.
//
// An acknowledgement for such a name may be for another node, whose stream of this table has the same name. The time of the message that it
// names tells: it is for this node if the message with this number has that time here. The server has no request for the time alone, so whole
// messages are read for that: only of what is in hand, and one at a time.

import { SerialQueue } from '../../util/serial-queue.ts'
import { systemTimers } from '../../util/timers.ts'
import type { RequestOptions, TableName } from '../mesh.ts'
import type { ConsumerInfo, JetStream, StoredMessage } from './jetstream.ts'

const REQUEST: RequestOptions = { timeout: 5_000 }
/**
 * The node never has more than one message of a stream in hand: changes of a row that it applies at once may end in another order. `ack_wait`, in
 * seconds: what was sent to a process that is gone is sent again then, and what takes longer is applied twice, which times make harmless.
 */
export const FLOW = { max_ack_pending: 1, ack_wait: 5 }
/** While its node is only asked to agree. That it differs from `FLOW` is how a review knows the consumer as not adopted, also after a restart. */
const ASKED_FLOW = { ...FLOW, ack_wait: 6 }
/** Acknowledgements that wait for a comparison. One that is dropped is sent again with its message. */
const MAX_WAITING = 1_000
/** ms for which it is known that there is no consumer of a name; and names that are known. */
const ABSENT_KNOWN_MS = 10_000
const MAX_ABSENT = 20_000

/** A table that a node may read. `isAsked`: the node is only asked to agree to that. */
export type AdmittedTable = { table: TableName; isAsked: boolean }
/** `time`: ns since 1970, of the message. */
export type Acknowledgement = { stream: string; name: string; sequence: number; time: string; pass: () => void }

export type FormerConsumersOptions = {
  /** Name of the local node. */
  node: string
  jetStream: Pick<JetStream, 'consumerByName' | 'updateDurable' | 'message'>
  /** The table of this stream, if the node that the name of the consumer tells may read it. */
  admitted(stream: string, name: string): AdmittedTable | undefined
}

export class FormerConsumers {
  readonly #options: FormerConsumersOptions
  /** Acknowledgements by stream and name, while earlier ones of them are compared. */
  readonly #waiting = new Map<string, Acknowledgement[]>()
  #count = 0
  /** By stream and name: when there was no such consumer. */
  readonly #absent = new Map<string, number>()
  readonly #reads = new SerialQueue()

  constructor(options: FormerConsumersOptions) {
    this.#options = options
  }

  /** Passes it on if it is for a consumer of this node. */
  acknowledge(acknowledgement: Acknowledgement): void {
    const { stream, name } = acknowledgement
    const key = `${stream}.${name}`
    if (this.#count >= MAX_WAITING || this.#isAbsent(key) || !this.#options.admitted(stream, name)) return
    this.#count++
    const waiting = this.#waiting.get(key)
    if (waiting) waiting.push(acknowledgement)
    else void this.#compareAll(key, acknowledgement)
  }

  async #compareAll(key: string, first: Acknowledgement): Promise<void> {
    for (let next = [first]; next.length > 0; next = this.#waiting.get(key)!) {
      this.#waiting.set(key, [])
      try {
        await this.#compare(key, first, next)
      } catch {
        // The leaf is down: the messages come again.
      }
      this.#count -= next.length
    }
    this.#waiting.delete(key)
  }

  /** `all` are of one stream and name. */
  async #compare(key: string, { stream, name }: Acknowledgement, all: readonly Acknowledgement[]): Promise<void> {
    const { node, jetStream } = this.#options
    const admitted = this.#options.admitted(stream, name)
    if (!admitted) return
    const former = await adoptFormer(node, jetStream, { stream, name, isAsked: admitted.isAsked })
    if (!former) return this.#setAbsent(key)
    const inHand = new Map<number, Acknowledgement[]>()
    for (const each of all) {
      const { sequence } = each
      if (!(sequence > former.ack_floor.stream_seq && sequence <= former.delivered.stream_seq)) continue
      const same = inHand.get(sequence)
      if (same) same.push(each)
      else inHand.set(sequence, [each])
    }
    for (const [sequence, acknowledgements] of inHand) {
      const read = async () => timeOf(await jetStream.message({ node, ...admitted.table }, sequence, REQUEST))
      const time = await this.#reads.run(read)
      for (const each of acknowledgements) if (each.time === time) each.pass()
    }
  }

  #isAbsent(key: string): boolean {
    const at = this.#absent.get(key)
    return at !== undefined && systemTimers.elapsed() - at <= ABSENT_KNOWN_MS
  }

  #setAbsent(key: string): void {
    this.#absent.delete(key)
    this.#absent.set(key, systemTimers.elapsed())
    if (this.#absent.size > MAX_ABSENT) this.#absent.delete(this.#absent.keys().next().value!)
  }
}

/** ns since 1970; the server writes a time with up to nine digits behind the second. */
function timeOf(message: StoredMessage | undefined): string | undefined {
  if (!message) return undefined
  const [, seconds = '', fraction = ''] = /^([^.Z]+)(?:\.(\d+))?Z$/.exec(message.time) ?? []
  return `${Date.parse(`${seconds}Z`) / 1_000}${fraction.padEnd(9, '0')}`
}

const hasFlow = ({ config }: ConsumerInfo, flow: typeof FLOW): boolean =>
  config.max_ack_pending === flow.max_ack_pending && config.ack_wait === flow.ack_wait * 1e9

/** The consumer was adopted for a node that had agreed. */
export const isAdopted = (consumer: ConsumerInfo): boolean => hasFlow(consumer, FLOW)

/**
 * The consumer of this name, with the flow that it gets here. While its node is only asked it does not count as adopted: nothing may come of that,
 * and the node may be added yet. Undefined if it does not exist.
 */
export async function adoptFormer(
  node: string,
  jetStream: FormerConsumersOptions['jetStream'],
  { stream, name, isAsked }: { stream: string; name: string; isAsked: boolean },
): Promise<ConsumerInfo | undefined> {
  const former = await jetStream.consumerByName(node, stream, name, REQUEST)
  if (former?.config.ack_policy !== 'explicit' || former.config.deliver_subject) return undefined
  const flow = isAsked ? ASKED_FLOW : FLOW
  const isDone = isAdopted(former) || hasFlow(former, flow)
  return isDone ? former : jetStream.updateDurable(node, stream, former, flow, REQUEST)
}
