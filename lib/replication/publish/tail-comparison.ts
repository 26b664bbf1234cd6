// Compares the messages of the stream behind the confirmed position with the outbox, transaction by transaction.

import type { Frame } from '../wire/frame.ts'
import type { FrameQueue } from './frame-queue.ts'
import type { StoredFrame, StoredPosition } from './stored-frame.ts'
import type { StoredTail } from './stored-tail.ts'

export type TailComparisonOptions = {
  tail: StoredTail
  queue: FrameQueue
  /** The last message of the stream. */
  to: number
  /** Id of the transaction at the position where the comparison begins; '' if it is not known. */
  id: string
  /** See `StreamWriterOptions`. */
  mayShowMore(queued: number): boolean
  /** Up to where the queue is stored. */
  position(): StoredPosition
  /** The stream has the queue up to `index`. Moves `position` and the queue. */
  reportStored(frame: StoredFrame, index: number): void
  /** The stream has a message that is no transaction of the outbox. Moves `position`. Absent: the writer sends no such message. */
  passAhead?: ((frame: StoredFrame) => void) | undefined
}

/**
 * Reports the transactions as stored whose ids are at their places in the stream, in order. Indexes have no holes when they are written, so
 * a match also proves the deleted transactions before it. Frames may have been cut differently than they would be now.
 */
export class TailComparison {
  readonly #options: TailComparisonOptions
  #cancelled = false
  #onChange: (() => void) | undefined

  constructor(options: TailComparisonOptions) {
    this.#options = options
  }

  /** Resolves when everything is compared or `cancel` was called; with a reason when the stream does not match the outbox. Rejects as the mesh does. */
  async run(): Promise<string | undefined> {
    const { tail, to, position, passAhead } = this.#options
    try {
      while (!this.#cancelled && position().sequence < to) {
        // An older database has no part for the next message: then nothing needs to be read.
        const isReadable = (await this.#isQueued(position().index + 1)) || passAhead !== undefined
        const frame = isReadable && !this.#cancelled ? await tail.next() : undefined
        const reason = frame ? await this.#compare(frame) : this.#missing()
        if (reason !== undefined) return this.#cancelled ? undefined : reason
      }
      return undefined
    } finally {
      tail.close()
    }
  }

  /** The queue or `mayShowMore` may have changed. */
  wake(): void {
    this.#onChange?.()
    this.#onChange = undefined
  }

  cancel(): void {
    this.#cancelled = true
    this.wake()
  }

  /** Why the frame is not what the outbox has there. */
  async #compare(frame: Frame): Promise<string | undefined> {
    const { queue, position, reportStored } = this.#options
    const { sequence } = frame
    const reason = this.#misplaced(frame)
    if (reason !== undefined) return reason
    const first = frame.first!
    const stored: StoredFrame = { epoch: frame.epoch, sequence, last: frame.last! }
    if (this.#options.passAhead && frame.isForHarperOnly) {
      this.#options.passAhead(stored)
      return undefined
    }
    for (let index = Math.max(first, position().index + 1); index <= stored.last; index++) {
      if (!(await this.#isQueued(index))) return this.#missing()
      const expected = queue.at(index - position().index - 1)!.id
      const id = frame.idAt(index - first)
      if (id !== expected) return `the stream has ${id} at ${sequence} where ${expected} was expected`
      reportStored(stored, index)
    }
    return undefined
  }

  /** Why a message cannot be the next one of this epoch. */
  #misplaced(frame: Frame): string | undefined {
    const { position, id } = this.#options
    const { epoch, sequence, index, partial } = position()
    const { first, last, fault } = frame
    if (frame.epoch !== epoch) return `the stream has a message of epoch '${frame.epoch}' at ${frame.sequence}`
    if (fault !== undefined || first === undefined || last === undefined)
      return `message ${frame.sequence} of the stream is unreadable: ${fault}`
    const isNext = frame.sequence === sequence + 1
    const isContinued = isNext && partial ? last > index : isNext ? first === index + 1 : first > index
    if (!isContinued)
      return `message ${frame.sequence} of the stream has the transactions ${first} to ${last} where ${index + 1} was expected`
    if (partial && first <= index && id !== '' && frame.idAt(index - first) !== id)
      return `the stream has ${frame.idAt(index - first)} at ${frame.sequence} where ${id} was expected`
    return undefined
  }

  #missing(): string {
    const { to, position } = this.#options
    return `the outbox does not have the messages ${position().sequence + 1} to ${to}`
  }

  /** Waits for the transaction with this index. False when the outbox does not show it, and after `cancel`. */
  async #isQueued(index: number): Promise<boolean> {
    const { queue, position, mayShowMore } = this.#options
    const isMissing = () => queue.length < index - position().index
    while (!this.#cancelled && isMissing() && mayShowMore(queue.length))
      await new Promise<void>((resolve) => {
        this.#onChange = resolve
      })
    return !this.#cancelled && !isMissing()
  }
}
