// Applying what other nodes committed to one of our tables: batches one at a time, each transaction once, whatever path it
// took. The checkpoints of the table's sources have their one owner here.

import type { Checkpoint, Host, RemoteTable, RemoteTransaction, Transaction } from '../../host/host.ts'
import { traced } from '../../observe/diagnostics.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { AppliedRangesBuilder, wasApplied, withoutSequence, withSequence } from '../applied-ranges.ts'
import { partId } from '../wire.ts'

/** Where a subscription is in its source: what a subscriber moves. What was seen and set aside is kept here. */
export type Position = Omit<Checkpoint, 'applied' | 'quarantined' | 'gaps'>

export type ApplierOptions = {
  host: Host
  node: string
  relayEnabled: boolean
  counters: ReplicationCounters
  relay(transactions: Transaction[]): void
}

/** What a step makes of a source's checkpoint, and the transactions that go with it. */
type ApplyStep = { checkpoint: Checkpoint; transactions: RemoteTransaction[] }

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node: together they know what was applied. */
  readonly #checkpoints = new Map<string, Checkpoint>()
  readonly #serialize = new SerialQueue()

  constructor(options: ApplierOptions) {
    this.#options = options
  }

  /** Reads the checkpoint that the database holds for this source. */
  loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined> {
    return this.#serialize.run(async () => {
      const checkpoint = await this.#options.host.loadCheckpoint(source)
      if (checkpoint) this.#checkpoints.set(source.node, checkpoint)
      return checkpoint
    })
  }

  /** As it was read or stored last. */
  checkpointOf(source: RemoteTable): Checkpoint | undefined {
    return this.#checkpoints.get(source.node)
  }

  dropCheckpoint(node: string): void {
    this.#checkpoints.delete(node)
  }

  /**
   * Applies what is new of `transactions`, which is all that the source holds up to `position`. Resolves with the number
   * applied. Rejects as the host does; nothing has changed then. So do the other steps.
   */
  apply(source: RemoteTable, transactions: RemoteTransaction[], position: Position): Promise<number> {
    return this.#step(source, (current) => this.#deduplicate(source, transactions, position, current))
  }

  /**
   * Goes elsewhere in the source without reading. `lost`: transactions that are gone from it, which a gap tells; `replayed`: how
   * many of those before the new place were applied in another epoch.
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
   * Passes over the message at `position`, which is in quarantine now; `transaction`: what it says, if it can be read. Resolves
   * with false when that came by another path meanwhile, so that it is not set aside.
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
   * Ends the quarantine of a message, applying what it says, or nothing when it is discarded. `wasReadable`: it was readable when
   * it was set aside, so that it counts as seen since then; otherwise it may have come by another path meanwhile.
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
      if (!transaction) return { transactions: [], checkpoint: released }
      const { node, epoch, sequence } = transaction.origin
      const builder = new AppliedRangesBuilder(released.applied)
      if (!wasReadable && node !== source.node && this.#isKnown(source, builder, undefined, transaction))
        return { transactions: [], checkpoint: released }
      if (epoch !== undefined && sequence !== undefined) builder.add(node, epoch, sequence)
      const applied = builder.result()
      return { transactions: [transaction], checkpoint: { ...released, ...(applied && { applied }) } }
    })
  }

  /** Did this transaction come already, by whatever path, or is it our own? */
  isApplied(source: RemoteTable, transaction: RemoteTransaction): boolean {
    const current = this.#checkpoints.get(source.node)
    return this.#isKnown(source, new AppliedRangesBuilder(current?.applied), current?.replayUntil, transaction)
  }

  #step(source: RemoteTable, plan: (current: Checkpoint | undefined) => ApplyStep): Promise<number> {
    const { host, node, relayEnabled, relay, counters } = this.#options
    return this.#serialize.run(async () => {
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

  /** All that the source holds up to `position` is passed; what is new of it is to be applied. */
  #deduplicate(
    source: RemoteTable,
    transactions: RemoteTransaction[],
    position: Position,
    current: Checkpoint | undefined,
  ): ApplyStep {
    const builder = new AppliedRangesBuilder(current?.applied)
    const newTransactions = transactions.filter((transaction) => {
      const known = this.#isKnown(source, builder, position.replayUntil, transaction)
      const { node, epoch, sequence } = transaction.origin
      if (epoch !== undefined && sequence !== undefined) builder.add(node, epoch, sequence)
      return !known
    })
    this.#options.counters.duplicates += transactions.length - newTransactions.length
    // The source's own stream is one range, whoever's transactions lie in it.
    const from = (current?.sequence ?? position.sequence) + 1
    if (position.epoch !== '' && from <= position.sequence)
      builder.add(source.node, position.epoch, from, position.sequence)
    const applied = builder.result()
    return {
      transactions: newTransactions,
      checkpoint: { ...keptFields(current), ...position, ...(applied && { applied }) },
    }
  }

  /** Our own, or seen by this batch's own source so far, or by any other of the table. */
  #isKnown(
    source: RemoteTable,
    own: AppliedRangesBuilder,
    replayUntil = 0,
    { origin, sequence: at }: RemoteTransaction,
  ): boolean {
    const { node, epoch, sequence, relayedBy } = origin
    if (node === this.#options.node || relayedBy.includes(this.#options.node)) return true
    if (epoch === undefined || sequence === undefined || at <= replayUntil) return false
    if (own.has(node, epoch, sequence)) return true
    for (const [other, { applied }] of this.#checkpoints)
      if (other !== source.node && wasApplied(applied, node, epoch, sequence)) return true
    return false
  }

  /**
   * The parts of one transaction come through several sources, and each is handed on by itself: the first node on the way
   * gives each an id of its own.
   */
  #toRelayed(source: RemoteTable, { sequence: _, origin, id, ...transaction }: RemoteTransaction): Transaction {
    const own = origin.relayedBy.length === 0 ? partId(id, source) : id
    return { ...transaction, id: own, origin: { ...origin, relayedBy: [...origin.relayedBy, this.#options.node] } }
  }
}

/** What of a checkpoint stays when its place changes. */
const keptFields = ({
  applied,
  quarantined,
  gaps,
}: Partial<Checkpoint> = {}): Pick<Checkpoint, 'applied' | 'quarantined' | 'gaps'> => ({
  ...(applied && { applied }),
  ...(quarantined && { quarantined }),
  ...(gaps && { gaps }),
})
