// Databases with rows from before clustering.

import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { MemoryHost } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }

/** A database in memory whose rows have the lowest timestamp of the node, and no messages. */
export function hostWithRows(name: string, count: number): MemoryHost {
  const host = new MemoryHost({ tables: [dog] })
  const records = Array.from({ length: count }, (_, id) => ({ id, name: `row ${id}`, from: name }))
  const writes = [{ operation: 'insert' as const, ...dog, records }]
  host.commitAs({ id: `before ${name}`, timestamp: makeTimestamp(0, 0, name), writes })
  host.outbox = []
  return host
}

/** The stored rows with their timestamps, by key. */
export const storedRows = (host: MemoryHost): [string, unknown][] =>
  [...(host.rows.get(JSON.stringify(['dev', 'dog'])) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
