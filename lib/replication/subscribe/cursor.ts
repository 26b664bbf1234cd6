// The position of one subscription in the remote stream. Checks it whenever reading begins, moves it over messages that are gone,
// and reports each such range once as a gap, with its bounds and the reason.

import type { GapReason } from '../../events/events.ts'
import type { Checkpoint, RemoteTable } from '../../host/host.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import { MeshError, type StreamState } from '../../mesh/mesh.ts'
import { type CopyStarts, noCopies } from '../copy/copies.ts'
import {
  classifyGap,
  type EpochRange,
  epochAfter,
  readStreamMetadata,
  type StreamMetadata,
} from '../stream-metadata.ts'
import type { Applier } from './applier.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'
import { beginning, requestedPosition, type StartRequests, startPosition } from './start-position.ts'

/** The subscriptions that have stored a checkpoint: without one, they have lost it. */
export interface BegunSubscriptions {
  has(source: RemoteTable): boolean
  /** `request`: the last request that it has begun. */
  add(source: RemoteTable, request?: string): void
}

export type CursorOptions = {
  source: RemoteTable
  mesh: StartRequests
  applier: Applier
  begun: BegunSubscriptions
  requestTimeout: number
  /** When the subscription was made, in ms since 1970; undefined if that is not known. */
  since?: (() => number | undefined) | undefined
  /** What was asked for, unless the subscription has begun it. */
  requestedStart?: (() => StartRequest | undefined) | undefined
  /** Since when the subscription was not caught up, in ms since 1970, if that is too long: see Staleness. */
  overdueSince?: (() => number | undefined) | undefined
  /** Default: nothing is copied. */
  copies?: CopyStarts
  /** `isRepaired`: a copy of all rows begins. */
  gap(from: number, to: number, reason: GapReason, isRepaired: boolean): void
}

const emptyCheckpoint: Checkpoint = { epoch: '', sequence: 0 }

export class Cursor {
  readonly #options: CursorOptions & { copies: CopyStarts }
  /** The stream ends before the checkpoint, in the same epoch; and its writer has confirmed that. */
  #streamBehind = false
  #streamBehindConfirmed = false

  constructor(options: CursorOptions) {
    this.#options = { copies: noCopies, ...options }
  }

  get checkpoint(): Checkpoint {
    return this.#options.applier.checkpointOf(this.#options.source) ?? emptyCheckpoint
  }

  /** Compares the checkpoint with the state of the stream, and moves it over messages that are gone. Rejects as the mesh and the host do. */
  async resume(signal: AbortSignal): Promise<StreamState> {
    const { source, applier, begun } = this.#options
    const known = await applier.loadCheckpoint(source)
    const state = await this.#state(signal)
    const metadata = readStreamMetadata(state.description)
    if (!known && begun.has(source)) await this.#startOver(metadata, state)
    else if (!known) await this.#start(await this.#startPosition(state, signal, this.#openStart?.startTime))
    await this.#beginRequest(state, signal)
    begun.add(source, this.checkpoint.request)
    await this.#advanceEpochs(metadata, state.firstSequence, signal, (next) => this.checkpoint.sequence < next.from - 1)
    const { sequence } = this.checkpoint
    if (sequence > state.lastSequence) await this.#handleStreamBehind(metadata, state)
    else {
      this.#streamBehind = false
      this.#streamBehindConfirmed = false
      if (state.firstSequence > sequence + 1)
        await this.#skipTo(state.firstSequence - 1, metadata, state.firstSequence, signal)
    }
    return state
  }

  /** The source reports the position of its stream. */
  onPeerPosition(epoch: string, last: number): void {
    if (this.#streamBehind && epoch === this.checkpoint.epoch && last < this.checkpoint.sequence)
      this.#streamBehindConfirmed = true
  }

  /** The next message has this sequence: the messages before it are gone. */
  async skipHole(sequence: number, signal: AbortSignal): Promise<void> {
    const state = await this.#state(signal)
    await this.#skipTo(sequence - 1, readStreamMetadata(state.description), state.firstSequence, signal)
  }

  /** The next message is of another epoch. The description of the stream has its beginning, and what is lost of the previous epoch. */
  async enterEpoch(epoch: string, sequence: number, signal: AbortSignal): Promise<void> {
    const { description, firstSequence } = await this.#state(signal)
    const metadata = readStreamMetadata(description)
    const { epochs } = metadata
    const known = epochs.slice(0, epochs.findIndex((each) => each.epoch === epoch) + 1)
    await this.#advanceEpochs({ ...metadata, epochs: known }, firstSequence, signal, () => false)
    if (this.checkpoint.epoch !== epoch)
      await this.#startEpoch(epoch, sequence - 1, this.checkpoint.sequence + 1, 'recreated')
  }

  /**
   * The message at the checkpoint is not the one that was applied: stream and database of the source were restored together.
   * Applied transactions stay. The stream is read again from its beginning, and the range is reported as a gap.
   */
  async rewind({ firstSequence, lastSequence }: StreamState): Promise<void> {
    const { epoch, sequence } = this.checkpoint
    const position = { epoch, sequence: firstSequence - 1, replayUntil: Math.max(lastSequence, sequence) }
    await this.#moveTo(position, firstSequence, sequence, 'rewound')
  }

  #startPosition(state: StreamState | undefined, signal: AbortSignal, startTime?: string): Promise<Position> {
    const { source, mesh, applier, requestTimeout, since } = this.#options
    const request = { timeout: requestTimeout, signal }
    const options = { source, mesh, applier, since: since?.(), request }
    return state && startTime === undefined ? startPosition(options, state) : requestedPosition(options, startTime)
  }

  /** The first position. Whether the rows are copied is decided with it, once. */
  async #start(position: Position, start = this.#openStart): Promise<void> {
    const { source, applier, copies } = this.#options
    const request = start && { request: start.id }
    await applier.move(source, position, { copy: await copies.initial(source, start), ...request })
  }

  /** The request that the checkpoint does not name yet. */
  get #openStart(): StartRequest | undefined {
    const start = this.#options.requestedStart?.()
    return start && start.id > (this.checkpoint.request ?? '') ? start : undefined
  }

  /** The subscription had begun before it was asked for this. */
  async #beginRequest(state: StreamState, signal: AbortSignal): Promise<void> {
    const { source, applier, copies } = this.#options
    const start = this.#openStart
    if (!start) return
    const { startTime } = start
    const isMoved = startTime !== undefined && startTime !== this.checkpoint.startTime
    const position = isMoved ? await this.#startPosition(state, signal, startTime) : positionOf(this.checkpoint)
    const copy = copies.requested(source, this.checkpoint.copy, start)
    await applier.move(source, position, { copy, request: start.id })
  }

  async #state(signal: AbortSignal): Promise<StreamState> {
    const { source, mesh, requestTimeout, applier, begun } = this.#options
    const state = await mesh.streamState(source, { timeout: requestTimeout, signal })
    // The stream will be new: none of its messages may be skipped. A lost checkpoint waits for the stream, to report what is gone.
    if (!state && !applier.checkpointOf(source) && !begun.has(source)) {
      const { startTime } = this.#openStart ?? {}
      await this.#start({ ...beginning, ...(startTime !== undefined && { startTime }) })
    }
    if (!state) throw new MeshError('not_found', `${source.node} has no stream of this table yet`)
    return state
  }

  /**
   * The checkpoint was lost, perhaps with the rows: continues at the first message that the stream has, and reports everything
   * before it as a gap. Earlier streams, which are gone, are gaps of their own.
   */
  async #startOver({ epochs }: StreamMetadata, { firstSequence, lastSequence }: StreamState): Promise<void> {
    const { source, applier, gap, copies } = this.#options
    // An empty stream may have the first sequence 0.
    const sequence = Math.min(Math.max(firstSequence - 1, 0), lastSequence)
    // An epoch from 0 has no messages: its stream is gone.
    const ends = epochs.flatMap(({ from, last = 0 }) => (from === 0 && last > 0 ? [last] : []))
    ends.push(sequence)
    const position = { epoch: epochAfter({ epochs, purged: [] }, sequence), sequence }
    const lost = ends.reduce((sum, end) => sum + end, 0)
    const copy = copies.afterLoss(source, undefined, applier.wasDropped(source) ? 'table_created' : 'checkpoint_lost')
    await applier.move(source, position, { lost, newGaps: ends.length, copy })
    for (const end of ends) gap(1, end, 'checkpoint_lost', copy !== undefined)
  }

  /**
   * Moves the checkpoint from epoch to epoch, up to the last one of `metadata`, or until `stop` returns true because the stream still
   * has messages of the current epoch. Acknowledged messages of an ended epoch that are gone become a gap.
   */
  async #advanceEpochs(
    { epochs }: StreamMetadata,
    firstSequence: number,
    signal: AbortSignal,
    stop: (next: EpochRange) => boolean,
  ): Promise<void> {
    while (this.checkpoint.epoch !== '' && epochs.length > 0) {
      if (signal.aborted) throw new MeshError('aborted')
      const { epoch, sequence, lastMessageId } = this.checkpoint
      if (epoch === epochs.at(-1)!.epoch) return
      const index = epochs.findIndex((each) => each.epoch === epoch)
      // An epoch from 0 has no messages: its stream is gone.
      const next = epochs.slice(index + 1).find(({ from }) => from > 0)
      if (!next)
        throw new MeshError('rejected', 'the description of the stream does not contain the epoch of its messages')
      if (index >= 0 && stop(next)) return
      // The description no longer contains the old epoch: at least one message is lost.
      const lost = index >= 0 ? (epochs[index]!.last ?? sequence) : sequence + 1
      // Messages that were applied but never acknowledged to the writer are still in its outbox, and come first in the next epoch.
      // Unless the database is an older one: then other transactions are there, which only an id at the new position can show.
      const unconfirmed = index >= 0 && next.from <= sequence ? Math.max(0, sequence - lost) : 0
      const isVerifiable = lastMessageId !== undefined && next.from - 1 + unconfirmed >= firstSequence
      const replayed = isVerifiable ? unconfirmed : 0
      // An epoch that begins after older messages continues a stream that was restored from a backup.
      await this.#startEpoch(next.epoch, next.from - 1 + replayed, lost, next.from > 1 ? 'rewound' : 'recreated', {
        replayed,
        isUnrecorded: epochs.slice(index + 1, epochs.indexOf(next) + 1).some((each) => each.unrecorded),
      })
    }
  }

  /**
   * The stream has fewer messages than were applied. A writer that knows of the loss begins a new epoch; otherwise its database was
   * restored together with the stream.
   */
  async #handleStreamBehind({ epochs }: StreamMetadata, state: StreamState): Promise<void> {
    if (epochs.length > 0 && !this.#streamBehindConfirmed) {
      this.#streamBehind = true
      throw new MeshError('not_found', 'the stream ends before the checkpoint, waiting for a new epoch')
    }
    await this.rewind(state)
  }

  /**
   * Continues in `epoch` after `sequence`. `lastLost`: the last lost sequence of the previous epoch. `replayed`: number of messages
   * up to `sequence` that were applied in the previous epoch, the last of them at the checkpoint. `isUnrecorded`: before the epoch,
   * transactions were committed that are in no stream.
   */
  #startEpoch(
    epoch: string,
    sequence: number,
    lastLost: number,
    reason: GapReason,
    { replayed = 0, isUnrecorded = false } = {},
  ): Promise<void> {
    const { lastMessageId } = this.checkpoint
    const position = { epoch, sequence, ...(replayed > 0 && lastMessageId !== undefined && { lastMessageId }) }
    return this.#moveTo(position, this.checkpoint.sequence + 1, lastLost, reason, { replayed, isUnrecorded })
  }

  /** Continues after `to`, in the same epoch. */
  async #skipTo(to: number, metadata: StreamMetadata, firstSequence: number, signal: AbortSignal): Promise<void> {
    for (const gap of classifyGap(metadata, this.checkpoint.sequence + 1, to, firstSequence)) {
      if (signal.aborted) throw new MeshError('aborted')
      await this.#moveTo({ epoch: this.checkpoint.epoch, sequence: gap.to }, gap.from, gap.to, gap.reason)
    }
  }

  /** Moves the checkpoint; the range `from` to `to` is lost by that, unless it is empty. */
  async #moveTo(
    position: Position,
    from: number,
    to: number,
    reason: GapReason,
    { replayed = 0, isUnrecorded = false } = {},
  ): Promise<void> {
    const { source, applier, gap, copies } = this.#options
    const { epoch, startTime, replayUntil, copy: current } = this.checkpoint
    const lost = Math.max(0, to - from + 1)
    const kept = { ...(startTime && { startTime }), ...(replayUntil && epoch === position.epoch && { replayUntil }) }
    const newGaps = Math.min(lost, 1) + (isUnrecorded ? 1 : 0)
    const copy = newGaps > 0 ? copies.afterLoss(source, current, 'gap') : undefined
    const staleSince = newGaps > 0 ? this.#options.overdueSince?.() : undefined
    await applier.move(source, { ...kept, ...position }, { lost, newGaps, replayed, copy, staleSince })
    if (lost > 0) gap(from, to, reason, copy !== undefined)
    // Their number is not known.
    if (isUnrecorded) gap(position.sequence + 1, position.sequence, 'unrecorded', copy !== undefined)
  }
}
