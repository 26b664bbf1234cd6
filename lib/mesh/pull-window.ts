// What one reader requests: as many messages and bytes as it may hold, less what it holds already. It holds what it requested, what is
// unread, and what it handed out last, until it is asked for more.

import type { MessageReservation, ReadBudget } from './read-budget.ts'

/** `brief`: it takes a large part of the budget, and should end soon when there are no more messages. */
export type PullRequest = { readonly batch: number; readonly maxBytes: number; readonly brief: boolean }

export type PullWindowOptions = {
  maxMessages: number
  /** Bytes of the largest possible message. */
  maxMessageBytes: number
  /** Shared with other readers; without it the bytes are limited for each request only. */
  budget?: ReadBudget | undefined
  /** There is room for another request: call `next`. */
  ready(): void
}

type Pull = PullRequest & {
  remaining: number
  /** Bytes that may still arrive. */
  bytes: number
  /** The bytes are those of `#large`. */
  readonly isLarge: boolean
}

/** Of one request; a larger message is requested alone. */
const MAX_PULL_BYTES = 4 * 1024 * 1024

export class PullWindow {
  readonly #options: PullWindowOptions
  /** In the order of the requests, which is that of their answers. */
  readonly #pulls: Pull[] = []
  #requested = 0
  #unread = 0
  /** Bytes that this reader may hold, and those that it holds beside open requests. */
  #allowance = 0
  #unreadBytes = 0
  #takenBytes = 0
  /** The stream has messages beyond those received. */
  #isBehind = false
  /** The next message is larger than this. */
  #tooSmall = 0
  /** Bytes for one message that does not fit in the allowance. `received`: it was; `taken`: it was handed out. */
  #large: (MessageReservation & { received?: boolean; taken?: boolean }) | undefined
  #closed = false

  constructor(options: PullWindowOptions) {
    this.#options = options
    options.budget?.addReader()
  }

  /** The next request, if half of the capacity is free. */
  next(): PullRequest | undefined {
    if (this.#closed) return undefined
    this.#adjust()
    const { maxMessages } = this.#options
    const capacity = maxMessages - this.#requested - this.#unread
    if (capacity < maxMessages / 2) return undefined
    const free = this.#allowance - this.#held
    const maxBytes = Math.min(free, MAX_PULL_BYTES)
    if (free >= this.#allowance / 2 && maxBytes > this.#tooSmall) {
      const share = this.#options.budget?.share ?? Number.POSITIVE_INFINITY
      return this.#add({ batch: capacity, maxBytes, brief: maxBytes > share, isLarge: false })
    }
    return this.#tooSmall > 0 && this.#pulls.length === 0 ? this.#nextLarge() : undefined
  }

  /** A message arrived. `pending`: number of messages that the stream has after it. False when none was requested. */
  received(bytes: number, pending: number): boolean {
    const pull = this.#pulls[0]
    if (!pull) return false
    pull.remaining--
    this.#requested--
    this.#unread++
    if (pull.isLarge) this.#large!.received = true
    else {
      pull.bytes = Math.max(0, pull.bytes - bytes)
      this.#unreadBytes += bytes
    }
    if (pull.remaining === 0) this.#pulls.shift()
    this.#tooSmall = 0
    this.#setBehind(pending > 0)
    return true
  }

  /** A request ended with so many of its messages missing; `bySize`: because the next one was too large for it. */
  ended(missing: number, bySize: boolean): void {
    const index = this.#pulls.findIndex(({ remaining }) => remaining === missing)
    // A complete request is not in the list any more.
    if (index < 0 && missing === 0) return
    const [pull] = this.#pulls.splice(Math.max(0, index), 1)
    if (!pull) return
    this.#requested -= pull.remaining
    if (pull.isLarge) this.#releaseLarge()
    if (bySize && pull.remaining === pull.batch) this.#tooSmall = Math.max(this.#tooSmall, pull.maxBytes)
    this.#setBehind(bySize)
  }

  /** The unread messages are handed out. */
  taken(): void {
    this.#takenBytes = this.#unreadBytes
    this.#unreadBytes = 0
    this.#unread = 0
    if (this.#large?.received) this.#large.taken = true
  }

  /** The messages that were handed out are not needed any longer. */
  processed(): void {
    this.#takenBytes = 0
    if (this.#large?.taken) this.#releaseLarge()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#setBehind(false)
    this.#releaseLarge()
    this.#options.budget?.release(this.#allowance)
    this.#options.budget?.removeReader()
  }

  /** A request is open. */
  get isRequesting(): boolean {
    return this.#pulls.length > 0
  }

  get #held(): number {
    const requested = this.#pulls.reduce((sum, { bytes, isLarge }) => sum + (isLarge ? 0 : bytes), 0)
    return requested + this.#unreadBytes + this.#takenBytes
  }

  #add(pull: PullRequest & { isLarge: boolean }): PullRequest {
    const { batch, maxBytes, brief, isLarge } = pull
    this.#pulls.push({ batch, maxBytes, brief, isLarge, remaining: batch, bytes: maxBytes })
    this.#requested += pull.batch
    return pull
  }

  /** One message of any size, as soon as the budget has room. */
  #nextLarge(): PullRequest | undefined {
    const { budget, maxMessageBytes, ready } = this.#options
    this.#large ??= budget?.reserveMessage(maxMessageBytes, ready) ?? { isGranted: true, release: () => {} }
    if (!this.#large.isGranted || this.#large.received) return undefined
    return this.#add({ batch: 1, maxBytes: 2 * maxMessageBytes, brief: true, isLarge: true })
  }

  #releaseLarge(): void {
    this.#large?.release()
    this.#large = undefined
  }

  #setBehind(isBehind: boolean): void {
    if (isBehind !== this.#isBehind) this.#options.budget?.setBehind(isBehind)
    this.#isBehind = isBehind
  }

  /** Brings the allowance to what this reader may have now, which depends on the other readers. */
  #adjust(): void {
    const { budget } = this.#options
    if (!budget) {
      this.#allowance = Number.POSITIVE_INFINITY
      return
    }
    const { share } = budget
    const desired = share + (this.#isBehind ? budget.grant : 0)
    if (this.#allowance < share) {
      budget.reserveShare(share - this.#allowance)
      this.#allowance = share
    }
    const change = Math.max(desired, this.#held) - this.#allowance
    if (change > 0) this.#allowance += budget.reserve(change)
    else if (change < 0) {
      this.#allowance += change
      budget.release(-change)
    }
  }
}
