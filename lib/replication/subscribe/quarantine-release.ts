// Ends the quarantine of the messages of one source: applies them, or discards them.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { Logger } from '../../observe/logger.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from './applier.ts'
import type { EntryDecoder } from './entry-decoder.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'

/** Sequences of quarantined messages: applied now, removed because their origin voided them, and still in quarantine. */
export type ReplayOutcome = { applied: number[]; voided: number[]; kept: number[] }

export type QuarantineReleaseOptions = {
  source: RemoteTable
  quarantine: Quarantine
  applier: Applier
  clock: HybridClock
  decoder: EntryDecoder
  logger: Logger
  timers: Timers
  onApplied(transactions: number, sequence: number): void
}

/** ms until messages that the database refused are released again. */
const RETRY_INTERVAL_MS = 60_000

export class QuarantineRelease {
  readonly #options: QuarantineReleaseOptions
  /** One replay, release or discard at a time. */
  readonly #queue = new SerialQueue()
  #isReleasing = false
  /** ms, by `Timers.elapsed`. */
  #notBefore = 0

  constructor(options: QuarantineReleaseOptions) {
    this.#options = options
  }

  /**
   * Applies the messages that are valid now: those with these sequences, or all. Tries all of them, then rejects with the first error
   * of the host or the disk.
   */
  replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    return this.#queue.run(() => this.#replay(this.#select(sequences)))
  }

  /** As `replay`, for the messages for which `isDue` returns true; in order. Logs what it released, and a failure. Never rejects. */
  async releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void> {
    const { source, logger, timers } = this.#options
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
      outcome[result].push(message.sequence)
    }
    if (errors.length > 0) throw errors[0]
    return outcome
  }

  /** `kept` when the message is still not valid. */
  async #replayOne(message: QuarantinedMessage): Promise<keyof ReplayOutcome> {
    const { source, applier, quarantine, clock, decoder, onApplied } = this.#options
    const entry = await quarantine.entry(message)
    const transaction = entry && decoder.decode(entry).transaction
    const isVoided = transaction !== undefined && applier.isVoided(transaction)
    if (!transaction || !(isVoided || clock.accepts(transaction.timestamp))) return 'kept'
    const applied = await applier.releaseQuarantined(source, message, transaction, message.id !== undefined)
    await quarantine.remove(message)
    if (applied > 0) onApplied(applied, message.sequence)
    return isVoided ? 'voided' : 'applied'
  }

  /** Removes messages without applying them. Resolves with their sequences. */
  discard(sequences?: readonly number[]): Promise<number[]> {
    return this.#queue.run(async () => {
      const { source, applier, quarantine } = this.#options
      const messages = this.#select(sequences)
      for (const message of messages) {
        await applier.releaseQuarantined(source, message)
        await quarantine.remove(message)
      }
      return messages.map(({ sequence }) => sequence)
    })
  }

  #select(sequences?: readonly number[]): QuarantinedMessage[] {
    const { source, quarantine } = this.#options
    return quarantine.list(source).filter(({ sequence }) => !sequences || sequences.includes(sequence))
  }
}
