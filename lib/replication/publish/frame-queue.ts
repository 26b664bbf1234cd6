// The transactions of one table that are not known to be stored, and the rule that cuts them into frames.

import { Fifo } from '../../util/fifo.ts'
import type { StoredFrame } from './stored-frame.ts'

/** One table's part of a transaction. */
export type StreamPart = {
  id: string
  data: Uint8Array
  /** Called once, when the stream has stored it with this index. */
  stored(frame: StoredFrame, index: number): void
}

/**
 * A frame with this many transactions or bytes is full. A larger transaction is a frame by itself. `partial`: a frame that is not full
 * leaves when fewer frames than this are in flight. `inFlight`: maximum number of frames in flight.
 */
export type FrameLimits = { transactions: number; bytes: number; partial: number; inFlight: number }

/** On a busy machine 512 transactions, or one partial frame, were no faster than these; 128 was slower for small transactions. */
export const FRAME_LIMITS = { transactions: 256, bytes: 256 * 1024, partial: 2 } as const

export class FrameQueue {
  readonly #limits: FrameLimits
  readonly #parts = new Fifo<StreamPart>()
  /** Frames in flight, oldest first. */
  #frames: { count: number; bytes: number }[] = []
  /** Number of parts in flight, from the head of the queue, and their bytes. */
  #sent = 0
  #sentBytes = 0
  #bytes = 0

  constructor(limits: FrameLimits) {
    this.#limits = limits
  }

  get length(): number {
    return this.#parts.length
  }

  get framesInFlight(): number {
    return this.#frames.length
  }

  get partsInFlight(): number {
    return this.#sent
  }

  push(part: StreamPart): void {
    this.#parts.push(part)
    this.#bytes += part.data.byteLength
  }

  /** The part at this offset, 0 for the oldest. */
  at(offset: number): StreamPart | undefined {
    return this.#parts.at(offset)
  }

  shift(): StreamPart {
    const part = this.#parts.shift()!
    this.#bytes -= part.data.byteLength
    return part
  }

  /** True when a frame is full and may leave. */
  get hasFullFrame(): boolean {
    return this.#frames.length < this.#limits.inFlight && this.#isFull
  }

  /** A frame may leave now even if it is not full. */
  get mayCutPartial(): boolean {
    return this.#frames.length < Math.min(this.#limits.partial, this.#limits.inFlight)
  }

  /** The next frame, which is in flight from now on; undefined while it must not leave. */
  cut(): Uint8Array[] | undefined {
    if (this.#sent === this.#parts.length || !(this.mayCutPartial || this.hasFullFrame)) return undefined
    const parts: Uint8Array[] = []
    let bytes = 0
    for (let part = this.#parts.at(this.#sent); part; part = this.#parts.at(this.#sent + parts.length)) {
      const size = part.data.byteLength
      if (parts.length > 0 && bytes + size > this.#limits.bytes) break
      bytes += size
      if (parts.push(part.data) === this.#limits.transactions) break
    }
    this.#frames.push({ count: parts.length, bytes })
    this.#sent += parts.length
    this.#sentBytes += bytes
    return parts
  }

  /** A message without a part of the queue is in flight from now on. Only while nothing else is. */
  sendOther(): void {
    this.#frames.push({ count: 0, bytes: 0 })
  }

  /** The oldest frame is stored. Returns the number of its transactions, which the caller shifts. */
  acknowledge(): number {
    const { count, bytes } = this.#frames.shift()!
    this.#sent -= count
    this.#sentBytes -= bytes
    return count
  }

  /** Nothing is in flight any more: all of it is cut again. */
  reset(): void {
    this.#frames = []
    this.#sent = 0
    this.#sentBytes = 0
  }

  get #isFull(): boolean {
    return (
      this.#parts.length - this.#sent >= this.#limits.transactions ||
      this.#bytes - this.#sentBytes >= this.#limits.bytes
    )
  }
}
