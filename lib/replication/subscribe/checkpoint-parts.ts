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

export function positionOf(checkpoint: Checkpoint): Position {
  const { epoch, sequence, index, partial, lastId, startTime, replayUntil } = checkpoint
  return {
    epoch,
    sequence,
    ...(index !== undefined && { index }),
    ...(partial && { partial }),
    ...(lastId !== undefined && { lastId }),
    ...(startTime !== undefined && { startTime }),
    ...(replayUntil !== undefined && { replayUntil }),
  }
}

/** The fields that stay when the live position changes. */
export const keptFields = ({
  applied,
  quarantined,
  missing,
  gaps,
  unrepairedGaps,
  voided,
  copy,
  unannounced,
  request,
  caughtUpAt,
  staleSince,
}: Partial<Checkpoint> = {}): Kept => ({
  ...(applied && { applied }),
  ...(quarantined && { quarantined }),
  ...(missing && { missing }),
  ...(gaps && { gaps }),
  ...(unrepairedGaps !== undefined && { unrepairedGaps }),
  ...(voided && { voided }),
  ...(copy && { copy }),
  ...(unannounced && { unannounced }),
  ...(request !== undefined && { request }),
  ...(caughtUpAt !== undefined && { caughtUpAt }),
  ...(staleSince !== undefined && { staleSince }),
})

/** The checkpoint with another copy position; undefined: without one. `isEmptied`: the table loses what it had from before. */
export function withCopy(
  { copy: _, staleSince, ...checkpoint }: Checkpoint,
  copy: Checkpoint['copy'],
  isEmptied = false,
): Checkpoint {
  return { ...checkpoint, ...(staleSince !== undefined && !isEmptied && { staleSince }), ...(copy && { copy }) }
}

export const isCheckpoint = (value: Partial<Checkpoint>): value is Checkpoint => value.sequence !== undefined
