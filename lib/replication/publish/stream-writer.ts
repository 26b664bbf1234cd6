// One table's own stream, as its only writer sees it: what is queued, what is in flight, what is stored, in which epoch.

import { randomUUID } from 'node:crypto'
import type { PublishedPosition } from '../../host/host.ts'
import { type Headers, type Mesh, MeshError, type StreamState, type TableName } from '../../mesh/mesh.ts'
import { Fifo } from '../../util/fifo.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { type EpochRange, formatStreamMetadata, parseStreamMetadata, withPurge } from '../stream-metadata.ts'
import { messageEpoch, messageId } from '../wire.ts'

/** One table's part of a transaction on its way into the stream. */
export type StreamPart = {
  id: string
  data: Uint8Array
  headers(epoch: string): Headers
  /** Called once, when the stream has it, with its position. */
  stored(position: StreamPosition): void
}
export type StreamPosition = { epoch: string; sequence: number }

export type StreamWriterOptions = {
  table: TableName
  /** Our own name. */
  node: string
  mesh: Mesh
  /** ms for each request. */
  requestTimeout: number
  /** Most messages in flight. */
  window: number
  /** What the host remembers of this table; undefined at the first time, or when it remembers nothing. */
  loadPosition(): Promise<PublishedPosition | undefined>
  /** Has the host remember where an incarnation begins, before anything is sent in it. */
  savePosition(position: StreamPosition): Promise<void>
  /** Sending stopped: the stream has to be looked at before it can go on. */
  interrupted(error: MeshError): void
  /** The stream has more of the queue than before. */
  onGrowth?(): void
}

/**
 * The stream has neither holes nor repeats: each message names the last sequence it expects, and the message ahead of it, and
 * the server refuses what does not follow. Whatever goes wrong on the way, the stream itself says how far it got, and sending goes on behind that.
 */
export class StreamWriter {
  readonly #options: StreamWriterOptions
  /** Not yet known to be stored; the one behind `i` others has the sequence `#stored + 1 + i`. */
  readonly #queue = new Fifo<StreamPart>()
  /** How many of them, the oldest, are in flight. */
  #sent = 0
  /** The last sequence whose part we have seen and told. */
  #stored = 0
  /** The stream's last sequence. Beyond `#stored` while an outbox is still being read whose next entries the stream has already. */
  #last = 0
  #epoch = ''
  #ready = false
  /** Answers to what was sent before the last look at the stream are void. */
  #generation = 0
  #onAcknowledgement = this.#createAcknowledgementHandler()
  #onDrained: (() => void) | undefined
  #paused = false
  #scheduled = false
  readonly #turns = new SerialQueue()
  /** Ids of what the stream held beyond our knowledge when we last looked. */
  #storedIds = new Map<number, string>()
  /** The stream holds what is not ours: it goes on in a new incarnation. */
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

  /** Where the stream is; epoch '' before the first look at it. */
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
   * Looks at the stream, creating it when missing, and goes on behind what it holds. What of the queue it stored without our
   * knowing is decided by number: its last sequence minus the last acknowledged one; and checked by id. Not while it is being
   * purged: both change its description. Rejects as the mesh and the host do.
   */
  resync(): Promise<void> {
    this.#interrupt()
    return this.#runExclusive(() => this.#resync())
  }

  async #resync(): Promise<void> {
    const { mesh, table } = this.#options
    const known =
      this.#epoch === '' ? await this.#options.loadPosition() : { epoch: this.#epoch, sequence: this.#stored }
    // A new stream tells of no incarnation that goes on: a store that lost a description may make it over the messages that lie there.
    const ended = { epochs: endEpochs([], known, 0), purged: [] }
    const state = await mesh.ensureStream(table, formatStreamMetadata(table, ended))
    if (isInconsistent(state)) throw new Error(`the stream of ${table.database}.${table.table} contradicts itself`)
    const { epochs, purged } = parseStreamMetadata(state.description)
    const current = epochs.findLast((each) => each.last === undefined)
    const last = state.lastSequence
    if (known && current?.epoch === known.epoch && last >= known.sequence && !this.#divergent) {
      this.#storedIds = await this.#readIds(Math.max(known.sequence + 1, state.firstSequence), last, known.epoch)
      this.#resume(known.epoch, known.sequence, last)
    } else if (current && !known) await this.#startEpoch(current.epoch, last)
    else {
      const epoch = newEpoch()
      const all = [...endEpochs(epochs, known, last), { epoch: epoch, from: last + 1 }]
      await mesh.describeStream(table, formatStreamMetadata(table, { epochs: all, purged }))
      await this.#startEpoch(epoch, last)
    }
    this.#divergent = false
    this.#ready = true
    this.#reportStored()
  }

  /**
   * Goes on in an incarnation that the stream's description names already. The host remembers it before anything is sent in
   * it, so that whatever dies in between, nothing is taken for stored that is not.
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
   * What the stream holds that we have no acknowledgement of: at most what was in flight. What is not of our epoch is
   * somebody else's, whatever its id: other tables have parts of the same transactions.
   */
  async #readIds(from: number, to: number, epoch: string): Promise<Map<number, string>> {
    const { mesh, table, node, requestTimeout: timeout, window } = this.#options
    const ids = new Map<number, string>()
    if (to < from) return ids
    const reader = await mesh.read({ node, ...table }, from, { timeout, maxMessages: window })
    // A reader that is lost, or finds nothing, must not be waited for.
    const timer = setTimeout(() => reader.close(), timeout)
    try {
      for (let sequence = from - 1; sequence < to; ) {
        for (const entry of await reader.next()) {
          ids.set(
            entry.sequence,
            messageEpoch(entry) === epoch ? messageId(entry) : `a message of '${messageEpoch(entry)}'`,
          )
          sequence = entry.sequence
        }
      }
    } finally {
      clearTimeout(timer)
      reader.close()
    }
    return ids
  }

  /** Between two messages. The stream's description says what goes, before it goes: a subscriber must not take it for expired. */
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

  /** Runs `work` with nothing in flight; one after the other. */
  #runExclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run(async () => {
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

  /** The client writes to its socket once a turn: what is pushed in one turn goes out together. */
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
      // What is in flight ahead of it must be what it follows, not what somebody else put there.
      const ahead = this.#sent > 0 ? this.#queue.at(this.#sent - 1) : undefined
      const expected = ahead ? { sequence, id: ahead.id } : { sequence }
      this.#sent++
      mesh.append(table, { data: part.data, headers: part.headers(this.#epoch) }, expected, this.#onAcknowledgement)
    }
  }

  /** Of this generation: after the next look there is another. */
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

  /** Tells every part that the stream is known to hold. */
  #reportStored(): void {
    const before = this.#stored
    while (this.#ready && this.#stored < this.#last && this.queued > 0) {
      const part = this.#queue.at(0)!
      const id = this.#storedIds.get(this.#stored + 1)
      if (id !== undefined && id !== part.id) {
        // The database was restored, or somebody else wrote here: nothing of the queue is stored.
        this.#divergent = true
        return this.#fail(new MeshError('wrong_sequence', `the stream holds ${id} where ${part.id} was to be`))
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

/** The incarnations that end now, in a stream whose last sequence is `last`. The one we knew is told even when its stream is gone. */
function endEpochs(epochs: EpochRange[], known: StreamPosition | undefined, last: number): EpochRange[] {
  const ended = epochs.map((each) =>
    each.epoch === known?.epoch ? { ...each, last: known.sequence } : { ...each, last: each.last ?? last },
  )
  if (!known || ended.some(({ epoch }) => epoch === known.epoch)) return ended
  return [{ epoch: known.epoch, from: 0, last: known.sequence }, ...ended]
}

const newEpoch = () => randomUUID().replaceAll('-', '').slice(0, 16)

/** After store errors 2.10 reports messages that its own sequences leave no room for. */
const isInconsistent = ({ messages, firstSequence, lastSequence }: StreamState) =>
  messages > Math.max(0, lastSequence - firstSequence + 1)
