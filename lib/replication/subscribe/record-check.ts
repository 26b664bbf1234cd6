// Checks that writes name their rows by valid primary keys.

import type { Write } from '../../host/host.ts'

const isKey = (value: unknown): boolean =>
  typeof value === 'string' || typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value))

const typeOf = (value: unknown): string =>
  value === null ? 'null' : typeof value === 'number' ? String(value) : Array.isArray(value) ? 'array' : typeof value

/** Why these writes cannot be applied to a table with this primary key; undefined when they can. */
export function recordFault(writes: readonly Write[], primaryKey: string): string | undefined {
  for (const write of writes) {
    for (const key of write.operation === 'delete' ? write.ids : []) if (!isKey(key)) return invalidKey(primaryKey, key)
    for (const record of write.operation === 'delete' ? [] : write.records) {
      const key = Object.hasOwn(record, primaryKey) ? record[primaryKey] : undefined
      if (key === undefined) return `a record has no primary key '${primaryKey}'`
      if (!isKey(key)) return invalidKey(primaryKey, key)
    }
  }
  return undefined
}

/** Attributes of the records that are not in `known`. */
export function unknownAttributes(writes: readonly Write[], known: ReadonlySet<string>): string[] {
  const unknown = new Set<string>()
  for (const write of writes)
    for (const record of write.operation === 'delete' ? [] : write.records)
      for (const name in record) if (!known.has(name)) unknown.add(name)
  return [...unknown]
}

const invalidKey = (primaryKey: string, key: unknown) =>
  `the primary key '${primaryKey}' must be a string, a finite number or a bigint, received ${typeOf(key)}`
