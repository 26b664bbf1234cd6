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
  ...(current?.replace && { replace: current.replace }),
  ...((reason === 'table_replaced' || current?.emptied) && { emptied: true }),
})

/**
 * The copy that an operator asks for. `replace`: the local table is emptied first. A table that was emptied for this copy stays so, whatever
 * is asked: the rows of other sources have to come back at its end.
 */
export function requestedCopy(current: CopyPosition | undefined, replace = false): CopyPosition {
  const { replace: known, ...copy } = beginCopy(current, 'requested', true)
  if (known === 'emptied') return { ...copy, replace: known }
  // Without `replace` the earlier request is withdrawn.
  return replace ? { ...copy, replace: 'requested' } : copy
}

/**
 * After a restamp of the source, which brings the rows that were left out because of its clock: the copy does not wait for their wrong
 * time. As a new object, so that pages which were requested before are not applied.
 */
export const afterRestamp = ({ retryAt: _, ...position }: CopyPosition): CopyPosition => position
