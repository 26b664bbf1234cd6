// What a checkpoint says about one transaction of the source's stream: the position alone does not tell, because quarantine, gaps and
// new epochs move it past transactions that the node does not have.

import type { AppliedRange, Checkpoint, SequenceRange } from '../../host/host.ts'
import { inRanges, rangesOf } from '../applied-ranges.ts'

/**
 * `ahead`: it was not reached yet. `copying`: a copy under way brings it. `missing`: it is in quarantine, or was lost or discarded.
 * `unknown`: the node was never in that epoch.
 */
export type AppliedState = 'applied' | 'ahead' | 'copying' | 'missing' | 'unknown'

/** How far one remote table is applied. Its source gets the same facts in a report. */
export type AppliedPosition = {
  epoch: string
  /** The last message all of whose transactions were applied or skipped, and the last transaction. */
  sequence: number
  index: number
  /** Not applied, in any epoch: in quarantine, lost, or discarded. */
  missing: Record<string, readonly SequenceRange[]>
  /** Not applied before a copy ends, in this epoch: the subscription began behind it, or the table was emptied. */
  copying: readonly SequenceRange[]
  /** A copy is under way: what is older than the epoch, and not known, may be in it. */
  isCopying: boolean
  /** The table was emptied, and the copy that brings the rows of this source again is under way. Not in reports: `copying` says it. */
  isEmptied?: boolean
}

/** `isReplaced`: the local table was emptied, and the copy that fills it is under way; from the other sources it is copied afterwards. */
export function positionOfCheckpoint(node: string, checkpoint: Checkpoint, isReplaced: boolean): AppliedPosition {
  const { epoch, sequence, index = 0, applied = {}, quarantined, missing, copy } = checkpoint
  const isEmptied = isReplaced || copy?.emptied === true
  const all: AppliedPosition['missing'] = { ...missing }
  for (const [each, ranges] of Object.entries(quarantined ?? {}))
    all[each] = [...(all[each] ?? []), ...ranges].sort(byFirst)
  const isCopying = copy !== undefined || isEmptied
  const ofSource = Object.hasOwn(applied, node) ? applied[node] : undefined
  const holes = isEmptied ? [[1, index] as SequenceRange] : holesOf(rangesOf(ofSource, epoch), index)
  return { epoch, sequence, index, missing: all, copying: isCopying && index > 0 ? holes : [], isCopying, isEmptied }
}

const byFirst = ([one]: SequenceRange, [other]: SequenceRange) => one - other

/** What is not in these sorted ranges, from 1 to `last`. */
function holesOf(ranges: readonly AppliedRange[], last: number): SequenceRange[] {
  const holes: SequenceRange[] = []
  let next = 1
  for (const [from, to] of ranges) {
    if (from > next && next <= last) holes.push([next, Math.min(from - 1, last)])
    next = Math.max(next, to + 1)
  }
  if (next <= last) holes.push([next, last])
  return holes
}

/** The position, where it is known that it includes this transaction of its epoch: a copy under way has those that were not counted before. */
export function atLeast(position: AppliedPosition, index: number): AppliedPosition {
  const { index: counted, copying, isCopying } = position
  if (index <= counted) return position
  return { ...position, index, copying: isCopying ? [...copying, [counted + 1, index]] : copying }
}

/**
 * Of the transaction with this index of this epoch. `isEarlier`: whether the epoch is an earlier one than that of the position; undefined
 * if that is not known.
 */
export function stateIn(position: AppliedPosition, epoch: string, index: number, isEarlier?: boolean): AppliedState {
  const isSame = epoch === position.epoch
  if (isSame && index > position.index) return 'ahead'
  if (!isSame && isEarlier !== true) return isEarlier === undefined ? 'unknown' : 'ahead'
  // Ranges of different kinds may overlap.
  const isMissing = rangesOf(position.missing as Record<string, SequenceRange[]>, epoch).some(
    ([from, to]) => index >= from && index <= to,
  )
  if (isMissing) return 'missing'
  const isCopied = isSame ? inRanges(position.copying, index) : position.isCopying
  return isCopied ? 'copying' : 'applied'
}
