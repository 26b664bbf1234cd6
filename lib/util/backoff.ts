// Exponential back-off with jitter, so that callers that failed together do not retry together.

export type BackoffOptions = {
  /** ms before the second attempt. */
  first: number
  /** ms that no wait exceeds. */
  max: number
  /** Share of a wait by which it may be shorter, 0 to 1. Default: 0.2. */
  jitter?: number
  /** Returns a number from 0 to 1. Default: Math.random. */
  random?: () => number
}

export class Backoff {
  readonly #options: BackoffOptions
  #next: number

  constructor(options: BackoffOptions) {
    this.#options = options
    this.#next = options.first
  }

  /** ms to wait now; the next wait is twice as long. */
  next(): number {
    const { max, jitter = 0.2, random = Math.random } = this.#options
    const wait = Math.min(this.#next, max)
    this.#next = Math.min(2 * wait, max)
    return wait * (1 - jitter * random())
  }

  /** After a success: begins with the first wait again. */
  reset(): void {
    this.#next = this.#options.first
  }
}
