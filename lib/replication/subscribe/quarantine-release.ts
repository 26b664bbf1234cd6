// Ends the quarantine of the messages of one source: applies them, or discards them.

import type { RemoteTable } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { Applier } from './applier.ts'
import type { EntryDecoder } from './entry-decoder.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'

/** Sequences of quarantined messages: applied now, and still in quarantine. */
export type ReplayOutcome = { applied: number[]; kept: number[] }

export type QuarantineReleaseOptions = {
  source: RemoteTable
  quarantine: Quarantine
  applier: Applier
  clock: HybridClock
  decoder: EntryDecoder
  onApplied(transactions: number, sequence: number): void
}

export class QuarantineRelease {
  readonly #options: QuarantineReleaseOptions

  constructor(options: QuarantineReleaseOptions) {
    this.#options = options
  }

  /**
   * Applies the messages that are valid now: those with these sequences, or all. Tries all of them, then rejects with the first error
   * of the host or the disk.
   */
  async replay(sequences?: readonly number[]): Promise<ReplayOutcome> {
    const outcome: ReplayOutcome = { applied: [], kept: [] }
    const errors: unknown[] = []
    for (const message of this.#select(sequences)) {
      const isApplied = await this.#replayOne(message).catch((error) => {
        errors.push(error)
        return false
      })
      outcome[isApplied ? 'applied' : 'kept'].push(message.sequence)
    }
    if (errors.length > 0) throw errors[0]
    return outcome
  }

  /** False when the message is still not valid. */
  async #replayOne(message: QuarantinedMessage): Promise<boolean> {
    const { source, applier, quarantine, clock, decoder, onApplied } = this.#options
    const entry = await quarantine.entry(message)
    const transaction = entry && decoder.decode(entry).transaction
    if (!transaction || !clock.accepts(transaction.timestamp)) return false
    const applied = await applier.releaseQuarantined(source, message, transaction, message.id !== undefined)
    await quarantine.remove(message)
    if (applied > 0) onApplied(applied, message.sequence)
    return true
  }

  /** Removes messages without applying them. Resolves with their sequences. */
  async discard(sequences?: readonly number[]): Promise<number[]> {
    const { source, applier, quarantine } = this.#options
    const messages = this.#select(sequences)
    for (const message of messages) {
      await applier.releaseQuarantined(source, message)
      await quarantine.remove(message)
    }
    return messages.map(({ sequence }) => sequence)
  }

  #select(sequences?: readonly number[]): QuarantinedMessage[] {
    const { source, quarantine } = this.#options
    return quarantine.list(source).filter(({ sequence }) => !sequences || sequences.includes(sequence))
  }
}
