// Which transactions of a source are new: each is applied once, by whatever path it arrives.

import type { Checkpoint, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import { AppliedRangesBuilder, wasApplied } from '../applied-ranges.ts'
import { isChangeMarker } from '../copy/change-marker.ts'
import { afterRestamp } from '../copy/copy-position.ts'
import { withoutMissing } from '../missing-ranges.ts'
import { type DatedTransaction, isVoidedTransaction, isVoidKnown, withVoids } from '../voided-transactions.ts'
import type { ApplierOptions } from './applier-options.ts'
import { keptFields, type Position, withCopy } from './checkpoint-parts.ts'

export type DeduplicationOptions = Pick<ApplierOptions, 'node' | 'onSourceChanged'>
/** `relayable`: those of the transactions that were not applied before, if a replay applies others too: the local streams have them already. */
export type Selection = {
  transactions: RemoteTransaction[]
  relayable?: RemoteTransaction[]
  checkpoint: Checkpoint
  duplicates: number
}

export class Deduplication {
  readonly #options: DeduplicationOptions
  readonly #checkpoints: ReadonlyMap<string, Checkpoint>

  /** `checkpoints`: those of all sources of the table, by node. Together they contain all applied ranges. */
  constructor(options: DeduplicationOptions, checkpoints: ReadonlyMap<string, Checkpoint>) {
    this.#options = options
    this.#checkpoints = checkpoints
  }

  /**
   * The new ones of `transactions`, which follow each other in the stream of the source, and the checkpoint at `position` with all of
   * them in its applied ranges.
   */
  select(
    source: RemoteTable,
    transactions: RemoteTransaction[],
    position: Position,
    current: Checkpoint | undefined,
  ): Selection {
    const builder = new AppliedRangesBuilder(current?.applied)
    let voided = current?.voided
    const newTransactions: RemoteTransaction[] = []
    let relayable: RemoteTransaction[] | undefined
    let markers = 0
    let hasSourceChanged = false
    for (const transaction of transactions) {
      const isNew = !this.isKnown(source, builder, position.replayUntil, transaction)
      const isInReplay = transaction.sequence <= (position.replayUntil ?? 0)
      const isReplayed = isNew && isInReplay && this.isKnown(source, builder, 0, transaction)
      const { origin, timestamp, voids } = transaction
      const { node, epoch, index } = origin
      if (voids) builder.void(node, voids, timestamp)
      // One that was voided says nothing about what its origin has lost.
      const newest = !isNew && this.isVoided(transaction) ? undefined : timestamp
      if (epoch !== undefined && index !== undefined) builder.add(node, epoch, index, index, newest)
      const isMarker = isChangeMarker(transaction)
      if (isMarker) markers++
      if (isMarker && isNew) hasSourceChanged = true
      if (isMarker || !isNew) continue
      const selected = isVoidKnown(voided, transaction) ? withoutVoids(transaction) : transaction
      if (isReplayed) relayable ??= [...newTransactions]
      else relayable?.push(selected)
      newTransactions.push(selected)
      voided = withVoids(voided, transaction, current?.applied)
    }
    // The stream of the source is one range, whatever the origins of its transactions are.
    const [first, last] = [transactions[0], transactions.at(-1)]
    let missing = current?.missing
    if (position.epoch !== '' && first && last) {
      const range = { epoch: position.epoch, from: first.index, to: last.index }
      builder.add(source.node, range.epoch, range.from, range.to)
      missing = missing && withoutMissing(missing, range)
    }
    const applied = builder.result()
    let copy = current?.copy
    if (copy && transactions.some(({ voids }) => voids)) copy = afterRestamp(copy)
    if (hasSourceChanged && this.#options.onSourceChanged) copy = this.#options.onSourceChanged(source, copy)
    const { missing: _, ...kept } = keptFields(current)
    const changed = { ...(applied && { applied }), ...(missing && { missing }), ...(voided && { voided }) }
    const moved = { ...kept, ...position, ...changed }
    return {
      transactions: newTransactions,
      ...(relayable && { relayable }),
      checkpoint: withCopy(moved, copy),
      duplicates: transactions.length - newTransactions.length - markers,
    }
  }

  /** Voided, from the local node, or applied from this source, or from another source of the table. */
  isKnown(
    source: RemoteTable,
    builder: AppliedRangesBuilder,
    replayUntil = 0,
    transaction: RemoteTransaction,
  ): boolean {
    const { origin, timestamp, sequence: at } = transaction
    const { node, epoch, index, relayedBy } = origin
    if (node === this.#options.node || relayedBy.includes(this.#options.node)) return true
    if (this.isVoided(transaction)) return true
    if (epoch === undefined || index === undefined || at <= replayUntil) return false
    // Of its own stream, the source can only have lost what has numbers behind a replay: whatever its clock said, this is another transaction.
    const isBehindReplay = replayUntil > 0 && node === source.node
    if (!isBehindReplay && builder.has(node, epoch, index, timestamp)) return true
    for (const [other, { applied }] of this.#checkpoints)
      if (other !== source.node && wasApplied(applied, node, epoch, index, timestamp)) return true
    return false
  }

  /** True when its origin withdrew the transaction: it must not be applied. */
  isVoided(transaction: DatedTransaction): boolean {
    for (const { voided } of this.#checkpoints.values())
      if (voided && isVoidedTransaction(voided, transaction)) return true
    return false
  }
}

/** For a transaction that is read again: by now its origin may have issued valid timestamps in the range. */
const withoutVoids = ({ voids: _, ...transaction }: RemoteTransaction): RemoteTransaction => transaction
