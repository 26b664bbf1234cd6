// The memory that all readers of a node share. Each reader has a small share without asking, so that none ever waits for another;
// readers of a backlog divide the rest among themselves.

import { Fifo } from '../util/fifo.ts'

/** The share of a reader. Enough for the messages of ordinary traffic. */
const MAX_SHARE_BYTES = 64 * 1024
/** What a reader of a backlog gets in addition, at most: two pull requests in full. */
const MAX_GRANT_BYTES = 8 * 1024 * 1024

/** Bytes for one message. `release` also ends the wait for them. */
export type MessageReservation = { readonly isGranted: boolean; release(): void }

type Waiting = { readonly bytes: number; state: 'waiting' | 'granted' | 'exceeding' | 'over'; granted: () => void }

export class ReadBudget {
  readonly #maxBytes: number
  #reserved = 0
  #readers = 0
  /** Readers of a backlog. */
  #behind = 0
  readonly #waiting = new Fifo<Waiting>()
  /** One message exceeds the budget. */
  #isExceeded = false

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Bytes that readers may hold now. */
  get reserved(): number {
    return this.#reserved
  }

  /** What each reader may hold. */
  get share(): number {
    return Math.floor(Math.min(MAX_SHARE_BYTES, this.#maxBytes / 2 / Math.max(1, this.#readers)))
  }

  /** What a reader of a backlog may hold in addition. */
  get grant(): number {
    const rest = this.#maxBytes - this.#readers * this.share
    return Math.floor(Math.min(MAX_GRANT_BYTES, rest / Math.max(1, this.#behind)))
  }

  addReader(): void {
    this.#readers++
  }

  /** Its bytes must have been released. */
  removeReader(): void {
    this.#readers--
  }

  /** A reader began to read a backlog, or is at the end of it. */
  setBehind(isBehind: boolean): void {
    this.#behind += isBehind ? 1 : -1
  }

  /** Always succeeds: a reader without its share would not receive new messages. */
  reserveShare(bytes: number): void {
    this.#reserved += bytes
  }

  /** Returns how many of these bytes the reader gets now. */
  reserve(bytes: number): number {
    if (this.#waiting.length > 0) return 0
    const granted = Math.max(0, Math.min(bytes, this.#maxBytes - this.#reserved))
    this.#reserved += granted
    return granted
  }

  /**
   * For a message that does not fit in what a reader holds: there is room for it now, or `granted` is called when there is. One
   * message at a time may exceed the budget, so that every message gets through.
   */
  reserveMessage(bytes: number, granted: () => void): MessageReservation {
    const request: Waiting = { bytes, state: 'waiting', granted: () => {} }
    this.#waiting.push(request)
    this.#serveWaiting()
    request.granted = granted
    return {
      get isGranted() {
        return request.state === 'granted' || request.state === 'exceeding'
      },
      release: () => {
        const { state } = request
        request.state = 'over'
        if (state === 'exceeding') this.#isExceeded = false
        if (state === 'granted' || state === 'exceeding') this.release(bytes)
      },
    }
  }

  release(bytes: number): void {
    this.#reserved -= bytes
    this.#serveWaiting()
  }

  #serveWaiting(): void {
    for (let next = this.#waiting.at(0); next; next = this.#waiting.at(0)) {
      const fits = this.#reserved + next.bytes <= this.#maxBytes
      if (next.state === 'waiting' && !fits && this.#isExceeded) return
      this.#waiting.shift()
      if (next.state === 'over') continue
      next.state = fits ? 'granted' : 'exceeding'
      this.#isExceeded ||= !fits
      this.#reserved += next.bytes
      next.granted()
    }
  }
}
