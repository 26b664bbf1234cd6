// What the writers write. Every transaction puts a row of its own into each table it touches, which is never touched again
// and says what else the transaction did: so a node's own rows are the whole list of what was committed there.

import type { Timestamp } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import type { Database } from '../host/database.ts'
import type { LocalTransaction } from '../host/local-transaction.ts'

export const DATABASE = 'dev'
export const TABLES = ['dog', 'cat'] as const
/** Rows that everybody writes. */
const SHARED_KEYS = 50

/** The other thing a transaction did, to a row that everybody writes. */
export type Also = { operation: 'upsert' | 'update' | 'delete'; record: Attributes & { id: string } }

/** The row of its own. */
export type Commit = { id: string; tx: string; timestamp: Timestamp; also?: Also }

const PREFIX = 'w '
export const keyOf = (node: string, start: number, number: number) => `${PREFIX}${node} ${start}.${number}`
export const isOwn = (id: unknown): id is string => typeof id === 'string' && id.startsWith(PREFIX)
export const originOf = (key: string): string => key.split(' ')[1]!

/** Resolves when it is committed, with its outbox entry. */
export async function write(
  database: Database,
  key: string,
  random: () => number,
  tables: readonly string[],
): Promise<void> {
  await database.transact('writer', (transaction) => {
    for (const table of tables) {
      const also = random() < 0.6 ? writeShared(transaction, table, key, random) : undefined
      const row: Commit = { id: key, tx: transaction.id, timestamp: transaction.timestamp, ...(also && { also }) }
      transaction.upsert(DATABASE, table, [row])
    }
  })
}

/** Undefined when there was nothing to update or delete. */
function writeShared(
  transaction: LocalTransaction,
  table: string,
  value: string,
  random: () => number,
): Also | undefined {
  const id = `shared ${Math.trunc(random() * SHARED_KEYS)}`
  const choice = random()
  if (choice < 0.1) {
    const { done } = transaction.delete(DATABASE, table, [id])
    return done.length > 0 ? { operation: 'delete', record: { id } } : undefined
  }
  const operation = choice < 0.6 ? 'update' : 'upsert'
  const record = operation === 'upsert' ? { id, a: value, b: value } : { id, [random() < 0.5 ? 'a' : 'b']: value }
  const { done } = transaction[operation](DATABASE, table, [record])
  return done.length > 0 ? { operation, record } : undefined
}

/** What a table holds after these transactions: each in full, one after the other, in the order of their stamps. */
export function tableAfter(commits: readonly Commit[]): Map<string, Attributes> {
  const rows = new Map<string, Attributes>()
  for (const commit of commits.toSorted((a, b) => (a.timestamp < b.timestamp ? -1 : 1))) {
    rows.set(commit.id, commit)
    if (!commit.also) continue
    const { operation, record } = commit.also
    if (operation === 'delete') rows.delete(record.id)
    else rows.set(record.id, operation === 'update' ? { ...rows.get(record.id), ...record } : record)
  }
  return rows
}
