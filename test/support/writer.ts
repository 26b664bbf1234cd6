// The writer of one stream in memory, with the position that its host stores.

import type { TestContext } from 'node:test'
import type { PublishedPosition } from '../../lib/host/host.ts'
import { type Divergence, StreamWriter, type StreamWriterOptions } from '../../lib/replication/publish/stream-writer.ts'
import type { StreamPosition } from '../../lib/replication/stream-metadata.ts'
import { eventually } from './cluster.ts'
import { MemoryLeaf, node } from './memory-leaf.ts'

export const dog = { database: 'dev', table: 'dog' }

/** The position that the host stores for one table. */
export class StoredPosition {
  position: StreamPosition | undefined
  readonly stored: string[] = []

  get published(): PublishedPosition | undefined {
    return this.position && { ...dog, ...this.position, id: '' }
  }
}

export class Writer {
  readonly leaf: MemoryLeaf
  readonly memory: StoredPosition
  readonly stream: StreamWriter
  interruptions = 0
  readonly divergences: Divergence[] = []

  constructor(leaf: MemoryLeaf, memory: StoredPosition, options: Partial<StreamWriterOptions> = {}) {
    this.leaf = leaf
    this.memory = memory
    this.stream = new StreamWriter({
      table: dog,
      node,
      mesh: leaf.mesh,
      window: 100,
      requestTimeout: 10_000,
      loadPosition: async () => memory.published,
      savePosition: async (position) => {
        leaf.calls.push('savePosition')
        memory.position = position
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
        data: Buffer.from(id),
        headers: (epoch) => ({ 'Nats-Msg-Id': id, epoch }),
        stored: (position) => {
          this.memory.stored.push(`${id}@${position.sequence}`)
          this.memory.position = position
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
