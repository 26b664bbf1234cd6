// Reads the end of the local stream that lies beyond the confirmed position, so that the writer can compare it with the outbox.

import type { Mesh, Reader, TableName } from '../../mesh/mesh.ts'
import { clearTimeout, setTimeout } from '../../util/timers.ts'
import { Frame } from '../wire/frame.ts'

export type StoredTailOptions = {
  table: TableName
  /** Name of the local node. */
  node: string
  mesh: Mesh
  /** ms without any progress after which the reading fails. The whole may take any time. */
  requestTimeout: number
}

export type StoredTailRange = {
  /** The first sequence that the stream still has. */
  from: number
  /** The last sequence when the reading begins. */
  to: number
  /** The stream has fewer messages than sequences from its first to its last one. */
  hasHoles: boolean
}

/** Messages in memory; each may have some hundred kilobytes. */
const MAX_MESSAGES = 10

export class StoredTail {
  readonly #options: StoredTailOptions
  readonly #range: StoredTailRange
  #reader: Reader | undefined
  #batch: Frame[] = []
  /** Index in the batch. */
  #next = 0
  /** The last sequence that was read. */
  #sequence: number

  constructor(options: StoredTailOptions, range: StoredTailRange) {
    this.#options = options
    this.#range = range
    this.#sequence = range.from - 1
  }

  /** The next message; undefined beyond the last one. Opens the reader when it is needed first. Rejects as the mesh does, and MessageVersionError. */
  async next(): Promise<Frame | undefined> {
    if (this.#sequence >= this.#range.to) return undefined
    if (this.#next === this.#batch.length) {
      this.#batch = await this.#readBatch()
      this.#next = 0
    }
    const message = this.#batch[this.#next++]
    if (!message || message.sequence > this.#range.to) return undefined
    this.#sequence = message.sequence
    return message
  }

  close(): void {
    this.#reader?.close()
  }

  /** Empty when the last messages were deleted one by one: the reader would wait for them forever. Rejects when the last one is there, but slow. */
  async #readBatch(): Promise<Frame[]> {
    const { mesh, table, node, requestTimeout: timeout } = this.#options
    const { to, hasHoles } = this.#range
    this.#reader ??= await mesh.read({ node, ...table }, this.#sequence + 1, { timeout, maxMessages: MAX_MESSAGES })
    const reader = this.#reader
    let isExpired = false
    const timer = setTimeout(() => {
      isExpired = true
      reader.close()
    }, timeout)
    try {
      return (await reader.next()).map((entry) => Frame.read(entry))
    } catch (error) {
      const source = { node, ...table }
      const isEnd = isExpired && hasHoles && !(await mesh.messageAt(source, to, { timeout }))
      if (isEnd) return []
      throw error
    } finally {
      clearTimeout(timer)
    }
  }
}
