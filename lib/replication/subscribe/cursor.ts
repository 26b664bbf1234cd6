// Where one subscription is in the other node's stream: found anew whenever reading begins, moved over what is gone, and each
// transaction that can no longer be had told as a gap, once, with its bounds and the reason.

import type { GapReason } from '../../events/events.ts'
import type { Checkpoint, RemoteTable, RemoteTransaction } from '../../host/host.ts'
import { type Mesh, MeshError, type StreamState } from '../../mesh/mesh.ts'
import {
  classifyGap,
  type EpochRange,
  epochAfter,
  parseStreamMetadata,
  type StreamMetadata,
} from '../stream-metadata.ts'
import type { Applier, Position } from './applier.ts'

export type CursorOptions = {
  source: RemoteTable
  mesh: Mesh
  applier: Applier
  requestTimeout: number
  gap(from: number, to: number, reason: GapReason): void
}

const emptyCheckpoint: Checkpoint = { epoch: '', sequence: 0 }

export class Cursor {
  readonly #options: CursorOptions
  /** The stream was found to end before us, in the incarnation we are in; and then its writer said the same. */
  #streamBehind = false
  #streamBehindConfirmed = false

  constructor(options: CursorOptions) {
    this.#options = options
  }

  get checkpoint(): Checkpoint {
    return this.#options.applier.checkpointOf(this.#options.source) ?? emptyCheckpoint
  }

  /** Compares the checkpoint with what the stream says of itself, and moves it over what is gone. Rejects as the mesh and the host do. */
  async resume(signal: AbortSignal): Promise<StreamState> {
    const { source, applier } = this.#options
    const known = await applier.loadCheckpoint(source)
    const state = await this.#state(signal)
    const metadata = parseStreamMetadata(state.description)
    // A subscription that nobody agreed on a start for begins at the end.
    if (!known)
      await applier.move(source, { epoch: epochAfter(metadata, state.lastSequence), sequence: state.lastSequence })
    await this.#advanceEpochs(metadata, (next) => this.checkpoint.sequence < next.from - 1)
    const { sequence } = this.checkpoint
    if (sequence > state.lastSequence) await this.#handleStreamBehind(metadata, state)
    else {
      this.#streamBehind = false
      this.#streamBehindConfirmed = false
      if (state.firstSequence > sequence + 1) await this.#skipTo(state.firstSequence - 1, metadata, state.firstSequence)
    }
    return state
  }

  /** What the other node announces of its stream. */
  onPeerPosition(epoch: string, last: number): void {
    if (this.#streamBehind && epoch === this.checkpoint.epoch && last < this.checkpoint.sequence)
      this.#streamBehindConfirmed = true
  }

  advance(transactions: RemoteTransaction[], position: Position): Promise<number> {
    return this.#options.applier.apply(this.#options.source, transactions, position)
  }

  /** The next message there is has `sequence`: what lies before it is gone. */
  async skipHole(sequence: number, signal: AbortSignal): Promise<void> {
    const state = await this.#state(signal)
    await this.#skipTo(sequence - 1, parseStreamMetadata(state.description), state.firstSequence)
  }

  /** A message of another epoch: the stream's description says where it began and what of the last one is lost. */
  async enterEpoch(epoch: string, sequence: number, signal: AbortSignal): Promise<void> {
    const metadata = parseStreamMetadata((await this.#state(signal)).description)
    const { epochs } = metadata
    const known = epochs.slice(0, epochs.findIndex((each) => each.epoch === epoch) + 1)
    await this.#advanceEpochs({ ...metadata, epochs: known }, () => false)
    if (this.checkpoint.epoch !== epoch)
      await this.#startEpoch(epoch, sequence - 1, this.checkpoint.sequence + 1, 'recreated')
  }

  /**
   * The message at our place is another one than we read: stream and database of the other node went back in time together.
   * What we applied of the time that was lost stays; what is there now is read again from the beginning, told as a gap.
   */
  async rewind({ firstSequence, lastSequence }: StreamState): Promise<void> {
    const { epoch, sequence } = this.checkpoint
    const position = { epoch, sequence: firstSequence - 1, replayUntil: Math.max(lastSequence, sequence) }
    await this.#moveTo(position, firstSequence, sequence, 'rewound')
  }

  async #state(signal: AbortSignal): Promise<StreamState> {
    const { source, mesh, requestTimeout } = this.#options
    const state = await mesh.streamState(source, { timeout: requestTimeout, signal })
    if (!state) throw new MeshError('not_found', `${source.node} has no stream of this table yet`)
    return state
  }

  /**
   * Goes from incarnation to incarnation of the stream, up to the last of `metadata` or until `stop` says that what the stream
   * still holds of the one we are in is to be read first. What was acknowledged in one that is over and is not there any more
   * is a gap.
   */
  async #advanceEpochs({ epochs }: StreamMetadata, stop: (next: EpochRange) => boolean): Promise<void> {
    while (this.checkpoint.epoch !== '' && epochs.length > 0) {
      const { epoch, sequence } = this.checkpoint
      if (epoch === epochs.at(-1)!.epoch) return
      const index = epochs.findIndex((each) => each.epoch === epoch)
      // One that began at 0 is told of only because its stream is gone.
      const next = epochs.slice(index + 1).find(({ from }) => from > 0)
      if (!next) throw new MeshError('rejected', 'the stream tells of no incarnation that its messages could be of')
      if (index >= 0 && stop(next)) return
      // Of an incarnation that nobody tells of any more, at least the next one is lost.
      const lost = index >= 0 ? (epochs[index]!.last ?? sequence) : sequence + 1
      // What we had read beyond what its writer knew to be stored comes again, first of all: it lay in the outbox.
      const replayed = index >= 0 && next.from <= sequence ? Math.max(0, sequence - lost) : 0
      // One that goes on behind older messages has them from a copy.
      await this.#startEpoch(
        next.epoch,
        next.from - 1 + replayed,
        lost,
        next.from > 1 ? 'rewound' : 'recreated',
        replayed,
      )
    }
  }

  /** Fewer messages than we applied. A writer that lost some begins a new epoch; one that does not know of it went back in time. */
  async #handleStreamBehind({ epochs }: StreamMetadata, state: StreamState): Promise<void> {
    if (epochs.length > 0 && !this.#streamBehindConfirmed) {
      this.#streamBehind = true
      throw new MeshError('not_found', 'the stream ends before what was applied; its node is to begin a new epoch')
    }
    await this.rewind(state)
  }

  /**
   * Goes on in `epoch` behind `sequence`; `lastLost` is the last of the epoch before, which we shall not see. `replayed`: so
   * many messages up to there we applied in the epoch before, and the last of them last.
   */
  #startEpoch(epoch: string, sequence: number, lastLost: number, reason: GapReason, replayed = 0): Promise<void> {
    const { lastMessageId } = this.checkpoint
    const position = { epoch, sequence, ...(replayed > 0 && lastMessageId !== undefined && { lastMessageId }) }
    return this.#moveTo(position, this.checkpoint.sequence + 1, lastLost, reason, replayed)
  }

  /** Goes on behind `to`, in the same epoch. */
  async #skipTo(to: number, metadata: StreamMetadata, firstSequence: number): Promise<void> {
    for (const gap of classifyGap(metadata, this.checkpoint.sequence + 1, to, firstSequence))
      await this.#moveTo({ epoch: this.checkpoint.epoch, sequence: gap.to }, gap.from, gap.to, gap.reason)
  }

  /** To another place; `from` to `to` are lost by that, if there are any. */
  async #moveTo(position: Position, from: number, to: number, reason: GapReason, replayed = 0): Promise<void> {
    const { source, applier, gap } = this.#options
    const { epoch, startTime, replayUntil } = this.checkpoint
    const lost = Math.max(0, to - from + 1)
    const kept = { ...(startTime && { startTime }), ...(replayUntil && epoch === position.epoch && { replayUntil }) }
    await applier.move(source, { ...kept, ...position }, { lost, replayed })
    if (lost > 0) gap(from, to, reason)
  }
}
