// Applies the transactions of remote nodes to one local table: one batch at a time, each transaction once, by whatever path it
// arrives. The only owner of the checkpoints of the table's sources.

import { isDeepStrictEqual } from 'node:util'
import type { ApplyResult, Checkpoint, CopyReason, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import {
  AppliedRangesBuilder,
  inRanges,
  rangesOf,
  wasApplied,
  withoutSequence,
  withSequence,
} from '../applied-ranges.ts'
import { changeMarker, isChangeMarker } from '../copy/change-marker.ts'
import { afterRestamp, beginCopy, requestedCopy } from '../copy/copy-position.ts'
import { type DatedTransaction, isVoidedTransaction, isVoidKnown, withVoids } from '../voided-transactions.ts'
import type { ApplierOptions, ApplyStep, CopyStep, MoveOptions, Plan } from './applier-options.ts'
import { isCheckpoint, keptFields, type Position, withCopy } from './checkpoint-parts.ts'
import { commitStep } from './commit-step.ts'
import { toRelayed } from './relayed-transaction.ts'
import { type Step, type StepKind, UnsettledSteps } from './unsettled-steps.ts'

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node. Together they contain all applied ranges. */
  readonly #checkpoints = new Map<string, Checkpoint>()
  readonly #unsettled = new UnsettledSteps()
  /** Nodes whose checkpoints went with the dropped table: nothing is applied before they are loaded again. */
  readonly #dropped = new Set<string>()
  /** Nodes whose checkpoints were dropped with the table, until the next ones are stored. */
  readonly #recreated = new Set<string>()
  readonly #queue = new SerialQueue()

  constructor(options: ApplierOptions) {
    this.#options = options
  }

  /** Reads the checkpoint of this source from the database. With `isRunning`, its subscriber goes on from the position that it knows. */
  loadCheckpoint(source: RemoteTable, { isRunning = false } = {}): Promise<Checkpoint | undefined> {
    return this.#queue.run(async () => {
      const { host } = this.#options
      // A batch that was in progress may have stored it again after the table was dropped.
      if (this.#dropped.has(source.node)) await host.deleteCheckpoint(source)
      const checkpoint = await host.loadCheckpoint(source)
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
   * Applies the new ones of `transactions`, which are all transactions of the source up to `position`. Resolves with the number
   * applied. Rejects as the host does, and with reader_lost when the database has another position than the caller knows: then
   * read again from the stored one. After a rejection the caller repeats the call; if the host had committed it, the
   * repetition resolves as the first call would have. So do the other methods.
   */
  apply(source: RemoteTable, transactions: RemoteTransaction[], position: Position): Promise<number> {
    return this.#step(source, 'position', (current) => this.#deduplicate(source, transactions, position, current))
  }

  /**
   * Moves the checkpoint without reading. `lost`: number of transactions in new gaps. `newGaps`: their number, by default 1 if
   * transactions are lost. `replayed`: number of transactions before the new position that were applied in another epoch.
   * `copy`: a copy that begins with this step. `request`: the request that begins with it.
   */
  async move(
    source: RemoteTable,
    position: Position,
    { lost = 0, newGaps = Math.min(lost, 1), replayed = 0, copy, request, staleSince }: MoveOptions = {},
  ): Promise<void> {
    await this.#step(source, 'position', (current) => {
      const { count = 0, lost: before = 0 } = current?.gaps ?? {}
      const gaps = newGaps > 0 ? { gaps: { count: count + newGaps, lost: before + lost } } : {}
      const builder = new AppliedRangesBuilder(current?.applied)
      if (replayed > 0) builder.add(source.node, position.epoch, position.sequence - replayed + 1, position.sequence)
      const applied = builder.result()
      return {
        transactions: [],
        checkpoint: {
          ...keptFields(current),
          ...position,
          ...gaps,
          ...(applied && { applied }),
          ...(copy && { copy }),
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
    { from, to, changes = false, ...options }: CopyStep,
  ): Promise<boolean> {
    const isUnannounced = changes && this.#options.relayEnabled
    let isCurrent = false
    await this.#step(source, 'copy', (current) => {
      isCurrent = current !== undefined && current.copy === from
      if (!isCurrent) return undefined
      const checkpoint = withCopy(current!, to, options.empties)
      return { transactions, checkpoint: { ...checkpoint, ...(isUnannounced && { unannounced: true }) }, copy: options }
    })
    return isCurrent
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
   * Moves the checkpoint past the message at `position`, which is in quarantine now. `transaction` is there if the message is
   * readable. Resolves with false when the transaction arrived by another path meanwhile and needs no quarantine.
   */
  async quarantine(
    source: RemoteTable,
    position: Position,
    transaction: RemoteTransaction | undefined,
  ): Promise<boolean> {
    let isQuarantined = true
    await this.#step(source, 'position', (current) => {
      const {
        checkpoint,
        transactions,
        duplicates = 0,
      } = this.#deduplicate(source, transaction ? [transaction] : [], position, current)
      isQuarantined = !transaction || transactions.length > 0
      if (!isQuarantined) return { transactions: [], checkpoint, duplicates }
      const quarantined = withSequence(checkpoint.quarantined, position.epoch, position.sequence)
      return { transactions: [], checkpoint: { ...checkpoint, quarantined } }
    })
    return isQuarantined
  }

  /**
   * Ends the quarantine of a message: applies `transaction`, or nothing when the message is discarded. `wasReadable`: the message
   * was readable when it was quarantined and counts as applied since then; otherwise it may have arrived by another path meanwhile.
   */
  releaseQuarantined(
    source: RemoteTable,
    at: { epoch: string; sequence: number },
    transaction?: RemoteTransaction,
    wasReadable = true,
  ) {
    return this.#step(source, 'release', (current) => {
      const { quarantined: before, ...checkpoint } = current ?? {}
      // An earlier call that was rejected has released it.
      if (!isCheckpoint(checkpoint) || !inRanges(rangesOf(before, at.epoch), at.sequence)) return undefined
      const quarantined = withoutSequence(before, at.epoch, at.sequence)
      const released = { ...checkpoint, ...(quarantined && { quarantined }) }
      if (!transaction || this.isVoided(transaction)) return { transactions: [], checkpoint: released }
      const { node, epoch, index } = transaction.origin
      const builder = new AppliedRangesBuilder(released.applied)
      if (!wasReadable && node !== source.node && this.#isKnown(source, builder, undefined, transaction))
        return { transactions: [], checkpoint: released }
      if (epoch !== undefined && index !== undefined) builder.add(node, epoch, index)
      const applied = builder.result()
      return { transactions: [transaction], checkpoint: { ...released, ...(applied && { applied }) } }
    })
  }

  /** True when its origin withdrew the transaction: it must not be applied. */
  isVoided(transaction: DatedTransaction): boolean {
    for (const { voided } of this.#checkpoints.values())
      if (voided && isVoidedTransaction(voided, transaction)) return true
    return false
  }

  /** True when the transaction was applied already, by whatever path, or is from the local node, or is voided. */
  isApplied(source: RemoteTable, transaction: RemoteTransaction): boolean {
    const current = this.#checkpoints.get(source.node)
    return this.#isKnown(source, new AppliedRangesBuilder(current?.applied), current?.replayUntil, transaction)
  }

  #step(source: RemoteTable, kind: StepKind, plan: Plan): Promise<number> {
    return this.#queue.run(async () => {
      if (this.#dropped.has(source.node)) throw new MeshError('reader_lost', 'the table was dropped')
      await this.#settle()
      const collected = this.#unsettled.collect(source, kind, ({ before, checkpoint }) =>
        isDeepStrictEqual(plan(before)?.checkpoint, checkpoint),
      )
      if (collected?.isRepeated) return collected.step.transactions.length
      if (collected) this.#reportRecovered(collected.step)
      if (kind === 'position' && this.#unsettled.hasMoved(source))
        throw new MeshError('reader_lost', 'the database has another position than expected')
      const before = this.#checkpoints.get(source.node)
      const planned = plan(before)
      if (!planned) return 0
      const { transactions, duplicates = 0 } = planned
      await this.#options.validate(source, transactions)
      const isRelayed = this.#options.relayEnabled && kind !== 'copy'
      const { relayed = isRelayed ? transactions.map((each) => toRelayed(this.#options.node, source, each)) : [] } =
        planned
      const step = { ...planned, source, kind, before, relayed, duplicates }
      await this.#commit(step)
      return transactions.length
    })
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
    const { relay, counters, onCommitted } = this.#options
    if (relayed.length > 0) relay(relayed)
    if (transactions.length > 0) counters.batches++
    if (kind !== 'copy') counters.applied += transactions.length
    else counters.copied += Math.max(0, (checkpoint.copy?.rows ?? 0) - (before?.copy?.rows ?? 0))
    counters.duplicates += duplicates
    counters.refusedOld += result.ignoredWrites ?? 0
    if (transactions.length > 0) onCommitted?.(source, kind, result)
  }

  /** Of all sources: a transaction that arrives by two paths must be known to be applied by one of them. */
  async #settle(): Promise<void> {
    for (const source of this.#unsettled.sources()) {
      const stored = await this.#options.host.loadCheckpoint(source)
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

  /** Selects the new transactions, and adds everything up to `position` to the applied ranges. */
  #deduplicate(
    source: RemoteTable,
    transactions: RemoteTransaction[],
    position: Position,
    current: Checkpoint | undefined,
  ): ApplyStep {
    const builder = new AppliedRangesBuilder(current?.applied)
    let voided = current?.voided
    const newTransactions: RemoteTransaction[] = []
    let markers = 0
    let hasSourceChanged = false
    for (const transaction of transactions) {
      const isNew = !this.#isKnown(source, builder, position.replayUntil, transaction)
      const { node, epoch, index } = transaction.origin
      if (epoch !== undefined && index !== undefined) builder.add(node, epoch, index)
      const isMarker = isChangeMarker(transaction)
      if (isMarker) markers++
      if (isMarker && isNew) hasSourceChanged = true
      if (isMarker || !isNew) continue
      newTransactions.push(isVoidKnown(voided, transaction) ? withoutVoids(transaction) : transaction)
      voided = withVoids(voided, transaction, current?.applied)
    }
    // The stream of the source is one range, whatever the origins of its transactions are.
    const from = (current?.sequence ?? position.sequence) + 1
    if (position.epoch !== '' && from <= position.sequence)
      builder.add(source.node, position.epoch, from, position.sequence)
    const applied = builder.result()
    let copy = current?.copy
    if (copy && transactions.some(({ voids }) => voids)) copy = afterRestamp(copy)
    if (hasSourceChanged && this.#options.onSourceChanged) copy = this.#options.onSourceChanged(source, copy)
    const moved = { ...keptFields(current), ...position, ...(applied && { applied }), ...(voided && { voided }) }
    return {
      transactions: newTransactions,
      checkpoint: withCopy(moved, copy),
      duplicates: transactions.length - newTransactions.length - markers,
    }
  }

  /** Voided, from the local node, or applied from this source, or from another source of the table. */
  #isKnown(
    source: RemoteTable,
    builder: AppliedRangesBuilder,
    replayUntil = 0,
    transaction: RemoteTransaction,
  ): boolean {
    const { origin, sequence: at } = transaction
    const { node, epoch, index, relayedBy } = origin
    if (node === this.#options.node || relayedBy.includes(this.#options.node)) return true
    if (this.isVoided(transaction)) return true
    if (epoch === undefined || index === undefined || at <= replayUntil) return false
    if (builder.has(node, epoch, index)) return true
    for (const [other, { applied }] of this.#checkpoints)
      if (other !== source.node && wasApplied(applied, node, epoch, index)) return true
    return false
  }
}

/** For a transaction that is read again: by now its origin may have issued valid timestamps in the range. */
const withoutVoids = ({ voids: _, ...transaction }: RemoteTransaction): RemoteTransaction => transaction
