// Which primary keys are the same: hosts may use different JS types for one integer.

import type { PrimaryKey } from '../../host/host.ts'

/** Equal for keys that are the same. Integers are alike whatever their type, -0 is 0, and strings are distinct from numbers. */
export function keyIdentity(key: PrimaryKey): string {
  if (typeof key === 'string') return `s${key}`
  if (typeof key === 'bigint') return `i${key}`
  if (Number.isSafeInteger(key)) return key === 0 ? 'i0' : `i${key}`
  return Number.isInteger(key) ? `i${BigInt(key)}` : `f${key}`
}
