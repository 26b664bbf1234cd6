// Applies batches. A batch that the database refuses is applied one transaction at a time until the bad one is found, so that the ones
// before it are applied, and the bad one can be quarantined.

import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { Applier } from './applier.ts'
import { ApplyRetry, type ApplyRetryOptions } from './apply-retry.ts'
import type { Position } from './checkpoint-parts.ts'
import type { PendingBatch, ReadMessage } from './pending-batch.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'

export type BatchApplierOptions = ApplyRetryOptions & {
  quarantine: Quarantine
  applier: Applier
  /** The checkpoint moved: transactions were applied, or a message was quarantined. */
  onProgress(applied: number, sequence: number): void
  onQuarantined(sequence: number, reason: string): void
}

export class BatchApplier {
  readonly #options: BatchApplierOptions
  readonly #source: RemoteTable
  readonly #retry: ApplyRetry

  constructor(options: BatchApplierOptions) {
    this.#options = options
    this.#source = options.source
    this.#retry = new ApplyRetry(options)
  }

  /** See ApplyRetry.quarantineRefused. */
  quarantineRefused(): Promise<QuarantinedMessage> {
    return this.#retry.quarantineRefused()
  }

  /** See ApplyRetry.reportSlow. */
  reportSlow(reason: string): boolean {
    return this.#retry.reportSlow(reason)
  }

  /** Resolves when each transaction is applied or quarantined. Rejects as `ApplyRetry.run`. */
  async apply(batch: PendingBatch): Promise<void> {
    const { length } = batch
    let next = 0
    while (next < length - 1) {
      if (await this.#applyRest(batch, next)) return
      let wasRefused = false
      while (next < length && !wasRefused) wasRefused = await this.#applyOne(batch.messageAt(next++))
    }
    if (next < length) await this.#applyOne(batch.messageAt(next))
  }

  /** Moves a message to quarantine. Waits while the quarantine is full: no message is dropped. */
  async quarantine(message: ReadMessage, fault: string): Promise<void> {
    const { entry, transaction } = message
    await this.#retry.run({ sequence: entry.sequence, id: transaction?.id }, async () => {
      // A readable message is quarantined for its timestamp.
      await this.#setAside(message, fault, transaction)
    })
  }

  /** Applies the transactions from this index on. False when they were refused. */
  async #applyRest(batch: PendingBatch, from: number): Promise<boolean> {
    const transactions = from === 0 ? batch.transactions : batch.transactions.slice(from)
    const { sequence } = batch.position
    return (await this.#retry.attempt({ sequence }, () => this.#advance(transactions, batch.position))) === undefined
  }

  /** True when the transaction was refused at least once. */
  #applyOne(message: ReadMessage): Promise<boolean> {
    const { position } = message
    const transaction = message.transaction!
    let mayHaveFile = false
    return this.#retry.run(
      { sequence: position.sequence, id: transaction.id },
      async () => {
        await this.#advance([transaction], position)
        if (mayHaveFile) await this.#removeLeftover()
      },
      (reason) => {
        mayHaveFile = true
        return this.#setAside(message, reason)
      },
    )
  }

  /** The database refused to quarantine the transaction, and applied it later. */
  async #removeLeftover(): Promise<void> {
    const { quarantine, applier } = this.#options
    await quarantine.reconcile(this.#source, applier.checkpointOf(this.#source)?.quarantined)
  }

  async #advance(transactions: RemoteTransaction[], position: Position): Promise<void> {
    const applied = await this.#options.applier.apply(this.#source, transactions, position)
    if (applied > 0) this.#retry.onApplied()
    this.#options.onProgress(applied, position.sequence)
    // A host that never waits would keep the process from reading its connections.
    await new Promise((resolve) => setImmediate(resolve))
  }

  async #setAside(
    { entry, position, transaction }: ReadMessage,
    reason: string,
    early?: RemoteTransaction,
  ): Promise<QuarantinedMessage | undefined> {
    const { quarantine, applier, onProgress, onQuarantined } = this.#options
    const message = await quarantine.put(this.#source, position.epoch, entry, reason, transaction?.id, early)
    const isQuarantined = await applier.quarantine(this.#source, position, transaction)
    if (isQuarantined) onQuarantined(entry.sequence, reason)
    else await quarantine.remove(message)
    onProgress(0, entry.sequence)
    return isQuarantined ? message : undefined
  }
}
