// The only writer of one local stream: its queue, the messages in flight, the stored position and the epoch.

import { randomUUID } from 'node:crypto'
import type { PublishedPosition } from '../../host/host.ts'
import { type Headers, type Mesh, MeshError, type StreamState, type TableName } from '../../mesh/mesh.ts'
import { Fifo } from '../../util/fifo.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { endEpochs, formatStreamMetadata, parseStreamMetadata, withPurge } from '../stream-metadata.ts'
import { readStoredIds } from './stored-ids.ts'

/** One table's part of a transaction. */
export type StreamPart = {
  id: string
  data: Uint8Array
  headers(epoch: string): Headers
  /** Called once, when the stream has stored it. */
  stored(position: StreamPosition): void
}
export type StreamPosition = { epoch: string; sequence: number }

export type StreamWriterOptions = {
  table: TableName
  /** Name of the local node. */
  node: string
  mesh: Mesh
  /** ms for each request. */
  requestTimeout: number
  /** Maximum number of messages in flight. */
  window: number
  /** The position that the host stored for this table; undefined when it stored none. */
  loadPosition(): Promise<PublishedPosition | undefined>
  /** Stores where an epoch begins, before any message is appended in it. */
  savePosition(position: StreamPosition): Promise<void>
  /** Appending stopped until the next `resync`. */
  interrupted(error: MeshError): void
  /** The stream has stored more of the queue. */
  onGrowth?(): void
}

/**
 * The stream has neither holes nor repeats: each append names the expected last sequence and the id of the message ahead of it,
 * and the server rejects a message that does not follow. After any failure `resync` reads the stream's position, and appending
 * continues after it.
 */
export class StreamWriter {
  readonly #options: StreamWriterOptions
  /** Not known to be stored. The entry at index `i` gets the sequence `#stored + 1 + i`. */
  readonly #queue = new Fifo<StreamPart>()
  /** Number of entries in flight, from the head of the queue. */
  #sent = 0
  /** The last sequence whose part was reported as stored. */
  #stored = 0
  /** The stream's last sequence. Greater than `#stored` while the outbox still shows entries that the stream has stored already. */
  #last = 0
  #epoch = ''
  #ready = false
  /** Acknowledgements of appends before the last interruption are ignored. */
  #generation = 0
  #onAcknowledgement = this.#createAcknowledgementHandler()
  #onDrained: (() => void) | undefined
  #paused = false
  #scheduled = false
  readonly #exclusive = new SerialQueue()
  /** Ids of the messages beyond `#stored` at the last resync, by sequence. */
  #storedIds = new Map<number, string>()
  /** The stream holds messages that are not from this outbox: it continues in a new epoch. */
  #divergent = false

  constructor(options: StreamWriterOptions) {
    this.#options = options
  }

  /** In step with the stream, able to send. */
  get ready(): boolean {
    return this.#ready
  }

  get queued(): number {
    return this.#queue.length
  }

  /** The end of the stream; epoch '' before the first resync. */
  get position(): StreamPosition {
    return { epoch: this.#epoch, sequence: this.#last }
  }

  push(part: StreamPart): void {
    this.#queue.push(part)
    this.#reportStored()
    if (this.#sent === 0) this.#sendQueued()
    else this.#scheduleSend()
  }

  /**
   * Creates the stream if it is missing, reads its position and continues after it. The number of queued entries that the stream
   * stored without an acknowledgement is its last sequence minus the last acknowledged one; their ids are checked too. Never
   * runs during a purge, because both change the description. Rejects as the mesh and the host do.
   */
  resync(): Promise<void> {
    this.#interrupt()
    return this.#runExclusive(() => this.#resync())
  }

  async #resync(): Promise<void> {
    const { mesh, table } = this.#options
    const known =
      this.#epoch === '' ? await this.#options.loadPosition() : { epoch: this.#epoch, sequence: this.#stored }
    // The description of a new stream names no current epoch: a store that lost a description may create the stream over old messages.
    const ended = { epochs: endEpochs([], known, 0), purged: [] }
    const state = await mesh.ensureStream(table, formatStreamMetadata(table, ended))
    if (isInconsistent(state)) throw new Error(`the state of stream ${table.database}.${table.table} is inconsistent`)
    const { epochs, purged } = parseStreamMetadata(state.description)
    const current = epochs.findLast((each) => each.last === undefined)
    const last = state.lastSequence
    if (known && current?.epoch === known.epoch && last >= known.sequence && !this.#divergent) {
      const from = Math.max(known.sequence + 1, state.firstSequence)
      this.#storedIds = await readStoredIds(this.#options, from, last, known.epoch)
      this.#resume(known.epoch, known.sequence, last)
    } else if (current && !known) await this.#startEpoch(current.epoch, last)
    else {
      const epoch = newEpoch()
      const all = [...endEpochs(epochs, known, last), { epoch, from: last + 1 }]
      await mesh.describeStream(table, formatStreamMetadata(table, { epochs: all, purged }))
      await this.#startEpoch(epoch, last)
    }
    this.#divergent = false
    this.#ready = true
    this.#reportStored()
  }

  /**
   * Continues in an epoch that the stream's description already names. The host stores its position before any message is
   * appended in it: after a crash in between, no message counts as stored that is not.
   */
  async #startEpoch(epoch: string, sequence: number): Promise<void> {
    await this.#options.savePosition({ epoch, sequence })
    this.#resume(epoch, sequence, sequence)
  }

  #resume(epoch: string, stored: number, last: number): void {
    this.#epoch = epoch
    this.#stored = stored
    this.#last = last
  }

  /**
   * Purges between two messages. The description names the purged range before the purge: otherwise a subscriber would report
   * those messages as expired.
   */
  purge(options: { keep?: number; before?: number }): Promise<void> {
    return this.#runExclusive(async () => {
      const { mesh, table, node, requestTimeout: timeout } = this.#options
      const state = await mesh.streamState({ node, ...table }, { timeout })
      if (!state) return
      const { firstSequence, lastSequence } = state
      const end = options.before === undefined ? lastSequence - (options.keep ?? 0) : options.before - 1
      const metadata = parseStreamMetadata(state.description)
      const purged = withPurge(metadata, firstSequence, Math.min(end, lastSequence))
      if (purged === metadata) return
      await mesh.describeStream(table, formatStreamMetadata(table, purged))
      await mesh.purgeStream(table, options)
    })
  }

  /** Runs `work` with nothing in flight, one call at a time. */
  #runExclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(async () => {
      this.#paused = true
      try {
        if (this.#sent > 0)
          await new Promise<void>((resolve) => {
            this.#onDrained = resolve
          })
        return await work()
      } finally {
        this.#paused = false
        this.#sendQueued()
      }
    })
  }

  /** The client writes to its socket once in each turn of the event loop, so everything pushed in one turn is sent together. */
  #scheduleSend(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#sendQueued()
    })
  }

  #sendQueued(): void {
    const { mesh, table, window } = this.#options
    while (this.#ready && !this.#paused && this.#sent < Math.min(window, this.queued)) {
      const part = this.#queue.at(this.#sent)!
      const sequence = this.#stored + this.#sent
      // Without the id, a foreign message at that sequence would pass for the one in flight.
      const ahead = this.#sent > 0 ? this.#queue.at(this.#sent - 1) : undefined
      const expected = ahead ? { sequence, id: ahead.id } : { sequence }
      this.#sent++
      mesh.append(table, { data: part.data, headers: part.headers(this.#epoch) }, expected, this.#onAcknowledgement)
    }
  }

  /** For appends of the current generation only. */
  #createAcknowledgementHandler(): (error: MeshError | undefined, sequence: number) => void {
    const generation = this.#generation
    return (error, sequence) => {
      if (generation !== this.#generation) return
      if (error || sequence !== this.#stored + 1) return this.#fail(error)
      this.#last = sequence
      this.#sent--
      this.#reportStored()
      if (this.#sent === 0) this.#notifyDrained()
      this.#sendQueued()
    }
  }

  /** Reports every queued part that the stream has stored. */
  #reportStored(): void {
    const before = this.#stored
    while (this.#ready && this.#stored < this.#last && this.queued > 0) {
      const part = this.#queue.at(0)!
      const id = this.#storedIds.get(this.#stored + 1)
      if (id !== undefined && id !== part.id) {
        // The database was restored from a backup, or another writer used this stream: no queued part is stored.
        this.#divergent = true
        return this.#fail(new MeshError('wrong_sequence', `the stream has ${id} where ${part.id} was expected`))
      }
      if (id !== undefined) this.#storedIds.delete(this.#stored + 1)
      this.#queue.shift()
      this.#stored++
      part.stored({ epoch: this.#epoch, sequence: this.#stored })
    }
    if (this.#stored > before) this.#options.onGrowth?.()
  }

  #fail(error: MeshError | undefined): void {
    this.#interrupt()
    this.#options.interrupted(error ?? new MeshError('wrong_sequence', 'acknowledged out of order'))
  }

  #interrupt(): void {
    this.#ready = false
    this.#generation++
    this.#onAcknowledgement = this.#createAcknowledgementHandler()
    this.#sent = 0
    this.#notifyDrained()
  }

  #notifyDrained(): void {
    this.#onDrained?.()
    this.#onDrained = undefined
  }
}

const newEpoch = () => randomUUID().replaceAll('-', '').slice(0, 16)

/** After store errors nats-server 2.10 reports more messages than its sequences allow. */
const isInconsistent = ({ messages, firstSequence, lastSequence }: StreamState) =>
  messages > Math.max(0, lastSequence - firstSequence + 1)
