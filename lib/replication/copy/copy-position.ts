// How far a copy is, as a part of the checkpoint.

import type { CopyPosition, CopyReason } from '../../host/host.ts'

/**
 * A copy from the first row on. A copy that is under way begins again by that: rows behind its position may have changed in the
 * transactions that were lost. What its first rows may do, its next ones may do too.
 */
export const beginCopy = (current: CopyPosition | undefined, reason: CopyReason, acceptOld = false): CopyPosition => ({
  reason,
  rows: 0,
  ...((acceptOld || current?.acceptOld) && { acceptOld: true }),
})
