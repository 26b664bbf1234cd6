// Primary keys as text, for the position of a copy: a checkpoint may be stored as JSON.

import type { PrimaryKey } from '../../host/host.ts'

/** The first character is the type. */
export const keyText = (key: PrimaryKey): string =>
  typeof key === 'string' ? `s${key}` : typeof key === 'bigint' ? `i${key}` : `n${Object.is(key, -0) ? '-0' : key}`

/** Throws an Error for a text that `keyText` does not make. */
export function keyOfText(text: string): PrimaryKey {
  const value = text.slice(1)
  if (text[0] === 's') return value
  if (text[0] === 'i' && /^-?\d+$/.test(value)) return BigInt(value)
  if (text[0] === 'n' && value !== '' && Number.isFinite(Number(value))) return Number(value)
  throw new Error(`'${text}' is not the text of a primary key`)
}
