// A consumer where a stream lies: it sends what it has credit for.

import type { Entry } from '../mesh.ts'
import type { MemoryStream, StreamConsumer } from './stream.ts'

/** What it sends is counted and charged whether or not it arrives: a loss on the way shows as a jump of `delivery`. */
export class Consumer implements StreamConsumer {
  readonly #stream: MemoryStream
  readonly #send: (entry: Entry) => void
  #next: number
  #delivery = 0
  #credit = 0
  #ended = false

  /** From `sequence` on; beyond the end of the stream it begins at the end. */
  constructor(stream: MemoryStream, sequence: number, send: (entry: Entry) => void) {
    this.#stream = stream
    this.#next = Math.min(sequence, stream.state.lastSequence + 1)
    this.#send = send
  }

  grant(count: number): void {
    if (this.#ended) return
    this.#stream.readers.add(this)
    this.#credit += count
    this.pump()
  }

  pump(): void {
    for (; this.#credit > 0; this.#credit--) {
      const stored = this.#stream.firstFrom(this.#next)
      if (!stored) return
      this.#next = stored.sequence + 1
      this.#send({
        ...stored,
        data: stored.data.slice(),
        headers: { ...stored.headers },
        delivery: ++this.#delivery,
      })
    }
  }

  end(): void {
    this.#ended = true
    this.#stream.readers.delete(this)
  }
}
