// The transactions of the writers. Each inserts a unique row into each table that it changes; the row is never changed again and describes
// the other write of the transaction. So the unique rows of a node are the complete list of its local transactions.

import type { Timestamp, Transaction, VoidedRange, Write } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import type { Database } from '../host/database.ts'
import type { LocalTransaction } from '../host/local-transaction.ts'

export const DATABASE = 'dev'
export const TABLES = ['dog', 'cat'] as const
/** Rows that all nodes write. */
const SHARED_KEYS = 50

/** The other write of a transaction, to a shared row. */
export type Also = { operation: 'upsert' | 'update' | 'delete'; record: Attributes & { id: string } }

/** The unique row of a transaction. */
export type Commit = { id: string; tx: string; timestamp: Timestamp; also?: Also }

/**
 * The announcement of copied rows in the stream of a node, which has a running number and no rows. Its key has a place among the keys of
 * the node. The database may have refused it: it is written down before.
 */
export type Marker = { id: string; tx: string; timestamp: Timestamp; table: string }

/**
 * A transaction of a restamp. Peers apply it instead of the commits of the wrong clock, which it voids. Its key has a place among the keys
 * of the node: it is committed after all lower ones and before all higher ones.
 */
export type Rewrite = { id: string; tx: string; timestamp: Timestamp; writes: Write[]; voids: VoidedRange }

/** A local transaction on a table. */
export type Local = Commit | Rewrite

/** A restamp of a node, as its process reports it. */
export type Restamped = { key: string; transactions: Transaction[] }

/** The transactions of a restamp that write to this table. */
export const rewritesOf = ({ key, transactions }: Restamped, table: string): Rewrite[] =>
  transactions
    .filter(({ writes }) => writes.some((write) => write.table === table))
    .map(({ id, timestamp, writes, voids }) => ({ id: key, tx: id, timestamp, writes, voids: voids! }))

const PREFIX = 'w '
export const keyOf = (node: string, start: number, number: number) => `${PREFIX}${node} ${start}.${number}`
export const isOwn = (id: unknown): id is string => typeof id === 'string' && id.startsWith(PREFIX)
export const originOf = (key: string): string => key.split(' ')[1]!
/** By the number of the start of the node, then by the number of the write. The database runs transactions in the order of the calls. */
export function inCommitOrder(a: { id: string }, b: { id: string }): number {
  const [startOfA, numberOfA] = numbersOf(a.id)
  const [startOfB, numberOfB] = numbersOf(b.id)
  return startOfA - startOfB || numberOfA - numberOfB
}

const numbersOf = (key: string) => key.split(' ')[2]!.split('.').map(Number) as [start: number, number: number]

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

/** Undefined when the row to update or delete does not exist. */
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

/** The rows of a table after these transactions, applied in the order of their timestamps. */
export function tableAfter(commits: readonly Local[]): Map<string, Attributes> {
  const rows = new Map<string, Attributes>()
  for (const commit of commits.toSorted((a, b) => (a.timestamp < b.timestamp ? -1 : 1))) {
    if ('writes' in commit) for (const write of commit.writes) apply(rows, write)
    else {
      rows.set(commit.id, commit)
      if (commit.also) change(rows, commit.also.operation, commit.also.record)
    }
  }
  return rows
}

function apply(rows: Map<string, Attributes>, write: Write): void {
  if (write.operation === 'delete') for (const id of write.ids) rows.delete(String(id))
  else for (const record of write.records) change(rows, write.operation, record)
}

function change(rows: Map<string, Attributes>, operation: Write['operation'], record: Attributes): void {
  const id = String(record.id)
  if (operation === 'delete') rows.delete(id)
  else rows.set(id, operation === 'update' ? { ...rows.get(id), ...record } : record)
}
