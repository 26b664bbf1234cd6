// Where one subscription is in the other node's stream: found anew whenever reading begins, moved over what is gone, and each
// transaction that can no longer be had told as a gap, once, with its bounds and the reason.

import type { GapReason } from '../events.ts'
import type { Checkpoint, RemoteTransaction, Source } from '../host.ts'
import { type Mesh, MeshError, type StreamState } from '../mesh/mesh.ts'
import type { Applier, Place } from './applier.ts'
import { epochBehind, type Incarnation, parseLabel, type StreamLabel, whyGone } from './stream-label.ts'

export type CursorOptions = {
  source: Source
  mesh: Mesh
  applier: Applier
  requestTimeout: number
  gap(from: number, to: number, reason: GapReason): void
}

const nowhere: Checkpoint = { epoch: '', sequence: 0 }

export class Cursor {
  readonly #options: CursorOptions
  /** The stream was found to end before us, in the incarnation we are in; and then its writer said the same. */
  #beyond = false
  #confirmed = false

  constructor(options: CursorOptions) {
    this.#options = options
  }

  get checkpoint(): Checkpoint {
    return this.#options.applier.checkpointOf(this.#options.source) ?? nowhere
  }

  /** Compares the checkpoint with what the stream says of itself, and moves it over what is gone. Rejects as the mesh and the host do. */
  async locate(signal: AbortSignal): Promise<StreamState> {
    const { source, applier } = this.#options
    const known = await applier.recall(source)
    const state = await this.#state(signal)
    const label = parseLabel(state.description)
    // A subscription that nobody agreed on a start for begins at the end.
    if (!known)
      await applier.move(source, { epoch: epochBehind(label, state.lastSequence), sequence: state.lastSequence })
    await this.#enter(label, (next) => this.checkpoint.sequence < next.from - 1)
    const { sequence } = this.checkpoint
    if (sequence > state.lastSequence) await this.#isBeyond(label, state)
    else {
      this.#beyond = false
      this.#confirmed = false
      if (state.firstSequence > sequence + 1) await this.#skip(state.firstSequence - 1, label, state.firstSequence)
    }
    return state
  }

  /** What the other node announces of its stream. */
  announced(epoch: string, last: number): void {
    if (this.#beyond && epoch === this.checkpoint.epoch && last < this.checkpoint.sequence) this.#confirmed = true
  }

  advance(transactions: RemoteTransaction[], place: Place): Promise<number> {
    return this.#options.applier.apply(this.#options.source, transactions, place)
  }

  /** The next message there is has `sequence`: what lies before it is gone. */
  async jump(sequence: number, signal: AbortSignal): Promise<void> {
    const state = await this.#state(signal)
    await this.#skip(sequence - 1, parseLabel(state.description), state.firstSequence)
  }

  /** A message of another epoch: the stream's description says where it began and what of the last one is lost. */
  async cross(epoch: string, sequence: number, signal: AbortSignal): Promise<void> {
    const label = parseLabel((await this.#state(signal)).description)
    const { incarnations } = label
    const known = incarnations.slice(0, incarnations.findIndex((each) => each.epoch === epoch) + 1)
    await this.#enter({ ...label, incarnations: known }, () => false)
    if (this.checkpoint.epoch !== epoch)
      await this.#begin(epoch, sequence - 1, this.checkpoint.sequence + 1, 'recreated')
  }

  /**
   * The message at our place is another one than we read: stream and database of the other node went back in time together.
   * What we applied of the time that was lost stays; what is there now is read again from the beginning, told as a gap.
   */
  async rewind({ firstSequence, lastSequence }: StreamState): Promise<void> {
    const { epoch, sequence } = this.checkpoint
    const place = { epoch, sequence: firstSequence - 1, replayUntil: Math.max(lastSequence, sequence) }
    await this.#move(place, firstSequence, sequence, 'rewound')
  }

  async #state(signal: AbortSignal): Promise<StreamState> {
    const { source, mesh, requestTimeout } = this.#options
    const state = await mesh.streamState(source, { timeout: requestTimeout, signal })
    if (!state) throw new MeshError('not_found', `${source.node} has no stream of this table yet`)
    return state
  }

  /**
   * Goes from incarnation to incarnation of the stream, up to the last of `label` or until `stop` says that what the stream
   * still holds of the one we are in is to be read first. What was acknowledged in one that is over and is not there any more
   * is a gap.
   */
  async #enter({ incarnations }: StreamLabel, stop: (next: Incarnation) => boolean): Promise<void> {
    while (this.checkpoint.epoch !== '' && incarnations.length > 0) {
      const { epoch, sequence } = this.checkpoint
      if (epoch === incarnations.at(-1)!.epoch) return
      const index = incarnations.findIndex((each) => each.epoch === epoch)
      // One that began at 0 is told of only because its stream is gone.
      const next = incarnations.slice(index + 1).find(({ from }) => from > 0)
      if (!next) throw new MeshError('refused', 'the stream tells of no incarnation that its messages could be of')
      if (index >= 0 && stop(next)) return
      // Of an incarnation that nobody tells of any more, at least the next one is lost.
      const lost = index >= 0 ? (incarnations[index]!.last ?? sequence) : sequence + 1
      // What we had read beyond what its writer knew to be stored comes again, first of all: it lay in the outbox.
      const again = index >= 0 && next.from <= sequence ? Math.max(0, sequence - lost) : 0
      // One that goes on behind older messages has them from a copy.
      await this.#begin(next.epoch, next.from - 1 + again, lost, next.from > 1 ? 'rewound' : 'recreated', again)
    }
  }

  /** Fewer messages than we applied. A writer that lost some begins a new epoch; one that does not know of it went back in time. */
  async #isBeyond({ incarnations }: StreamLabel, state: StreamState): Promise<void> {
    if (incarnations.length > 0 && !this.#confirmed) {
      this.#beyond = true
      throw new MeshError('not_found', 'the stream ends before what was applied; its node is to begin a new epoch')
    }
    await this.rewind(state)
  }

  /**
   * Goes on in `epoch` behind `sequence`; `lostUpTo` is the last of the epoch before, which we shall not see. `again`: so
   * many messages up to there we applied in the epoch before, and the last of them last.
   */
  #begin(epoch: string, sequence: number, lostUpTo: number, reason: GapReason, again = 0): Promise<void> {
    const { lastId } = this.checkpoint
    const place = { epoch, sequence, ...(again > 0 && lastId !== undefined && { lastId }) }
    return this.#move(place, this.checkpoint.sequence + 1, lostUpTo, reason, again)
  }

  /** Goes on behind `to`, in the same epoch. */
  async #skip(to: number, label: StreamLabel, firstSequence: number): Promise<void> {
    for (const gap of whyGone(label, this.checkpoint.sequence + 1, to, firstSequence))
      await this.#move({ epoch: this.checkpoint.epoch, sequence: gap.to }, gap.from, gap.to, gap.reason)
  }

  /** To another place; `from` to `to` are lost by that, if there are any. */
  async #move(place: Place, from: number, to: number, reason: GapReason, again = 0): Promise<void> {
    const { source, applier, gap } = this.#options
    const { epoch, startTime, replayUntil } = this.checkpoint
    const lost = Math.max(0, to - from + 1)
    const kept = { ...(startTime && { startTime }), ...(replayUntil && epoch === place.epoch && { replayUntil }) }
    await applier.move(source, { ...kept, ...place }, { lost, again })
    if (lost > 0) gap(from, to, reason)
  }
}
