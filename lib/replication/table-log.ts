// One table's own stream, as its only writer sees it: what is queued, what is in flight, what is stored, in which epoch.

import { randomUUID } from 'node:crypto'
import type { Published } from '../host.ts'
import { type Headers, type Mesh, MeshError, type StreamState, type TableName } from '../mesh/mesh.ts'
import { formatLabel, type Label, parseLabel } from './wire.ts'

/** One table's part of a transaction on its way into the stream. */
export type Part = {
  id: string
  data: Uint8Array
  headers(epoch: string): Headers
  /** Called once, when the stream has it, with its position. */
  stored(position: Position): void
}
export type Position = { epoch: string; sequence: number }

export type TableLogOptions = {
  table: TableName
  mesh: Mesh
  /** Most messages in flight. */
  window: number
  /** What the host remembers of this table; undefined at the first time, or when it remembers nothing. */
  recall(): Promise<Published | undefined>
  /** Has the host remember where an incarnation begins, before anything is sent in it. */
  remember(position: Position): Promise<void>
  /** Sending stopped: the stream has to be looked at before it can go on. */
  interrupted(error: MeshError): void
}

/**
 * The stream has neither holes nor repeats: each message names the last sequence it expects, and the server refuses what does
 * not follow. Whatever goes wrong on the way, the stream itself says how far it got, and sending goes on behind that.
 */
export class TableLog {
  readonly #options: TableLogOptions
  /** Not yet known to be stored, oldest first, from `#head` on; the one at `#head + i` has the sequence `#stored + 1 + i`. */
  #queue: Part[] = []
  #head = 0
  /** How many behind `#head` are in flight. */
  #sent = 0
  /** The last sequence whose part we have seen and told. */
  #stored = 0
  /** The stream's last sequence. Beyond `#stored` while an outbox is still being read whose next entries the stream has already. */
  #last = 0
  #epoch = ''
  #ready = false
  /** Answers to what was sent before the last look at the stream are void. */
  #generation = 0
  #draining: (() => void) | undefined
  #paused = false
  #scheduled = false

  constructor(options: TableLogOptions) {
    this.#options = options
  }

  /** In step with the stream, able to send. */
  get ready(): boolean {
    return this.#ready
  }

  get queued(): number {
    return this.#queue.length - this.#head
  }

  /** Where the stream is; epoch '' before the first look at it. */
  get position(): Position {
    return { epoch: this.#epoch, sequence: this.#last }
  }

  push(part: Part): void {
    this.#queue.push(part)
    this.#settle()
    if (this.#sent === 0) this.#pump()
    else this.#pumpSoon()
  }

  /**
   * Looks at the stream, creating it when missing, and goes on behind what it holds. What of the queue it stored without our
   * knowing is decided by number: its last sequence minus the last acknowledged one. Rejects as the mesh and the host do.
   */
  async synchronize(): Promise<void> {
    const { mesh, table } = this.#options
    this.#interrupt()
    const known = this.#epoch === '' ? await this.#options.recall() : { epoch: this.#epoch, sequence: this.#stored }
    const state = await mesh.ensureStream(table, formatLabel(table, { epoch: newEpoch(), from: 1 }))
    const label = parseLabel(state.description)
    if (contradictsItself(state)) throw new Error(`the stream of ${table.database}.${table.table} contradicts itself`)
    if (known && label?.epoch === known.epoch && state.lastSequence >= known.sequence) {
      this.#epoch = known.epoch
      this.#stored = known.sequence
      this.#last = state.lastSequence
    } else if (known) {
      await this.#begin({
        epoch: newEpoch(),
        from: state.lastSequence + 1,
        previous: { ...known, last: known.sequence },
      })
    } else if (label) {
      await this.#options.remember({ epoch: label.epoch, sequence: state.lastSequence })
      this.#epoch = label.epoch
      this.#stored = this.#last = state.lastSequence
    } else {
      await this.#begin({ epoch: newEpoch(), from: state.lastSequence + 1 })
    }
    this.#ready = true
    this.#settle()
    this.#pump()
  }

  /** A new incarnation: remembered by the host first, so that whatever dies in between, nothing is taken for stored that is not. */
  async #begin(label: Label): Promise<void> {
    const { mesh, table } = this.#options
    const position = { epoch: label.epoch, sequence: label.from - 1 }
    await this.#options.remember(position)
    await mesh.describeStream(table, formatLabel(table, label))
    this.#epoch = position.epoch
    this.#stored = this.#last = position.sequence
  }

  /** Runs `work` with nothing in flight. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    this.#paused = true
    try {
      if (this.#sent > 0)
        await new Promise<void>((resolve) => {
          this.#draining = resolve
        })
      return await work()
    } finally {
      this.#paused = false
      this.#pump()
    }
  }

  /** The client writes to its socket once a turn: what is pushed in one turn goes out together. */
  #pumpSoon(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  #pump(): void {
    const { mesh, table, window } = this.#options
    // Below `#last` the stream has what comes next already.
    while (this.#ready && !this.#paused && this.#stored >= this.#last && this.#sent < Math.min(window, this.queued)) {
      const part = this.#queue[this.#head + this.#sent]!
      const expectedLast = this.#stored + this.#sent
      const generation = this.#generation
      this.#sent++
      mesh.append(table, { data: part.data, headers: part.headers(this.#epoch) }, expectedLast, (error, sequence) => {
        if (generation !== this.#generation) return
        if (error || sequence !== this.#stored + 1) return this.#fail(error)
        this.#last = sequence
        this.#sent--
        this.#settle()
        if (this.#sent === 0) this.#drained()
        this.#pump()
      })
    }
  }

  /** Tells every part that the stream is known to hold. */
  #settle(): void {
    while (this.#ready && this.#stored < this.#last && this.queued > 0) {
      const part = this.#queue[this.#head++]!
      this.#stored++
      if (this.#head >= 1024 && this.#head * 2 >= this.#queue.length) {
        this.#queue = this.#queue.slice(this.#head)
        this.#head = 0
      }
      part.stored({ epoch: this.#epoch, sequence: this.#stored })
    }
  }

  #fail(error: MeshError | undefined): void {
    this.#interrupt()
    this.#options.interrupted(error ?? new MeshError('wrong_sequence', 'acknowledged out of order'))
  }

  #interrupt(): void {
    this.#ready = false
    this.#generation++
    this.#sent = 0
    this.#drained()
  }

  #drained(): void {
    this.#draining?.()
    this.#draining = undefined
  }
}

const newEpoch = () => randomUUID().replaceAll('-', '').slice(0, 16)

/** After store errors 2.10 reports messages that its own sequences leave no room for. */
const contradictsItself = ({ messages, firstSequence, lastSequence }: StreamState) =>
  messages > Math.max(0, lastSequence - firstSequence + 1)
