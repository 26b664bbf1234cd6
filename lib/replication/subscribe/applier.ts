// Applies the transactions of remote nodes to one local table: one batch at a time, each transaction once, by whatever path it
// arrives. The only owner of the checkpoints of the table's sources.

import { isDeepStrictEqual } from 'node:util'
import type {
  ApplyResult,
  Checkpoint,
  CopyPosition,
  CopyReason,
  RemoteTable,
  RemoteTransaction,
} from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { AppliedRangesBuilder, inRanges, newestAt, rangesOf, withoutRange, withRange } from '../applied-ranges.ts'
import { changeMarker } from '../copy/change-marker.ts'
import { beginCopy, requestedCopy } from '../copy/copy-position.ts'
import { passedRanges, withMissing } from '../missing-ranges.ts'
import type { DatedTransaction } from '../voided-transactions.ts'
import type { ApplierOptions, CopyStep, MoveOptions, Plan, QuarantinedRange } from './applier-options.ts'
import { isCheckpoint, keptFields, type Position, withCopy } from './checkpoint-parts.ts'
import { loadCheckpoint } from './checkpoint-version.ts'
import { Checkpoints } from './checkpoints.ts'
import { commitStep } from './commit-step.ts'
import { Deduplication } from './deduplication.ts'
import { toRelayed } from './relayed-transaction.ts'
import { type Step, type StepKind, UnsettledSteps } from './unsettled-steps.ts'

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node. Together they contain all applied ranges. */
  readonly #checkpoints: Checkpoints
  readonly #unsettled = new UnsettledSteps()
  /** Nodes whose checkpoints went with the dropped table: nothing is applied before they are loaded again. */
  readonly #dropped = new Set<string>()
  /** Nodes whose checkpoints were dropped with the table, until the next ones are stored. */
  readonly #recreated = new Set<string>()
  readonly #queue = new SerialQueue()
  readonly #deduplication: Deduplication

  /** `onCheckpoint`: the checkpoint of the source with this node was read, stored or dropped. */
  constructor(options: ApplierOptions, onCheckpoint?: (node: string) => void) {
    this.#options = options
    this.#checkpoints = new Checkpoints(onCheckpoint)
    this.#deduplication = new Deduplication(options, this.#checkpoints)
  }

  /** Reads the checkpoint of this source from the database. With `isRunning`, its subscriber goes on from the position that it knows. */
  loadCheckpoint(source: RemoteTable, { isRunning = false } = {}): Promise<Checkpoint | undefined> {
    return this.#queue.run(async () => {
      const { host } = this.#options
      // A batch that was in progress may have stored it again after the table was dropped.
      if (this.#dropped.has(source.node)) await host.deleteCheckpoint(source)
      const checkpoint = await loadCheckpoint(host, source)
      this.#dropped.delete(source.node)
      if (checkpoint) this.#checkpoints.set(source.node, checkpoint)
      else this.#checkpoints.delete(source.node)
      this.#settleWith(source, checkpoint)
      if (isRunning) return checkpoint
      for (const step of this.#unsettled.resume(source)) this.#reportRecovered(step)
      return checkpoint
    })
  }

  /** The local table was dropped: forgets the checkpoints of all sources. They are deleted when they are loaded again. */
  onTableDropped(nodes: Iterable<string>): void {
    for (const node of [...nodes, ...this.#checkpoints.keys()]) {
      this.#dropped.add(node)
      this.#recreated.add(node)
      this.dropCheckpoint(node)
    }
  }

  /** The checkpoint is missing because the table was dropped. */
  wasDropped({ node }: RemoteTable): boolean {
    return this.#recreated.has(node)
  }

  /** The checkpoint that was last read or stored. */
  checkpointOf(source: RemoteTable): Checkpoint | undefined {
    return this.#checkpoints.get(source.node)
  }

  /** The checkpoints of the other sources of this table, by node, as last read or stored. */
  checkpointsOfOthers(node: string): [string, Checkpoint][] {
    return [...this.#checkpoints].filter(([other]) => other !== node)
  }

  dropCheckpoint(node: string): void {
    this.#checkpoints.delete(node)
    this.#unsettled.drop(node)
  }

  /**
   * Applies the new ones of `transactions`, which follow each other in the stream of the source up to `position`. Resolves with the number
   * applied. Rejects as the host does, and with reader_lost when the database has another position than the caller knows: then
   * read again from the stored one. After a rejection the caller repeats the call; if the host had committed it, the
   * repetition resolves as the first call would have. So do the other methods.
   */
  apply(source: RemoteTable, transactions: RemoteTransaction[], position: Position): Promise<number> {
    return this.#step(source, 'position', (current) =>
      this.#deduplication.select(source, transactions, position, current),
    )
  }

  /**
   * Moves the checkpoint without reading. `newGaps`: number of new gaps. `lost`: known number of transactions in them. `replayed`: that
   * many transactions before the new position were applied in another epoch. `missing`: the lost ones. `copy`: a copy that begins with this step. `request`: the
   * request that begins with it.
   */
  async move(
    source: RemoteTable,
    position: Position,
    { newGaps = 0, lost = 0, replayed = 0, missing: added = [], copy, request, staleSince, announce }: MoveOptions = {},
  ): Promise<void> {
    await this.#step(source, 'position', (current) => {
      const { count = 0, lost: before = 0 } = current?.gaps ?? {}
      const gaps = { count: count + newGaps, lost: before + lost }
      const unrepairedGaps = (current?.unrepairedGaps ?? 0) + newGaps
      const builder = new AppliedRangesBuilder(current?.applied)
      if (replayed > 0) {
        // The same transactions have the same timestamps.
        const newest = newestAt(current?.applied, source.node, current!.epoch, current!.index!)
        builder.add(source.node, position.epoch, position.index! - replayed + 1, position.index!, newest)
      }
      const applied = builder.result()
      const missing = withMissing(current?.missing, added)
      return {
        transactions: [],
        checkpoint: {
          ...keptFields(current),
          ...position,
          ...(newGaps > 0 && { gaps, unrepairedGaps }),
          ...(missing && { missing }),
          ...(applied && { applied }),
          ...(copy && { copy }),
          ...(announce && { unannounced: true }),
          ...(request !== undefined && { request }),
          ...(staleSince !== undefined && { staleSince }),
        },
      }
    })
  }

  /**
   * Applies copied rows and moves the copy position; the live position stays. Copied rows are not new transactions: they are neither
   * deduplicated nor relayed. Resolves with false, without a change, when `from` is no longer the object that `checkpointOf` has:
   * the copy began again, or the checkpoint was read again. Rejects as the host does; whether it had committed shows the next position.
   */
  async copy(
    source: RemoteTable,
    transactions: RemoteTransaction[],
    { from, to, announce = false, completes = false, ...options }: CopyStep,
  ): Promise<boolean> {
    let isCurrent = false
    await this.#step(source, 'copy', (current) => {
      isCurrent = current !== undefined && current.copy === from
      if (!isCurrent) return undefined
      const { unrepairedGaps, missing, ...checkpoint } = withCopy(current!, to, options.empties)
      const kept = {
        ...(unrepairedGaps !== undefined && !completes && { unrepairedGaps }),
        ...(missing && !completes && { missing }),
        ...(announce && { unannounced: true as const }),
      }
      return { transactions, checkpoint: { ...checkpoint, ...kept }, copy: options }
    })
    return isCurrent
  }

  /** Ends a copy that cannot go on. What the table has lost when it was emptied is missing then, as after a gap without a repair. As `copy`. */
  async dropCopy(source: RemoteTable, from: CopyPosition): Promise<void> {
    await this.#step(source, 'copy', (current) => {
      if (!current || current.copy !== from) return undefined
      const checkpoint = withCopy(current, undefined)
      if (!from.emptied && from.replace !== 'emptied') return { transactions: [], checkpoint, copy: {} }
      const missing = withMissing(current.missing, passedRanges(source.node, current))
      const unrepairedGaps = (current.unrepairedGaps ?? 0) + 1
      return { transactions: [], checkpoint: { ...checkpoint, unrepairedGaps, ...(missing && { missing }) }, copy: {} }
    })
  }

  /** Tells the subscribers of the local table that rows of this source were copied, by a transaction in the local stream. */
  async announceChanges(source: RemoteTable): Promise<void> {
    if (!this.checkpointOf(source)?.unannounced) return
    await this.#step(source, 'copy', (current) => {
      if (!current?.unannounced) return undefined
      const { unannounced: _, ...checkpoint } = current
      return { transactions: [], checkpoint, copy: {}, relayed: [changeMarker(this.#options.node, source)] }
    })
  }

  /** A copy is to begin, also one that is under way. No effect without a checkpoint: the subscription has not begun. */
  async requestCopy(source: RemoteTable, reason: CopyReason, replace = false): Promise<void> {
    await this.#step(source, 'copy', (current) => {
      const copy = reason === 'requested' ? requestedCopy(current?.copy, replace) : beginCopy(current?.copy, reason)
      return current && { transactions: [], checkpoint: withCopy(current, copy, reason === 'table_replaced'), copy: {} }
    })
  }

  /** Everything that the source had at that time is applied. No effect without a checkpoint. */
  async setCaughtUp(source: RemoteTable, caughtUpAt: number): Promise<void> {
    await this.#step(
      source,
      'copy',
      (current) => current && { transactions: [], checkpoint: { ...current, caughtUpAt } },
    )
  }

  /**
   * Moves the checkpoint to `position`, past what is in quarantine now. `transaction` is there if it is one that is readable. Resolves
   * with false when the transaction arrived by another path meanwhile and needs no quarantine. With `isApplied`, the transaction is the
   * part of a message that is applied with this step.
   */
  async quarantine(
    source: RemoteTable,
    position: Position,
    { epoch, index, count }: QuarantinedRange,
    transaction: RemoteTransaction | undefined,
    { isApplied = false } = {},
  ): Promise<boolean> {
    let isQuarantined = true
    await this.#step(source, 'position', (current) => {
      const selected = this.#deduplication.select(source, transaction ? [transaction] : [], position, current)
      const { checkpoint, transactions, relayable, duplicates } = selected
      isQuarantined = !transaction || transactions.length > 0
      if (!isQuarantined) return { transactions: [], checkpoint, duplicates }
      const quarantined = withRange(checkpoint.quarantined, epoch, index, index + count - 1)
      const applied = isApplied ? { transactions, ...(relayable && { relayable }) } : { transactions: [] }
      return { ...applied, checkpoint: { ...checkpoint, quarantined } }
    })
    return isQuarantined
  }

  /**
   * Ends the quarantine of a range: applies its transactions, or nothing when they are discarded. `wasReadable`: they were
   * readable when they were quarantined and count as applied since then; otherwise they may have arrived by another path meanwhile.
   * Resolves with the number applied.
   */
  releaseQuarantined(
    source: RemoteTable,
    { epoch, index, count }: QuarantinedRange,
    transactions: readonly RemoteTransaction[] = [],
    wasReadable = true,
  ): Promise<number> {
    return this.#step(source, 'release', (current) => {
      const { quarantined: before, ...checkpoint } = current ?? {}
      // An earlier call that was rejected has released it.
      if (!isCheckpoint(checkpoint) || !inRanges(rangesOf(before, epoch), index)) return undefined
      const quarantined = withoutRange(before, epoch, index, index + count - 1)
      const isDiscarded = transactions.length === 0
      const last = index + count - 1
      const missing = isDiscarded
        ? withMissing(checkpoint.missing, [{ epoch, from: index, to: last }])
        : checkpoint.missing
      const released = { ...checkpoint, ...(quarantined && { quarantined }), ...(missing && { missing }) }
      const builder = new AppliedRangesBuilder(released.applied)
      const isNew = (transaction: RemoteTransaction) =>
        wasReadable
          ? !this.isVoided(transaction)
          : !this.#deduplication.isKnown(source, builder, undefined, transaction)
      const newTransactions = transactions.filter((transaction) => {
        if (!isNew(transaction)) return false
        const { origin, timestamp } = transaction
        const { node, epoch, index } = origin
        if (epoch !== undefined && index !== undefined) builder.add(node, epoch, index, index, timestamp)
        return true
      })
      if (!isDiscarded && epoch !== '') builder.add(source.node, epoch, index, last)
      const applied = builder.result()
      return { transactions: newTransactions, checkpoint: { ...released, ...(applied && { applied }) } }
    })
  }

  /** True when its origin withdrew the transaction: it must not be applied. */
  isVoided(transaction: DatedTransaction): boolean {
    return this.#deduplication.isVoided(transaction)
  }

  /** True when the transaction was applied already, by whatever path, or is from the local node, or is voided. */
  isApplied(source: RemoteTable, transaction: RemoteTransaction): boolean {
    const current = this.#checkpoints.get(source.node)
    const builder = new AppliedRangesBuilder(current?.applied)
    return this.#deduplication.isKnown(source, builder, current?.replayUntil, transaction)
  }

  #step(source: RemoteTable, kind: StepKind, plan: Plan): Promise<number> {
    return this.#queue.run(async () => {
      if (this.#dropped.has(source.node)) throw new MeshError('reader_lost', 'the table was dropped')
      const repeated = this.#unsettled.isEmpty ? undefined : await this.#collect(source, kind, plan)
      if (repeated) return repeated.transactions.length
      const before = this.#checkpoints.get(source.node)
      const planned = plan(before)
      if (!planned) return 0
      const { transactions, relayable = transactions, duplicates = 0 } = planned
      await this.#options.validate(source, transactions)
      const isRelayed = this.#options.relayEnabled && kind !== 'copy'
      const { relayed = isRelayed ? relayable.flatMap((each) => toRelayed(this.#options.node, source, each)) : [] } =
        planned
      const step = { ...planned, source, kind, before, relayed, duplicates }
      await this.#commit(step)
      return transactions.length
    })
  }

  /** Settles earlier steps. Resolves with the step that this one repeats. */
  async #collect(source: RemoteTable, kind: StepKind, plan: Plan): Promise<Step | undefined> {
    await this.#settle()
    const collected = this.#unsettled.collect(source, kind, ({ before, checkpoint }) =>
      isDeepStrictEqual(plan(before)?.checkpoint, checkpoint),
    )
    if (collected?.isRepeated) return collected.step
    if (collected) this.#reportRecovered(collected.step)
    if (kind === 'position' && this.#unsettled.hasMoved(source))
      throw new MeshError('reader_lost', 'the database has another position than expected')
    return undefined
  }

  async #commit(step: Step): Promise<void> {
    const { host, node } = this.#options
    const { source, checkpoint } = step
    let result: ApplyResult | undefined
    try {
      result = await commitStep(step, host, node)
    } catch (error) {
      if (!this.#dropped.has(source.node)) this.#unsettled.add(step)
      throw error
    }
    if (!this.#dropped.has(source.node)) {
      this.#checkpoints.set(source.node, checkpoint)
      this.#recreated.delete(source.node)
    }
    this.#onCommitted(step, result)
  }

  #onCommitted(
    { source, kind, before, checkpoint, transactions, relayed, duplicates }: Step,
    result: ApplyResult = {},
  ): void {
    const { relay, counters, onApplied, onCommitted } = this.#options
    if (relayed.length > 0) relay(relayed)
    if (transactions.length > 0) counters.batches++
    if (kind !== 'copy') counters.applied += transactions.length
    else counters.copied += Math.max(0, (checkpoint.copy?.rows ?? 0) - (before?.copy?.rows ?? 0))
    counters.duplicates += duplicates
    counters.refusedOld += result.ignoredWrites ?? 0
    if (kind !== 'copy') onApplied?.(source, transactions)
    if (transactions.length > 0) onCommitted?.(source, kind, result)
  }

  /** Of all sources: a transaction that arrives by two paths must be known to be applied by one of them. */
  async #settle(): Promise<void> {
    for (const source of this.#unsettled.sources()) {
      const stored = await loadCheckpoint(this.#options.host, source)
      if (stored) this.#checkpoints.set(source.node, stored)
      else this.#checkpoints.delete(source.node)
      this.#settleWith(source, stored)
    }
  }

  #settleWith(source: RemoteTable, stored: Checkpoint | undefined): void {
    const committed = this.#unsettled.settle(source, stored)
    if (committed) this.#onCommitted(committed)
  }

  #reportRecovered({ source, transactions, checkpoint }: Step): void {
    if (transactions.length > 0) this.#options.onRecovered?.(source, transactions.length, checkpoint.sequence)
  }
}
