// Applies batches. A batch that the database refuses is applied one transaction at a time until the bad one is found, so that the ones
// before it are applied, and the bad one can be quarantined.

import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import { setImmediate } from '../../util/timers.ts'
import type { Applier } from './applier.ts'
import { ApplyRetry, type ApplyRetryContext, type ApplyRetryOptions } from './apply-retry.ts'
import type { Position } from './checkpoint-parts.ts'
import type { PendingBatch, ReadPart } from './pending-batch.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'

export type BatchApplierContext = ApplyRetryContext & { quarantine: Quarantine }

export type BatchApplierOptions = ApplyRetryOptions & {
  applier: Applier
  /** The checkpoint moved: transactions were applied or quarantined. */
  onProgress(applied: number, sequence: number): void
  onQuarantined(message: QuarantinedMessage): void
}

export class BatchApplier {
  readonly #options: BatchApplierOptions
  readonly #quarantine: Quarantine
  readonly #source: RemoteTable
  readonly #retry: ApplyRetry

  constructor(context: BatchApplierContext, options: BatchApplierOptions) {
    this.#options = options
    this.#quarantine = context.quarantine
    this.#source = options.source
    this.#retry = new ApplyRetry(context, options)
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
    const { length, position } = batch
    if (length === 0) await this.#retry.run({ sequence: position.sequence }, () => this.#advance([], position))
    let next = 0
    while (next < length - 1) {
      if (await this.#applyRest(batch, next)) return
      let wasRefused = false
      while (next < length && !wasRefused) wasRefused = await this.#applyOne(batch.partAt(next++))
    }
    if (next < length) await this.#applyOne(batch.partAt(next))
  }

  /** Moves what was read to quarantine. Waits while the quarantine is full: nothing is dropped. */
  async quarantine(part: ReadPart, fault: string): Promise<void> {
    const { content, transaction } = part
    const { sequence, index } = content
    await this.#retry.run({ sequence, index, id: transaction?.id }, async () => {
      // A readable transaction is quarantined for its timestamp.
      await this.#setAside(part, fault, transaction)
    })
  }

  /** Applies the transaction, and moves its message to quarantine for what it has besides. Waits as `quarantine`. */
  async applyPartly(part: ReadPart, unsupported: string): Promise<void> {
    const { content, transaction } = part
    const { sequence, index } = content
    await this.#retry.run({ sequence, index, id: transaction?.id }, async () => {
      await this.#setAside(part, unsupported, undefined, { isApplied: true })
    })
  }

  /** Applies the transactions from this offset on. False when they were refused. */
  async #applyRest(batch: PendingBatch, from: number): Promise<boolean> {
    const transactions = from === 0 ? batch.transactions : batch.transactions.slice(from)
    const { sequence } = batch.position
    return (await this.#retry.attempt({ sequence }, () => this.#advance(transactions, batch.position))) === undefined
  }

  /** True when the transaction was refused at least once. */
  #applyOne(part: ReadPart): Promise<boolean> {
    const { position, content } = part
    const transaction = part.transaction!
    let mayHaveFile = false
    return this.#retry.run(
      { sequence: content.sequence, index: content.index, id: transaction.id },
      async () => {
        await this.#advance([transaction], position)
        if (mayHaveFile) await this.#removeLeftover()
      },
      (reason) => {
        mayHaveFile = true
        return this.#setAside(part, reason)
      },
    )
  }

  /** The database refused to quarantine the transaction, and applied it later. */
  async #removeLeftover(): Promise<void> {
    const { applier } = this.#options
    await this.#quarantine.reconcile(this.#source, applier.checkpointOf(this.#source)?.quarantined)
  }

  async #advance(transactions: RemoteTransaction[], position: Position): Promise<void> {
    const applied = await this.#options.applier.apply(this.#source, transactions, position)
    if (applied > 0) this.#retry.onApplied()
    this.#options.onProgress(applied, position.sequence)
    // A host that never waits would keep the process from reading its connections.
    await new Promise((resolve) => setImmediate(resolve))
  }

  async #setAside(
    { content, position, transaction }: ReadPart,
    reason: string,
    early?: RemoteTransaction,
    options: { isApplied?: boolean } = {},
  ): Promise<QuarantinedMessage | undefined> {
    const { applier, onProgress, onQuarantined } = this.#options
    const message = await this.#quarantine.put(this.#source, content, reason, transaction?.id, early)
    const isQuarantined = await applier.quarantine(this.#source, position, content, transaction, options)
    if (isQuarantined) onQuarantined(message)
    else await this.#quarantine.remove(message)
    onProgress(isQuarantined && options.isApplied ? 1 : 0, content.sequence)
    return isQuarantined ? message : undefined
  }
}
