// Limits how many copies a node runs at the same time.

import { MeshError } from '../../mesh/mesh.ts'
import { Fifo } from '../../util/fifo.ts'

type Waiting = { proceed(): void; aborted: boolean }

export class CopySlots {
  #free: number
  readonly #waiting = new Fifo<Waiting>()

  constructor(slots: number) {
    this.#free = slots
  }

  get isFull(): boolean {
    return this.#free === 0
  }

  /** Resolves with the function that ends the copy. Rejects `aborted`. */
  async acquire(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw new MeshError('aborted')
    if (this.#free > 0) this.#free--
    else await this.#wait(signal)
    let isHeld = true
    return () => {
      if (isHeld) this.#release()
      isHeld = false
    }
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const waiting: Waiting = { proceed: () => {}, aborted: false }
    await new Promise<void>((resolve, reject) => {
      const abort = () => {
        waiting.aborted = true
        reject(new MeshError('aborted'))
      }
      signal.addEventListener('abort', abort, { once: true })
      waiting.proceed = () => {
        signal.removeEventListener('abort', abort)
        resolve()
      }
      this.#waiting.push(waiting)
    })
  }

  /** The slot passes on to the next one that waits. */
  #release(): void {
    let next = this.#waiting.shift()
    while (next?.aborted) next = this.#waiting.shift()
    if (next) next.proceed()
    else this.#free++
  }
}
