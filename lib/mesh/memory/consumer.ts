// A consumer at the node of a stream: it sends as many messages and bytes as its reader has requested.

import type { Entry } from '../mesh.ts'
import type { PullRequest } from '../pull-window.ts'
import { type MemoryStream, type StreamConsumer, sizeOf } from './stream.ts'

export type ConsumerOutput = {
  /** `pending`: number of messages after it. */
  send(entry: Entry, pending: number): void
  /** A request ended with so many messages missing; `bySize`: because the next one is too large for it. */
  ended(missing: number, bySize: boolean): void
}

/** It counts every message that it sends, so that a lost message shows as a jump of `delivery`. */
export class Consumer implements StreamConsumer {
  readonly #stream: MemoryStream
  readonly #output: ConsumerOutput
  readonly #pulls: { missing: number; bytes: number; brief: boolean }[] = []
  #next: number
  #delivery = 0
  #ended = false

  /** Begins at `sequence`, or at the end of the stream when `sequence` is beyond it. */
  constructor(stream: MemoryStream, sequence: number, output: ConsumerOutput) {
    this.#stream = stream
    this.#next = Math.min(sequence, stream.state.lastSequence + 1)
    this.#output = output
  }

  pull({ batch, maxBytes, brief }: PullRequest): void {
    if (this.#ended) return
    this.#stream.readers.add(this)
    this.#pulls.push({ missing: batch, bytes: maxBytes, brief })
    this.pump()
  }

  pump(): void {
    for (let pull = this.#pulls[0]; pull; pull = this.#pulls[0]) {
      const stored = this.#stream.firstFrom(this.#next)
      if (!stored && !pull.brief) return
      const size = stored ? sizeOf(stored) : 0
      if (!stored || size > pull.bytes) {
        this.#pulls.shift()
        this.#output.ended(pull.missing, stored !== undefined)
        continue
      }
      this.#next = stored.sequence + 1
      pull.bytes -= size
      if (--pull.missing === 0) this.#pulls.shift()
      const entry = { ...stored, data: stored.data.slice(), headers: { ...stored.headers }, delivery: ++this.#delivery }
      this.#output.send(entry, this.#stream.state.lastSequence - stored.sequence)
    }
  }

  end(): void {
    this.#ended = true
    this.#stream.readers.delete(this)
  }
}
