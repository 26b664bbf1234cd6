// Applying what other nodes committed to one of our tables: batches one at a time, each transaction once, whatever path it took.

import type { Batch, Checkpoint, Host, RemoteTransaction, Source, Transaction } from '../host.ts'
import { hasSeen, Notes } from './seen.ts'

export type ApplierOptions = {
  host: Host
  node: string
  republish: boolean
  handOn(transactions: Transaction[]): void
}

export class Applier {
  readonly #options: ApplierOptions
  /** The latest checkpoint of every source of this table, by node: together they know what was applied. */
  readonly #checkpoints = new Map<string, Checkpoint>()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: ApplierOptions) {
    this.#options = options
  }

  /** The checkpoint that the database holds for this source. */
  async recall(source: Source): Promise<Checkpoint | undefined> {
    const checkpoint = await this.#options.host.checkpoint(source)
    if (checkpoint) this.#checkpoints.set(source.node, checkpoint)
    return checkpoint
  }

  forget(node: string): void {
    this.#checkpoints.delete(node)
  }

  /**
   * Applies what is new of `transactions` and moves the source's checkpoint to `position`, in one transaction of the database.
   * Resolves with the new checkpoint and the number applied. Rejects as the host does; nothing has changed then.
   */
  apply(source: Source, transactions: RemoteTransaction[], position: Checkpoint): Promise<[Checkpoint, number]> {
    const work = this.#turn.then(async (): Promise<[Checkpoint, number]> => {
      const batch = this.#plan(source, transactions, position)
      await this.#options.host.apply(batch)
      if (batch.republish) this.#options.handOn(batch.republish)
      this.#checkpoints.set(source.node, batch.checkpoint)
      return [batch.checkpoint, batch.transactions.length]
    })
    this.#turn = work.catch(() => {})
    return work
  }

  #plan(source: Source, transactions: RemoteTransaction[], position: Checkpoint): Batch {
    const { node, republish } = this.#options
    const notes = new Notes(position.seen)
    const fresh = transactions.filter(({ origin, sequence }) => {
      if (origin.node === node || origin.path.includes(node)) return false
      if (origin.epoch === undefined || origin.sequence === undefined) return true
      const replayed = sequence <= (position.replayUntil ?? 0)
      const known = !replayed && this.#known(notes, source.node, origin.node, origin.epoch, origin.sequence)
      notes.add(origin.node, origin.epoch, origin.sequence)
      return !known
    })
    // Whatever the source holds up to here was passed, so that its own stream is one range.
    const from = (this.#checkpoints.get(source.node)?.sequence ?? position.sequence) + 1
    if (position.epoch !== '' && from <= position.sequence)
      notes.add(source.node, position.epoch, from, position.sequence)
    const seen = notes.result()
    const batch: Batch = { source, transactions: fresh, checkpoint: { ...position, ...(seen ? { seen } : {}) } }
    return republish && fresh.length > 0
      ? { ...batch, republish: fresh.map((each) => this.#handOn(source, each)) }
      : batch
  }

  /** By this batch's own source so far, or by any other of the table. */
  #known(own: Notes, source: string, origin: string, epoch: string, sequence: number): boolean {
    if (own.has(origin, epoch, sequence)) return true
    for (const [node, { seen }] of this.#checkpoints)
      if (node !== source && hasSeen(seen, origin, epoch, sequence)) return true
    return false
  }

  /**
   * The parts of one transaction come through several sources, and each is handed on by itself: the first node on the way
   * gives each an id of its own.
   */
  #handOn(source: Source, { sequence: _, origin, id, ...transaction }: RemoteTransaction): Transaction {
    const own = origin.path.length === 0 ? `${id}:${source.database}.${source.table}` : id
    return { ...transaction, id: own, origin: { ...origin, path: [...origin.path, this.#options.node] } }
  }
}
