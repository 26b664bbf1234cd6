// Applying what other nodes committed to one of our tables: batches one at a time, each transaction once, whatever path it
// took. The checkpoints of the table's sources have their one owner here.

import { traced } from '../diagnostics.ts'
import type { Checkpoint, Host, RemoteTransaction, Source, Transaction } from '../host.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import type { ReplicationCounters } from './metrics.ts'
import { hasSeen, Notes, withoutSequence, withSequence } from './seen.ts'
import { idOfPart } from './wire.ts'

/** Where a subscription is in its source: what a subscriber moves. What was seen and set aside is kept here. */
export type Place = Omit<Checkpoint, 'seen' | 'aside' | 'gaps'>

export type ApplierOptions = {
  host: Host
  node: string
  republish: boolean
  counters: ReplicationCounters
  handOn(transactions: Transaction[]): void
}

/** What a step makes of a source's checkpoint, and the transactions that go with it. */
type Step = { checkpoint: Checkpoint; transactions: RemoteTransaction[] }

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node: together they know what was applied. */
  readonly #checkpoints = new Map<string, Checkpoint>()
  readonly #queue = new SerialQueue()

  constructor(options: ApplierOptions) {
    this.#options = options
  }

  /** Reads the checkpoint that the database holds for this source. */
  recall(source: Source): Promise<Checkpoint | undefined> {
    return this.#queue.run(async () => {
      const checkpoint = await this.#options.host.checkpoint(source)
      if (checkpoint) this.#checkpoints.set(source.node, checkpoint)
      return checkpoint
    })
  }

  /** As it was read or stored last. */
  checkpointOf(source: Source): Checkpoint | undefined {
    return this.#checkpoints.get(source.node)
  }

  forget(node: string): void {
    this.#checkpoints.delete(node)
  }

  /**
   * Applies what is new of `transactions`, which is all that the source holds up to `place`. Resolves with the number
   * applied. Rejects as the host does; nothing has changed then. So do the other steps.
   */
  apply(source: Source, transactions: RemoteTransaction[], place: Place): Promise<number> {
    return this.#step(source, (current) => this.#passing(source, transactions, place, current))
  }

  /**
   * Goes elsewhere in the source without reading. `lost`: transactions that are gone from it, which a gap tells; `again`: how
   * many of those before the new place were applied in another epoch.
   */
  async move(source: Source, place: Place, { lost = 0, again = 0 } = {}): Promise<void> {
    await this.#step(source, (current) => {
      const { count = 0, lost: before = 0 } = current?.gaps ?? {}
      const gaps = lost > 0 ? { gaps: { count: count + 1, lost: before + lost } } : {}
      const notes = new Notes(current?.seen)
      if (again > 0) notes.add(source.node, place.epoch, place.sequence - again + 1, place.sequence)
      const seen = notes.result()
      return { transactions: [], checkpoint: { ...kept(current), ...place, ...gaps, ...(seen && { seen }) } }
    })
  }

  /**
   * Passes over the message at `place`, which is in quarantine now; `transaction`: what it says, if it can be read. Resolves
   * with false when that came by another path meanwhile, so that it is not set aside.
   */
  async setAside(source: Source, place: Place, transaction: RemoteTransaction | undefined): Promise<boolean> {
    let isAside = true
    await this.#step(source, (current) => {
      const { checkpoint, transactions } = this.#passing(source, transaction ? [transaction] : [], place, current)
      isAside = !transaction || transactions.length > 0
      if (!isAside) return { transactions: [], checkpoint }
      const aside = withSequence(checkpoint.aside, place.epoch, place.sequence)
      return { transactions: [], checkpoint: { ...checkpoint, aside } }
    })
    return isAside
  }

  /**
   * Ends the quarantine of a message, applying what it says, or nothing when it is discarded. `noted`: it was readable when
   * it was set aside, so that it counts as seen since then; otherwise it may have come by another path meanwhile.
   */
  release(source: Source, at: { epoch: string; sequence: number }, transaction?: RemoteTransaction, noted = true) {
    return this.#step(source, (current) => {
      const { aside: before, ...checkpoint } = current!
      const aside = withoutSequence(before, at.epoch, at.sequence)
      const released = { ...checkpoint, ...(aside && { aside }) }
      if (!transaction) return { transactions: [], checkpoint: released }
      const { node, epoch, sequence } = transaction.origin
      const notes = new Notes(released.seen)
      if (!noted && node !== source.node && this.#isKnown(source, notes, undefined, transaction))
        return { transactions: [], checkpoint: released }
      if (epoch !== undefined && sequence !== undefined) notes.add(node, epoch, sequence)
      const seen = notes.result()
      return { transactions: [transaction], checkpoint: { ...released, ...(seen && { seen }) } }
    })
  }

  /** Did this transaction come already, by whatever path, or is it our own? */
  knows(source: Source, transaction: RemoteTransaction): boolean {
    const current = this.#checkpoints.get(source.node)
    return this.#isKnown(source, new Notes(current?.seen), current?.replayUntil, transaction)
  }

  #step(source: Source, plan: (current: Checkpoint | undefined) => Step): Promise<number> {
    const { host, node, republish, handOn, counters } = this.#options
    return this.#queue.run(async () => {
      const { checkpoint, transactions } = plan(this.#checkpoints.get(source.node))
      const handedOn = republish ? transactions.map((each) => this.#handOn(source, each)) : []
      const batch = { source, transactions, checkpoint, ...(handedOn.length > 0 && { republish: handedOn }) }
      await traced(
        'apply',
        () => ({ node, batch }),
        () => host.apply(batch),
      )
      if (handedOn.length > 0) handOn(handedOn)
      this.#checkpoints.set(source.node, checkpoint)
      if (transactions.length > 0) counters.batches++
      counters.applied += transactions.length
      return transactions.length
    })
  }

  /** All that the source holds up to `place` is passed; what is new of it is to be applied. */
  #passing(source: Source, transactions: RemoteTransaction[], place: Place, current: Checkpoint | undefined): Step {
    const notes = new Notes(current?.seen)
    const fresh = transactions.filter((transaction) => {
      const known = this.#isKnown(source, notes, place.replayUntil, transaction)
      const { node, epoch, sequence } = transaction.origin
      if (epoch !== undefined && sequence !== undefined) notes.add(node, epoch, sequence)
      return !known
    })
    this.#options.counters.duplicates += transactions.length - fresh.length
    // The source's own stream is one range, whoever's transactions lie in it.
    const from = (current?.sequence ?? place.sequence) + 1
    if (place.epoch !== '' && from <= place.sequence) notes.add(source.node, place.epoch, from, place.sequence)
    const seen = notes.result()
    return { transactions: fresh, checkpoint: { ...kept(current), ...place, ...(seen && { seen }) } }
  }

  /** Our own, or seen by this batch's own source so far, or by any other of the table. */
  #isKnown(source: Source, own: Notes, replayUntil = 0, { origin, sequence: at }: RemoteTransaction): boolean {
    const { node, epoch, sequence, path } = origin
    if (node === this.#options.node || path.includes(this.#options.node)) return true
    if (epoch === undefined || sequence === undefined || at <= replayUntil) return false
    if (own.has(node, epoch, sequence)) return true
    for (const [other, { seen }] of this.#checkpoints)
      if (other !== source.node && hasSeen(seen, node, epoch, sequence)) return true
    return false
  }

  /**
   * The parts of one transaction come through several sources, and each is handed on by itself: the first node on the way
   * gives each an id of its own.
   */
  #handOn(source: Source, { sequence: _, origin, id, ...transaction }: RemoteTransaction): Transaction {
    const own = origin.path.length === 0 ? idOfPart(id, source) : id
    return { ...transaction, id: own, origin: { ...origin, path: [...origin.path, this.#options.node] } }
  }
}

/** What of a checkpoint stays when its place changes. */
const kept = ({ seen, aside, gaps }: Partial<Checkpoint> = {}): Pick<Checkpoint, 'seen' | 'aside' | 'gaps'> => ({
  ...(seen && { seen }),
  ...(aside && { aside }),
  ...(gaps && { gaps }),
})
