// The position of one subscription in the remote stream. Checks it whenever reading begins, moves it over messages that are gone,
// and reports each such range once as a gap, with its bounds and the reason.

import type { GapReason } from '../../events/events.ts'
import type { Checkpoint, RemoteTable } from '../../host/host.ts'
import type { StartRequest } from '../../manifest/start-request.ts'
import { MeshError, type StreamState } from '../../mesh/mesh.ts'
import { type CopyStarts, noCopies } from '../copy/copies.ts'
import { UNKNOWN_END } from '../missing-ranges.ts'
import {
  classifyGap,
  type EpochRange,
  type GapBound,
  readStreamMetadata,
  type StreamMetadata,
  type StreamPosition,
} from '../stream-metadata.ts'
import type { Applier } from './applier.ts'
import { type Position, positionOf } from './checkpoint-parts.ts'
import {
  beginning,
  positionBeforeFirst,
  requestedPosition,
  type StartRequests,
  startPosition,
} from './start-position.ts'

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
  gap(gap: Gap): void
}

/**
 * Transactions that are gone: the running numbers of the first and the last one, and their number, as far as they are known.
 * `isRepaired`: a copy of all rows begins.
 */
export type Gap = {
  from?: number | undefined
  to?: number | undefined
  lost?: number | undefined
  reason: GapReason
  isRepaired: boolean
}

/** Transactions that may be gone: none if `to` is before `from`. */
type Loss = Pick<Gap, 'from' | 'to' | 'reason'>

/**
 * Where reading begins. `isCompared`: no message will tell whether the transaction at the position is the one that was applied; only the
 * state of the stream does.
 */
export type ResumedPosition = { state: StreamState; from: number; isCompared: boolean }

const nothing: Loss = { from: 1, to: 0, reason: 'expired' }
const emptyCheckpoint: Checkpoint = { epoch: '', sequence: 0 }

/** The last message of which something was applied. */
const lastTouched = ({ sequence, partial }: Checkpoint): number => (partial ? sequence + 1 : sequence)
const after = (index: number | undefined): number | undefined => (index === undefined ? undefined : index + 1)
const lengthOf = ({ from, to }: Pick<Gap, 'from' | 'to'>): number | undefined =>
  from === undefined || to === undefined ? undefined : Math.max(0, to - from + 1)

export class Cursor {
  readonly #options: CursorOptions & { copies: CopyStarts }
  /** The stream ends before the checkpoint, in the same epoch; and its writer has confirmed that. */
  #streamBehind = false
  #streamBehindConfirmed = false
  /** The stream ends before the last applied transaction, although none of its messages is missing. */
  #isTooShort = false
  /** The last position that the source reported. */
  #reported: StreamPosition | undefined

  constructor(options: CursorOptions) {
    this.#options = { copies: noCopies, ...options }
  }

  get checkpoint(): Checkpoint {
    return this.#options.applier.checkpointOf(this.#options.source) ?? emptyCheckpoint
  }

  /**
   * Compares the checkpoint with the state of the stream, and moves it into the epoch of the next message. Messages that are gone are
   * skipped when the next one arrives, which tells how many transactions they had; in an empty stream at once. Rejects as the mesh and
   * the host do.
   */
  async resume(signal: AbortSignal): Promise<ResumedPosition> {
    const { source, applier, begun } = this.#options
    const known = await applier.loadCheckpoint(source)
    const state = await this.#state(signal)
    const { firstSequence, lastSequence } = state
    const metadata = readStreamMetadata(state.description)
    if (!known && begun.has(source)) await this.#startOver(metadata, state, signal)
    else if (!known) await this.#start(await this.#startPosition(state, signal, this.#openStart?.startTime))
    await this.#beginRequest(state, signal)
    begun.add(source, this.checkpoint.request)
    await this.#enterFirstEpoch(metadata)
    await this.#advanceEpochs(
      metadata,
      firstSequence,
      signal,
      (next) => Math.max(this.checkpoint.sequence + 1, firstSequence) < next.from,
    )
    const isTooShort = this.#isTooShort && this.checkpoint.epoch === this.#reported?.epoch
    this.#isTooShort = false
    if (isTooShort) await this.rewind(state, signal)
    else if (lastTouched(this.checkpoint) > lastSequence) await this.#handleStreamBehind(metadata, state, signal)
    else {
      this.#streamBehind = false
      this.#streamBehindConfirmed = false
      if (firstSequence > lastSequence) await this.#skipTo(this.#endOf(state), metadata, firstSequence, signal)
    }
    return this.#resumedPosition(state)
  }

  /** If the message at the checkpoint holds the last applied transaction, it is read again, to check that this is still the same. */
  #resumedPosition(state: StreamState): ResumedPosition {
    const { sequence, partial, lastId, unverified } = this.checkpoint
    const isRead = lastId !== undefined && !partial && !unverified && sequence >= state.firstSequence
    return { state, from: isRead ? sequence : sequence + 1, isCompared: !isRead && !unverified && !partial }
  }

  /**
   * The source reports the position of its stream. Returns true when reading must begin again: the stream ends before the transaction at
   * the checkpoint, and does not grow.
   */
  onPeerPosition(position: StreamPosition): boolean {
    const { epoch, sequence, index = 0, unverified = false } = this.checkpoint
    const isSame = this.#reported?.epoch === position.epoch && this.#reported.sequence === position.sequence
    this.#reported = position
    if (position.epoch !== epoch) return false
    if (this.#streamBehind && position.sequence < lastTouched(this.checkpoint)) this.#streamBehindConfirmed = true
    const isShort = unverified && isSame && position.sequence <= sequence && position.index < index
    if (isShort) this.#isTooShort = true
    return isShort
  }

  /** The messages up to `end`, which is before the next message, are gone. */
  async skipHole(end: GapBound, signal: AbortSignal): Promise<void> {
    const state = await this.#state(signal)
    await this.#skipTo(end, readStreamMetadata(state.description), state.firstSequence, signal)
  }

  /** The next message begins behind this index, although no message is missing: the stream is not the one that was read. */
  async skipIndexes(index: number): Promise<void> {
    const { epoch, sequence, index: before, unverified } = this.checkpoint
    const from = unverified ? 1 : after(before)
    await this.#moveTo({ epoch, sequence, index }, { from, to: index, reason: 'rewound' })
  }

  /** The next message is of another epoch. The description of the stream has its beginning, and what is lost of the previous epoch. */
  async enterEpoch(epoch: string, sequence: number, signal: AbortSignal): Promise<void> {
    const { description, firstSequence } = await this.#state(signal)
    const metadata = readStreamMetadata(description)
    const { epochs } = metadata
    const known = epochs.slice(0, epochs.findIndex((each) => each.epoch === epoch) + 1)
    await this.#advanceEpochs({ ...metadata, epochs: known }, firstSequence, signal, () => false)
    const { index } = this.checkpoint
    if (this.checkpoint.epoch !== epoch)
      await this.#moveTo({ epoch, sequence: sequence - 1 }, { from: after(index), to: undefined, reason: 'recreated' })
  }

  /**
   * The transaction at the checkpoint is not the one that was applied: stream and database of the source were restored together.
   * Applied transactions stay. The stream is read again from its beginning, and what it had of this epoch is reported as a gap. The source
   * does not know what it has lost, and gets it back by a copy, as other subscribers of the local table do.
   */
  async rewind(state: StreamState, signal: AbortSignal): Promise<void> {
    const metadata = readStreamMetadata(state.description)
    const { epoch, index } = this.checkpoint
    const position = await positionBeforeFirst(this.#options, metadata, state, signal)
    const from = position.epoch === epoch ? after(position.index) : 1
    const replayUntil = Math.max(state.lastSequence, lastTouched(this.checkpoint))
    const loss = { from, to: index, reason: 'rewound' as const }
    await this.#moveTo({ ...position, replayUntil }, loss, { announce: epoch !== '' })
  }

  /** The subscription began before the stream existed. Its messages, or all of an epoch, may be gone before any of them was read. */
  async #enterFirstEpoch(metadata: StreamMetadata): Promise<void> {
    const { epoch, sequence, index } = this.checkpoint
    const isBefore = epoch === '' && sequence === 0 && index === 0
    const first = metadata.epochs.find(({ from }) => from <= 1)
    if (isBefore && first) await this.#moveTo({ epoch: first.epoch, sequence: 0, index: 0 }, nothing)
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

  /** The end of an empty stream. */
  #endOf({ firstSequence }: StreamState): GapBound {
    const { epoch } = this.checkpoint
    const sequence = firstSequence - 1
    if (epoch === '') return { sequence, index: sequence }
    const isKnown = this.#reported?.epoch === epoch && this.#reported.sequence === sequence
    return { sequence, index: isKnown ? this.#reported!.index : undefined }
  }

  /**
   * The checkpoint was lost, perhaps with the rows: continues at the first message that the stream has, and reports everything
   * before it as a gap. Earlier epochs that ended, which are gone, are gaps of their own.
   */
  async #startOver(metadata: StreamMetadata, state: StreamState, signal: AbortSignal): Promise<void> {
    const { source, applier, gap, copies } = this.#options
    const position = await positionBeforeFirst(this.#options, metadata, state, signal)
    const { epochs } = metadata
    const current = epochs.findIndex(({ epoch }) => epoch === position.epoch)
    const ends: (number | undefined)[] = epochs
      .slice(0, Math.max(current, 0))
      .flatMap(({ lastIndex = 0 }) => (lastIndex > 0 ? [lastIndex] : []))
    ends.push(position.index)
    const lost = ends.reduce<number>((sum, end) => sum + (end ?? 0), 0)
    const copy = copies.afterLoss(source, undefined, applier.wasDropped(source) ? 'table_created' : 'checkpoint_lost')
    const missing = [
      ...epochs.slice(0, Math.max(current, 0)).map(({ epoch }) => ({ epoch, from: 1, to: UNKNOWN_END })),
      { epoch: position.epoch, from: 1, to: position.index ?? UNKNOWN_END },
    ]
    await applier.move(source, position, { lost, newGaps: ends.length, copy, missing })
    for (const to of ends) gap({ from: 1, to, lost: to, reason: 'checkpoint_lost', isRepaired: copy !== undefined })
  }

  /**
   * Moves the checkpoint from epoch to epoch, up to the last one of `metadata`, or until `stop` returns true because the stream still
   * has messages of the current epoch. Acknowledged transactions of an ended epoch that are gone become a gap.
   */
  async #advanceEpochs(
    metadata: StreamMetadata,
    firstSequence: number,
    signal: AbortSignal,
    stop: (next: EpochRange) => boolean,
  ): Promise<void> {
    const { epochs } = metadata
    while (this.checkpoint.epoch !== '' && epochs.length > 0) {
      if (signal.aborted) throw new MeshError('aborted')
      const { epoch, sequence } = this.checkpoint
      if (epoch === epochs.at(-1)!.epoch) return
      const at = epochs.findIndex((each) => each.epoch === epoch)
      const ended = epochs[at]
      const later = epochs.slice(at + 1)
      // An epoch from 0 has no messages: its stream is gone.
      if (!later.some(({ from }) => from > 0))
        throw new MeshError('rejected', 'the description of the stream does not contain the epoch of its messages')
      const next = later[0]!
      if (ended && stop(next)) return
      // Unless it was overwritten, the rest of the epoch was before the next one, whether the source has confirmed it or not.
      const rest = next.from - 1
      if (ended && sequence < rest && (ended.last ?? 0) <= rest) {
        const index = ended.last === rest ? ended.lastIndex : undefined
        await this.#skipTo({ sequence: rest, index }, metadata, firstSequence, signal)
      }
      await this.#startEpoch(ended, next, firstSequence)
    }
  }

  /**
   * The stream has fewer messages than were applied. A writer that knows of the loss begins a new epoch; otherwise its database was
   * restored together with the stream.
   */
  async #handleStreamBehind({ epochs }: StreamMetadata, state: StreamState, signal: AbortSignal): Promise<void> {
    if (epochs.length > 0 && !this.#streamBehindConfirmed) {
      this.#streamBehind = true
      throw new MeshError('not_found', 'the stream ends before the checkpoint, waiting for a new epoch')
    }
    await this.rewind(state, signal)
  }

  /**
   * Continues in the epoch `next`. `ended`: the epoch of the checkpoint; undefined if the description no longer contains it, and
   * at least one transaction is lost.
   *
   * Transactions that were applied but never acknowledged to the writer are still in its outbox, and come first in the next epoch.
   * Unless the database is an older one: then other transactions are there, which only an id at the new position can show.
   */
  #startEpoch(ended: EpochRange | undefined, next: EpochRange, firstSequence: number): Promise<void> {
    const { index, lastId, unverified } = this.checkpoint
    const isOverwritten = next.from <= lastTouched(this.checkpoint) || unverified === true
    const isVerifiable = lastId !== undefined && (next.from === 0 || next.from >= firstSequence)
    const isCounted = isOverwritten && isVerifiable && ended?.lastIndex !== undefined && index !== undefined
    const replayed = isCounted ? Math.max(0, index - ended.lastIndex!) : 0
    const sequence = Math.max(0, next.from - 1)
    const last = replayed > 0 && { lastId: lastId!, unverified: true as const }
    const position = { epoch: next.epoch, sequence, index: replayed, ...last }
    // An epoch that begins after older messages continues a stream that was restored from a backup.
    const reason = next.from > 1 ? 'rewound' : 'recreated'
    const more = { replayed: next.from === 0 ? 0 : replayed, isUnrecorded: next.unrecorded === true }
    return this.#moveTo(position, { ...this.#lossOf(ended), reason }, more)
  }

  /** What is behind the checkpoint in its epoch. */
  #lossOf(ended: EpochRange | undefined): Pick<Gap, 'from' | 'to'> {
    const { sequence, index, unverified } = this.checkpoint
    const none = { from: 1, to: 0 }
    if (!ended) return { from: after(index) }
    const { last, lastIndex } = ended
    if (last === undefined) return none
    if (unverified && index! <= (lastIndex ?? index!)) return { from: 1, to: lastIndex }
    const isCounted = index !== undefined && lastIndex !== undefined
    return isCounted || sequence < last ? { from: after(index), to: lastIndex } : none
  }

  /** Continues after `end`, in the same epoch. */
  async #skipTo(end: GapBound, metadata: StreamMetadata, firstSequence: number, signal: AbortSignal): Promise<void> {
    const { epoch, sequence, index, lastId, unverified, replayUntil = 0 } = this.checkpoint
    // All that is gone is at or before the position, whose transaction comes later in this stream: the position does not go back.
    const isBefore = lastId !== undefined && end.index !== undefined && index! > end.index
    if (isBefore && (unverified || end.sequence >= replayUntil))
      return this.#moveTo({ epoch, sequence: end.sequence, index: index!, lastId, unverified: true }, nothing)
    // Whether this epoch began with what was applied before will not be known.
    const first = { sequence: sequence + 1, index: unverified ? 1 : after(index) }
    for (const { from, to, reason } of classifyGap(metadata, first, end, firstSequence)) {
      if (signal.aborted) throw new MeshError('aborted')
      const position = { epoch, sequence: to.sequence, ...(to.index !== undefined && { index: to.index }) }
      await this.#moveTo(position, { from: from.index, to: to.index, reason })
    }
  }

  /** Moves the checkpoint; `loss` is lost by that, and with `isUnrecorded` transactions that are in no stream. */
  async #moveTo(
    position: Position,
    loss: Loss,
    { replayed = 0, isUnrecorded = false, announce = false } = {},
  ): Promise<void> {
    const { source, applier, gap, copies } = this.#options
    const { epoch, sequence, startTime, replayUntil, copy: current } = this.checkpoint
    // The sequences of a stream that begins again do not compare.
    const isReplayed = replayUntil !== undefined && position.sequence >= sequence
    const kept = { ...(startTime && { startTime }), ...(isReplayed && { replayUntil }) }
    const lost = lengthOf(loss)
    const newGaps = (lost === 0 ? 0 : 1) + (isUnrecorded ? 1 : 0)
    const copy = newGaps === 0 ? undefined : copies.afterLoss(source, current, 'gap')
    const staleSince = newGaps > 0 ? this.#options.overdueSince?.() : undefined
    const missing = lost === 0 ? [] : [{ epoch, from: loss.from ?? 1, to: loss.to ?? UNKNOWN_END }]
    const more = { newGaps, lost: lost ?? 0, replayed, missing, copy, staleSince, announce }
    await applier.move(source, { ...kept, ...position }, more)
    if (lost !== 0) gap({ ...loss, lost, isRepaired: copy !== undefined })
    // Their number is not known.
    if (isUnrecorded) gap({ reason: 'unrecorded', isRepaired: copy !== undefined })
  }
}
