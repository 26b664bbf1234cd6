// A remote stream whose messages reach the reader when the test delivers them.

import type { Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type Entry, type Mesh, MeshError, type Reader, type StreamState } from '../../lib/mesh/mesh.ts'
import { type EpochRange, formatStreamMetadata, type PurgedRange } from '../../lib/replication/stream-metadata.ts'
import { encodeFrame } from '../../lib/replication/wire/frame.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { eventually } from './cluster.ts'
import { insert } from './memory-host.ts'

const dog = { database: 'dev', table: 'dog' }
export const source = { node: 'node1', ...dog }

/** An entry without its delivery number. */
type Stored = Omit<Entry, 'delivery'>

export class ScriptedReader implements Reader {
  readonly from: number
  readonly maxMessages: number
  lost = false
  #delivered = 0
  #entries: Entry[] = []
  #wake = () => {}

  constructor(from: number, maxMessages: number) {
    this.from = from
    this.maxMessages = maxMessages
  }

  /** Delivers these entries as one piece. */
  give(...entries: Stored[]): void {
    this.#entries.push(...entries.map((entry) => ({ ...entry, delivery: ++this.#delivered })))
    this.#wake()
  }

  /** Skips `count` delivery numbers, as if those messages were lost. */
  lose(count: number): void {
    this.#delivered += count
  }

  async next(): Promise<Entry[]> {
    while (this.#entries.length === 0) {
      if (this.lost) throw new MeshError('reader_lost')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#entries.splice(0)
  }

  close(): void {
    this.lost = true
    this.#entries = []
    this.#wake()
  }
}

export class RemoteStream {
  epochs: EpochRange[] = [{ epoch: 'e1', from: 1 }]
  first = 1
  last = 0
  purged: PurgedRange[] = []
  /** The messages made so far, by sequence. */
  readonly stored = new Map<number, Stored>()
  readonly readers: ScriptedReader[] = []
  /** Number of requests for the state so far. */
  stateRequests = 0
  /** Runs before each request for the state is answered. */
  obstacle: ((signal: AbortSignal | undefined) => Promise<void>) | undefined

  /** The part of a mesh that a subscriber needs. */
  readonly mesh = {
    timers: systemTimers,
    streamState: async (_: unknown, { signal }: { signal?: AbortSignal }) => {
      this.stateRequests++
      await this.obstacle?.(signal)
      return this.state
    },
    read: async (_: unknown, from: number, { maxMessages }: { maxMessages: number }) => {
      const reader = new ScriptedReader(from, maxMessages)
      this.readers.push(reader)
      return reader
    },
    sequenceAt: async () => this.first,
    messageAt: async (_: unknown, sequence: number) => {
      const stored = this.stored.get(sequence)
      return stored && sequence >= this.first && sequence <= this.last ? { ...stored, delivery: 0 } : undefined
    },
  } as unknown as Mesh

  get state(): StreamState {
    const { epochs, purged, first: firstSequence, last: lastSequence } = this
    const description = formatStreamMetadata(dog, { epochs, purged })
    return { description, created: '', firstSequence, lastSequence, messages: lastSequence - firstSequence + 1 }
  }

  /** Resolves with the reader of this index, from 0, when it is opened. */
  reader(index: number): Promise<ScriptedReader> {
    return eventually(`reader ${index}`, () => this.readers[index])
  }

  /** A message with one transaction, whose index is `index`: by default, the sequence. */
  entry(
    sequence: number,
    {
      epoch = 'e1',
      index = sequence,
      id = `t${index}`,
      ...more
    }: Partial<Transaction> & { epoch?: string; index?: number } = {},
  ): Stored {
    return this.frame(sequence, index, [{ id, ...more }], epoch)
  }

  /** A message with these transactions, the first of which has the index `first`: by default each `t<index>`. */
  frame(sequence: number, first: number, transactions: number | Partial<Transaction>[], epoch = 'e1'): Stored {
    const list: Partial<Transaction>[] =
      typeof transactions === 'number' ? Array.from({ length: transactions }, () => ({})) : transactions
    const parts = list.map((each, offset) => encodePart(...transactionAt(first + offset, each), 'node1'))
    const stored = { ...encodeFrame({ node: 'node1', epoch, first }, parts), sequence, time: Date.now() }
    this.stored.set(sequence, stored)
    return stored
  }

  /** The messages `from` to `to`, with one transaction each; extends the stream if necessary. */
  entries(from: number, to: number, epoch = 'e1', firstIndex = from): Stored[] {
    this.last = Math.max(this.last, to)
    return Array.from({ length: to - from + 1 }, (_, offset) =>
      this.entry(from + offset, { epoch, index: firstIndex + offset }),
    )
  }

  /** Messages of these sizes from `sequence` on, whose transactions have the indexes from `first` on; extends the stream if necessary. */
  frames(sizes: readonly number[], { sequence = 1, first = 1, epoch = 'e1' } = {}): Stored[] {
    this.last = Math.max(this.last, sequence + sizes.length - 1)
    let next = first
    return sizes.map((size, offset) => {
      const stored = this.frame(sequence + offset, next, size, epoch)
      next += size
      return stored
    })
  }
}

function transactionAt(
  index: number,
  { id = `t${index}`, ...more }: Partial<Transaction>,
): [Transaction, Transaction['writes']] {
  const transaction: Transaction = {
    id,
    timestamp: makeTimestamp(index, 0, 'node1'),
    writes: [insert('dog', { id })],
    ...more,
  }
  return [transaction, transaction.writes]
}
