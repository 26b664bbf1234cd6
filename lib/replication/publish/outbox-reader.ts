// Passes over the outbox: each reads the transactions after the cursor, and waits while too much is in flight.

import { reasonOf } from '../../errors.ts'
import type { Transaction } from '../../host/host.ts'
import type { Outbox } from '../../host/outbox.ts'
import type { Logger } from '../../observe/logger.ts'
import { delay } from '../../util/timers.ts'

export type OutboxReaderOptions = {
  outbox: Outbox
  logger: Logger
  isFull(): boolean
  /** True for a transaction that is in flight or rejected. */
  isKnown(id: string): boolean
  enqueue(transaction: Transaction): void
  /** The pass of this number read the outbox to its end. */
  onPassComplete(pass: number): void
  /** The pass waits for capacity. */
  onFull(): void
}

const RETRY_DELAY_MS = 1_000
/** New transactions after which a pass ends, which bounds `#confirmedInPass`; the next pass starts after them. */
const MAX_PASS_TRANSACTIONS = 10_000

export class OutboxReader {
  readonly #options: OutboxReaderOptions
  /** Ids that the host removed during this pass, which may still show them. */
  readonly #confirmedInPass = new Set<string>()
  /** The last transaction read. */
  #cursor: { id: string; timestamp: string } | undefined
  #passNumber = 0
  /** New transactions of this pass so far. */
  #readInPass = 0
  #wakeRequested = false
  #reading: Promise<void> | undefined
  #completedPass = 0
  #isWaiting = false
  #onCapacity: (() => void) | undefined
  #closed = false

  constructor(options: OutboxReaderOptions) {
    this.#options = options
  }

  /** The number of the current or last pass, from 1. */
  get passNumber(): number {
    return this.#passNumber
  }

  /** The number of the last pass that read the outbox to its end; 0 before that. */
  get completedPass(): number {
    return this.#completedPass
  }

  /** The pass waits until fewer transactions are in flight. */
  get isWaiting(): boolean {
    return this.#isWaiting
  }

  /** The outbox may have new transactions. */
  wake(): void {
    this.#wakeRequested = true
    this.#reading ??= this.#readPasses()
  }

  onConfirmed(id: string): void {
    if (this.#reading) this.#confirmedInPass.add(id)
  }

  /** Fewer transactions are in flight. */
  onCapacity(): void {
    this.#onCapacity?.()
  }

  /** Resolves when the current pass has ended. */
  async close(): Promise<void> {
    this.#closed = true
    this.#onCapacity?.()
    await this.#reading
  }

  async #readPasses(): Promise<void> {
    while (this.#wakeRequested && !this.#closed) {
      // One pass reads everything that is published in the same turn.
      await Promise.resolve()
      await this.#readOutbox()
    }
    this.#reading = undefined
  }

  async #readOutbox(): Promise<void> {
    this.#wakeRequested = false
    const pass = ++this.#passNumber
    this.#readInPass = 0
    try {
      if (!(await this.#readAll(this.#options.outbox.readOutbox(this.#cursor)))) return
    } catch (error) {
      this.#options.logger.error({ reason: reasonOf(error) }, 'cannot read the outbox, retrying')
      this.#wakeRequested = true
      await delay(RETRY_DELAY_MS)
      return
    } finally {
      this.#confirmedInPass.clear()
    }
    this.#completedPass = pass
    this.#options.onPassComplete(pass)
  }

  /** Resolves with false when the pass ends early. */
  async #readAll(found: AsyncIterable<Transaction>): Promise<boolean> {
    for await (const each of found) {
      if (this.#isFull && !this.#isKnown(each)) await this.#waitForCapacity()
      if (!this.#accept(each)) return false
    }
    return true
  }

  get #isFull(): boolean {
    return !this.#closed && this.#options.isFull()
  }

  #isKnown({ id }: Transaction): boolean {
    return this.#options.isKnown(id) || this.#confirmedInPass.has(id)
  }

  async #waitForCapacity(): Promise<void> {
    while (this.#isFull) {
      this.#isWaiting = true
      this.#options.onFull()
      await new Promise<void>((resolve) => {
        this.#onCapacity = resolve
      })
      this.#isWaiting = false
    }
  }

  /** Enqueues a new transaction; false when the pass ends with it. */
  #accept(transaction: Transaction): boolean {
    // A host may ignore the cursor, or start at the beginning once it has removed the transaction at the cursor.
    const isKnown = this.#isKnown(transaction)
    if (this.#closed) return false
    if (!isKnown) this.#options.enqueue(transaction)
    this.#cursor = { id: transaction.id, timestamp: transaction.timestamp }
    // Known transactions do not count: with a host that ignores the cursor, no pass would ever get beyond them.
    if (isKnown || ++this.#readInPass < MAX_PASS_TRANSACTIONS) return true
    this.#wakeRequested = true
    return false
  }
}
