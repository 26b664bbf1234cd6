// How long the local streams keep what every subscriber may have read.

import type { StreamLimits } from '../mesh/mesh.ts'

/** In seconds: a node that was away longer is repaired by a copy of the rows. */
export const DEFAULT_MAX_AGE = 7 * 24 * 3_600

/**
 * The limits in effect. Without `maxAge` transactions are kept for `DEFAULT_MAX_AGE` by a node that serves its rows, and without limit
 * by one that cannot; `maxAge: 0` is no limit.
 */
export function effectiveLimits({ maxAge, ...limits }: StreamLimits, servesRows: boolean): StreamLimits {
  const age = maxAge ?? (servesRows ? DEFAULT_MAX_AGE : 0)
  return { ...limits, ...(age > 0 && { maxAge: age }) }
}
