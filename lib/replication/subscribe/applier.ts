// Applies the transactions of remote nodes to one local table: one batch at a time, each transaction once, by whatever path it
// arrives. The only owner of the checkpoints of the table's sources.

import type { Checkpoint, Host, RemoteTable, RemoteTransaction, Transaction } from '../../host/host.ts'
import { traced } from '../../observe/diagnostics.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { AppliedRangesBuilder, wasApplied, withoutSequence, withSequence } from '../applied-ranges.ts'
import { type DatedTransaction, isVoidedTransaction, isVoidKnown, withVoids } from '../voided-transactions.ts'
import { partId } from '../wire.ts'

/** The part of a checkpoint that a subscriber moves. */
export type Position = Omit<Checkpoint, 'applied' | 'quarantined' | 'gaps' | 'voided'>

export type ApplierOptions = {
  host: Host
  node: string
  relayEnabled: boolean
  counters: ReplicationCounters
  relay(transactions: Transaction[]): void
}

/** The transactions to apply, and the checkpoint to store with them. */
type ApplyStep = { checkpoint: Checkpoint; transactions: RemoteTransaction[] }

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node. Together they contain all applied ranges. */
  readonly #checkpoints = new Map<string, Checkpoint>()
  readonly #queue = new SerialQueue()

  constructor(options: ApplierOptions) {
    this.#options = options
  }

  /** Reads the checkpoint of this source from the database. */
  loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    return this.#queue.run(async () => {
      const checkpoint = await this.#options.host.loadCheckpoint(source)
      if (checkpoint) this.#checkpoints.set(source.node, checkpoint)
      return checkpoint
    })
  }

  /** The checkpoint that was last read or stored. */
  checkpointOf(source: RemoteTable): Checkpoint | undefined {
    return this.#checkpoints.get(source.node)
  }

  dropCheckpoint(node: string): void {
    this.#checkpoints.delete(node)
  }

  /**
   * Applies the new ones of `transactions`, which are all transactions of the source up to `position`. Resolves with the number
   * applied. Rejects as the host does, without any change; so do the other methods.
   */
  apply(source: RemoteTable, transactions: RemoteTransaction[], position: Position): Promise<number> {
    return this.#step(source, (current) => this.#deduplicate(source, transactions, position, current))
  }

  /**
   * Moves the checkpoint without reading. `lost`: number of transactions in the gap. `replayed`: number of transactions before the
   * new position that were applied in another epoch.
   */
  async move(source: RemoteTable, position: Position, { lost = 0, replayed = 0 } = {}): Promise<void> {
    await this.#step(source, (current) => {
      const { count = 0, lost: before = 0 } = current?.gaps ?? {}
      const gaps = lost > 0 ? { gaps: { count: count + 1, lost: before + lost } } : {}
      const builder = new AppliedRangesBuilder(current?.applied)
      if (replayed > 0) builder.add(source.node, position.epoch, position.sequence - replayed + 1, position.sequence)
      const applied = builder.result()
      return {
        transactions: [],
        checkpoint: { ...keptFields(current), ...position, ...gaps, ...(applied && { applied }) },
      }
    })
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
    await this.#step(source, (current) => {
      const { checkpoint, transactions } = this.#deduplicate(
        source,
        transaction ? [transaction] : [],
        position,
        current,
      )
      isQuarantined = !transaction || transactions.length > 0
      if (!isQuarantined) return { transactions: [], checkpoint }
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
    return this.#step(source, (current) => {
      const { quarantined: before, ...checkpoint } = current!
      const quarantined = withoutSequence(before, at.epoch, at.sequence)
      const released = { ...checkpoint, ...(quarantined && { quarantined }) }
      if (!transaction || this.isVoided(transaction)) return { transactions: [], checkpoint: released }
      const { node, epoch, sequence } = transaction.origin
      const builder = new AppliedRangesBuilder(released.applied)
      if (!wasReadable && node !== source.node && this.#isKnown(source, builder, undefined, transaction))
        return { transactions: [], checkpoint: released }
      if (epoch !== undefined && sequence !== undefined) builder.add(node, epoch, sequence)
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

  #step(source: RemoteTable, plan: (current: Checkpoint | undefined) => ApplyStep): Promise<number> {
    const { host, node, relayEnabled, relay, counters } = this.#options
    return this.#queue.run(async () => {
      const { checkpoint, transactions } = plan(this.#checkpoints.get(source.node))
      const relayed = relayEnabled ? transactions.map((each) => this.#toRelayed(source, each)) : []
      const batch = { source, transactions, checkpoint, ...(relayed.length > 0 && { relay: relayed }) }
      await traced(
        'apply',
        () => ({ node, batch }),
        () => host.apply(batch),
      )
      if (relayed.length > 0) relay(relayed)
      this.#checkpoints.set(source.node, checkpoint)
      if (transactions.length > 0) counters.batches++
      counters.applied += transactions.length
      return transactions.length
    })
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
    for (const transaction of transactions) {
      const isNew = !this.#isKnown(source, builder, position.replayUntil, transaction)
      const { node, epoch, sequence } = transaction.origin
      if (epoch !== undefined && sequence !== undefined) builder.add(node, epoch, sequence)
      if (!isNew) continue
      newTransactions.push(isVoidKnown(voided, transaction) ? withoutVoids(transaction) : transaction)
      voided = withVoids(voided, transaction, current?.applied)
    }
    this.#options.counters.duplicates += transactions.length - newTransactions.length
    // The stream of the source is one range, whatever the origins of its transactions are.
    const from = (current?.sequence ?? position.sequence) + 1
    if (position.epoch !== '' && from <= position.sequence)
      builder.add(source.node, position.epoch, from, position.sequence)
    const applied = builder.result()
    return {
      transactions: newTransactions,
      checkpoint: { ...keptFields(current), ...position, ...(applied && { applied }), ...(voided && { voided }) },
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
    const { node, epoch, sequence, relayedBy } = origin
    if (node === this.#options.node || relayedBy.includes(this.#options.node)) return true
    if (this.isVoided(transaction)) return true
    if (epoch === undefined || sequence === undefined || at <= replayUntil) return false
    if (builder.has(node, epoch, sequence)) return true
    for (const [other, { applied }] of this.#checkpoints)
      if (other !== source.node && wasApplied(applied, node, epoch, sequence)) return true
    return false
  }

  /**
   * The parts of one transaction arrive in the streams of several tables, and each is relayed separately: the first relaying node
   * gives each part a separate id.
   */
  #toRelayed(source: RemoteTable, { sequence: _, origin, id, ...transaction }: RemoteTransaction): Transaction {
    const relayedId = origin.relayedBy.length === 0 ? partId(id, source) : id
    return {
      ...transaction,
      id: relayedId,
      origin: { ...origin, relayedBy: [...origin.relayedBy, this.#options.node] },
    }
  }
}

/** The fields of a checkpoint that stay when its position changes. */
const keptFields = ({
  applied,
  quarantined,
  gaps,
  voided,
}: Partial<Checkpoint> = {}): Pick<Checkpoint, 'applied' | 'quarantined' | 'gaps' | 'voided'> => ({
  ...(applied && { applied }),
  ...(quarantined && { quarantined }),
  ...(gaps && { gaps }),
  ...(voided && { voided }),
})

/** For a transaction that is read again: by now its origin may have issued valid timestamps in the range. */
const withoutVoids = ({ voids: _, ...transaction }: RemoteTransaction): RemoteTransaction => transaction
