// The parts of a checkpoint: the live position, the copy position, and what both keep. Each step changes one part only.

import type { Checkpoint } from '../../host/host.ts'

type Kept = Pick<
  Checkpoint,
  | 'applied'
  | 'quarantined'
  | 'missing'
  | 'gaps'
  | 'unrepairedGaps'
  | 'voided'
  | 'copy'
  | 'unannounced'
  | 'request'
  | 'caughtUpAt'
  | 'staleSince'
>

/** The part of a checkpoint that a subscriber moves. */
export type Position = Omit<Checkpoint, keyof Kept>

// Both run for every message: fields that are assigned one by one cost a fraction of spread ones.

export function positionOf(checkpoint: Checkpoint): Position {
  const { epoch, sequence, index, partial, lastId, unverified, startTime, replayUntil } = checkpoint
  const position: Position = { epoch, sequence }
  if (index !== undefined) position.index = index
  if (partial) position.partial = partial
  if (lastId !== undefined) position.lastId = lastId
  if (unverified) position.unverified = unverified
  if (startTime !== undefined) position.startTime = startTime
  if (replayUntil !== undefined) position.replayUntil = replayUntil
  return position
}

/** The fields that stay when the live position changes. */
export function keptFields(checkpoint: Partial<Checkpoint> = {}): Kept {
  const kept: Kept = {}
  const { applied, quarantined, missing, gaps, unrepairedGaps, voided, copy, unannounced } = checkpoint
  const { request, caughtUpAt, staleSince } = checkpoint
  if (applied) kept.applied = applied
  if (quarantined) kept.quarantined = quarantined
  if (missing) kept.missing = missing
  if (gaps) kept.gaps = gaps
  if (unrepairedGaps !== undefined) kept.unrepairedGaps = unrepairedGaps
  if (voided) kept.voided = voided
  if (copy) kept.copy = copy
  if (unannounced) kept.unannounced = unannounced
  if (request !== undefined) kept.request = request
  if (caughtUpAt !== undefined) kept.caughtUpAt = caughtUpAt
  if (staleSince !== undefined) kept.staleSince = staleSince
  return kept
}

/** The checkpoint with another copy position; undefined: without one. `isEmptied`: the table loses what it had from before. */
export function withCopy(
  { copy: _, staleSince, ...checkpoint }: Checkpoint,
  copy: Checkpoint['copy'],
  isEmptied = false,
): Checkpoint {
  return { ...checkpoint, ...(staleSince !== undefined && !isEmptied && { staleSince }), ...(copy && { copy }) }
}

export const isCheckpoint = (value: Partial<Checkpoint>): value is Checkpoint => value.sequence !== undefined
