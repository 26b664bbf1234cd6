// The transactions that their origin voided after its clock was wrong, as the checkpoint remembers them.

import type { Checkpoint, Origin, RemoteTransaction, Timestamp, VoidedTransactions } from '../host/host.ts'
import { isVoided } from '../host/merge-row.ts'

/** A transaction, or what the quarantine knows of it. */
export type DatedTransaction = { timestamp: Timestamp; origin: Pick<Origin, 'epoch' | 'index'> }

/** Ranges kept for each source; the oldest are dropped. */
const MAX_VOIDED = 32

/**
 * A transaction after the one that voids the range is valid, although its timestamp may lie in the range once that time has come. Epochs
 * are random, so they alone tell the stream: the origin may have been renamed between the two.
 */
export const isVoidedTransaction = (
  voided: readonly VoidedTransactions[],
  { timestamp, origin: { epoch, index } }: DatedTransaction,
): boolean =>
  voided.some(
    (each) =>
      isVoided(each, timestamp) &&
      (epoch === each.epoch
        ? index !== undefined && index < each.first
        : epoch !== undefined && each.olderEpochs.includes(epoch)),
  )

const find = (voided: readonly VoidedTransactions[], { voids, origin }: RemoteTransaction) =>
  voided.find(
    ({ node, from, to, epoch }) =>
      node === voids?.node && from === voids.from && to === voids.to && epoch === origin.epoch,
  )

/** True when this transaction was applied before, and its range is remembered. */
export function isVoidKnown(
  voided: readonly VoidedTransactions[] | undefined,
  transaction: RemoteTransaction,
): boolean {
  const known = transaction.voids && voided && find(voided, transaction)
  return known !== undefined && transaction.origin.index! <= known.last
}

/** With the range that the transaction names, if it names one. */
export function withVoids(
  voided: VoidedTransactions[] | undefined,
  transaction: RemoteTransaction,
  applied: Checkpoint['applied'],
): VoidedTransactions[] | undefined {
  const { voids, origin } = transaction
  if (!voids || origin.epoch === undefined || origin.index === undefined) return voided
  const known = voided && find(voided, transaction)
  if (known) {
    const extended = { ...known, last: Math.max(known.last, origin.index) }
    return voided.map((each) => (each === known ? extended : each))
  }
  const { epoch, index } = origin
  const epochs = applied && Object.hasOwn(applied, origin.node) ? Object.keys(applied[origin.node]!) : []
  const olderEpochs = epochs.filter((each) => each !== epoch)
  return [...(voided ?? []), { ...voids, epoch, first: index, last: index, olderEpochs }].slice(-MAX_VOIDED)
}
