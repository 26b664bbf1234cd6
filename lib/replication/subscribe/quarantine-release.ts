// Ends the quarantine of the messages of one source: applies them, or discards them.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { Logger } from '../../observe/logger.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import type { Timers } from '../../util/timers.ts'
import { Frame, type StoredPart } from '../wire/frame.ts'
import type { Applier } from './applier.ts'
import { type PartDecoder, SpecialPart } from './part-decoder.ts'
import type { Quarantine, QuarantinedContent, QuarantinedMessage } from './quarantine.ts'

/** Indexes of quarantined transactions, and first indexes of messages: applied now, removed because their origin voided them, and still in quarantine. */
export type ReplayOutcome = { applied: number[]; voided: number[]; kept: number[] }

export type QuarantineReleaseContext = {
  quarantine: Quarantine
  clock: HybridClock
  logger: Logger
  timers: Timers
}

export type QuarantineReleaseOptions = {
  source: RemoteTable
  applier: Applier
  decoder: PartDecoder
  onApplied(transactions: number, sequence: number): void
}

/** ms until messages that the database refused are released again. */
const RETRY_INTERVAL_MS = 60_000

export class QuarantineRelease {
  readonly #context: QuarantineReleaseContext
  readonly #options: QuarantineReleaseOptions
  /** One replay, release or discard at a time. */
  readonly #queue = new SerialQueue()
  #isReleasing = false
  /** ms, by `Timers.elapsed`. */
  #notBefore = 0

  constructor(context: QuarantineReleaseContext, options: QuarantineReleaseOptions) {
    this.#context = context
    this.#options = options
  }

  /**
   * Applies the messages that are valid now: those with these indexes, or all. Tries all of them, then rejects with the first error
   * of the host or the disk.
   */
  replay(indexes?: readonly number[]): Promise<ReplayOutcome> {
    return this.#queue.run(() => this.#replay(this.#select(indexes)))
  }

  /** As `replay`, for the messages for which `isDue` returns true; in order. Logs what it released, and a failure. Never rejects. */
  async releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void> {
    const { source } = this.#options
    const { logger, timers } = this.#context
    const { node: peer, database, table } = source
    if (this.#isReleasing || timers.elapsed() < this.#notBefore) return
    this.#isReleasing = true
    try {
      const { applied, voided } = await this.#queue.run(() => this.#replay(this.#select().filter(isDue)))
      if (applied.length + voided.length > 0)
        logger.info({ peer, database, table, applied: applied.length, voided: voided.length }, 'quarantine released')
    } catch (error) {
      this.#notBefore = timers.elapsed() + RETRY_INTERVAL_MS
      logger.warn({ peer, database, table, reason: reasonOf(error) }, 'quarantine not released, retrying')
    } finally {
      this.#isReleasing = false
    }
  }

  async #replay(messages: readonly QuarantinedMessage[]): Promise<ReplayOutcome> {
    const outcome: ReplayOutcome = { applied: [], voided: [], kept: [] }
    const errors: unknown[] = []
    for (const message of messages) {
      const result = await this.#replayOne(message).catch((error): keyof ReplayOutcome => {
        errors.push(error)
        return 'kept'
      })
      outcome[result].push(message.index)
    }
    if (errors.length > 0) throw errors[0]
    return outcome
  }

  /** `kept` when it is still not valid as a whole. */
  async #replayOne(message: QuarantinedMessage): Promise<keyof ReplayOutcome> {
    const { source, applier, onApplied } = this.#options
    const { quarantine, clock } = this.#context
    const content = await quarantine.content(message)
    const transactions = content && this.#decode(content)
    if (!transactions) return 'kept'
    const isVoided = (transaction: RemoteTransaction) => applier.isVoided(transaction)
    if (!transactions.every((each) => isVoided(each) || clock.accepts(each.timestamp))) return 'kept'
    const applied = await applier.releaseQuarantined(source, message, transactions, message.id !== undefined)
    await quarantine.remove(message)
    if (applied > 0) onApplied(applied, message.sequence)
    return transactions.every(isVoided) ? 'voided' : 'applied'
  }

  /** Undefined when something is still unreadable. */
  #decode(content: QuarantinedContent): RemoteTransaction[] | undefined {
    const transactions: RemoteTransaction[] = []
    for (const part of partsOf(content)) {
      const decoded = part && this.#options.decoder.decode(part)
      if (!decoded || (decoded instanceof SpecialPart && decoded.unsupported !== undefined)) return undefined
      const transaction = decoded instanceof SpecialPart ? decoded.transaction : decoded
      if (!transaction) return undefined
      transactions.push(transaction)
    }
    return transactions
  }

  /** Removes messages without applying them. Resolves with their indexes. */
  discard(indexes?: readonly number[]): Promise<number[]> {
    return this.#queue.run(async () => {
      const { source, applier } = this.#options
      const { quarantine } = this.#context
      const messages = this.#select(indexes)
      for (const message of messages) {
        await applier.releaseQuarantined(source, message)
        await quarantine.remove(message)
      }
      return messages.map(({ index }) => index)
    })
  }

  #select(indexes?: readonly number[]): QuarantinedMessage[] {
    return this.#context.quarantine
      .list(this.#options.source)
      .filter(({ index }) => !indexes || indexes.includes(index))
  }
}

/** The transactions of what is in quarantine; undefined stands for a message that is still unreadable. */
function partsOf(content: QuarantinedContent): (StoredPart | undefined)[] {
  const { format, index, count } = content
  if (format !== 'message') return [{ ...content, format }]
  const frame = Frame.read({ ...content, delivery: 0 })
  if (frame.fault !== undefined) return [undefined]
  const parts = Array.from({ length: frame.count }, (_, offset) => ({ ...frame.part(offset), epoch: content.epoch }))
  // The ones before were applied when the message was still readable.
  const inRange = parts.filter((part) => part.index >= index && part.index < index + count)
  return inRange.length > 0 ? inRange : parts
}
