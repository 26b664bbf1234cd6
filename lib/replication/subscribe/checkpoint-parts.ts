// The parts of a checkpoint: the live position, the copy position, and what both keep. Each step changes one part only.

import type { Checkpoint } from '../../host/host.ts'

type Kept = Pick<Checkpoint, 'applied' | 'quarantined' | 'gaps' | 'voided' | 'copy' | 'unannounced'>

/** The part of a checkpoint that a subscriber moves. */
export type Position = Omit<Checkpoint, keyof Kept>

export function positionOf({
  applied: _,
  quarantined: __,
  gaps: ___,
  voided: ____,
  copy: _____,
  unannounced: ______,
  ...position
}: Checkpoint): Position {
  return position
}

/** The fields that stay when the live position changes. */
export const keptFields = ({
  applied,
  quarantined,
  gaps,
  voided,
  copy,
  unannounced,
}: Partial<Checkpoint> = {}): Kept => ({
  ...(applied && { applied }),
  ...(quarantined && { quarantined }),
  ...(gaps && { gaps }),
  ...(voided && { voided }),
  ...(copy && { copy }),
  ...(unannounced && { unannounced }),
})

/** The checkpoint with another copy position; undefined: without one. */
export function withCopy({ copy: _, ...checkpoint }: Checkpoint, copy: Checkpoint['copy']): Checkpoint {
  return { ...checkpoint, ...(copy && { copy }) }
}

export const isCheckpoint = (value: Partial<Checkpoint>): value is Checkpoint => value.sequence !== undefined
