// The writer of one stream in memory, with the position that its host stores.

import type { TestContext } from 'node:test'
import type { PublishedPosition } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import type { FrameLimits } from '../../lib/replication/publish/frame-queue.ts'
import { positionIn } from '../../lib/replication/publish/stored-frame.ts'
import { StreamWriter } from '../../lib/replication/publish/stream-writer.ts'
import type { Divergence, StreamWriterOptions } from '../../lib/replication/publish/stream-writer-options.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { eventually } from './cluster.ts'
import { insert } from './memory-host.ts'
import { MemoryLeaf, node } from './memory-leaf.ts'

export const dog = { database: 'dev', table: 'dog' }

/** One transaction a message. */
export const singly: FrameLimits = { transactions: 1, bytes: 1e6, partial: 100, inFlight: 100 }

/** The position that the host stores for one table. */
export class StoredPosition {
  position: Omit<PublishedPosition, 'database' | 'table'> | undefined
  /** `id@sequence` of the message that has it. */
  readonly stored: string[] = []

  /** Only the first messages, of one transaction each, are confirmed. */
  confirm(sequence: number): void {
    this.position = { epoch: this.position!.epoch, sequence, index: sequence, id: '' }
  }

  get published(): PublishedPosition | undefined {
    return this.position && { ...dog, ...this.position }
  }
}

/** A transaction of one row, encoded. */
export const partOf = (id: string): Uint8Array =>
  encodePart({ id, timestamp: makeTimestamp(1, 0, node), writes: [] }, [insert('dog', { id })], node)

export class Writer {
  readonly leaf: MemoryLeaf
  readonly memory: StoredPosition
  readonly stream: StreamWriter
  interruptions = 0
  readonly divergences: Divergence[] = []
  partOf = partOf

  constructor(leaf: MemoryLeaf, memory: StoredPosition, options: Partial<StreamWriterOptions> = {}) {
    this.leaf = leaf
    this.memory = memory
    this.stream = new StreamWriter({
      table: dog,
      node,
      mesh: leaf.mesh,
      frames: singly,
      requestTimeout: 10_000,
      loadPosition: async () => memory.published,
      savePosition: async (position) => {
        leaf.calls.push('savePosition')
        memory.position = { ...position, id: '' }
      },
      interrupted: () => {
        this.interruptions++
        void this.stream.resync().catch(() => {})
      },
      mayShowMore: () => true,
      diverged: (divergence) => this.divergences.push(divergence),
      ...options,
    })
  }

  push(...ids: string[]): void {
    for (const id of ids)
      this.stream.push({
        id,
        data: this.partOf(id),
        stored: (frame, index) => {
          this.memory.stored.push(`${id}@${frame.sequence}`)
          this.memory.position = { ...positionIn(frame, index), id }
        },
      })
  }

  /** Resolves when all of them are reported as stored. */
  async stored(...ids: string[]): Promise<void> {
    await eventually(
      () => `stored: ${this.memory.stored}`,
      () => ids.every((id) => this.memory.stored.some((each) => each.startsWith(`${id}@`))),
    )
  }
}

/** A ready writer, and a stream with these messages. */
export async function startWriter(
  test: TestContext,
  ...ids: string[]
): Promise<{ leaf: MemoryLeaf; memory: StoredPosition; writer: Writer }> {
  const leaf = await MemoryLeaf.open(test)
  const memory = new StoredPosition()
  const writer = new Writer(leaf, memory)
  await writer.stream.resync()
  writer.push(...ids)
  await writer.stored(...ids)
  leaf.appends.length = 0
  leaf.calls.length = 0
  memory.stored.length = 0
  return { leaf, memory, writer }
}
