// How long the local streams keep what every subscriber may have read.

import type { Settings } from '../manifest/settings.ts'
import type { StreamLimits } from '../mesh/mesh.ts'

/** In seconds: a node that was away longer is repaired by a copy of the rows. */
export const DEFAULT_MAX_AGE = 7 * 24 * 3_600

/**
 * The limits in effect. Without `maxAge` transactions are kept for `DEFAULT_MAX_AGE` by a node that serves its rows, and without limit
 * by one that cannot; `maxAge: 0` is no limit.
 */
export function effectiveLimits({ maxAge, maxBytes, maxMsgs }: StreamLimits, servesRows: boolean): StreamLimits {
  const age = maxAge ?? (servesRows ? DEFAULT_MAX_AGE : 0)
  return {
    ...(maxBytes !== undefined && { maxBytes }),
    ...(maxMsgs !== undefined && { maxMsgs }),
    ...(age > 0 && { maxAge: age }),
  }
}

/** In seconds. */
export const DEFAULT_TRIM_AFTER = 3_600

/**
 * ms for which messages are kept that every subscriber has applied; undefined: they are not trimmed. A node that cannot serve its rows trims
 * nothing, because a subscriber that needs them again could not copy them.
 */
export function effectiveTrimAfter(
  { trim, trimAfter = DEFAULT_TRIM_AFTER }: Settings['streams'],
  servesRows: boolean,
): number | undefined {
  return trim === 'applied' && servesRows ? trimAfter * 1_000 : undefined
}
