// A database that several processes commit into: each takes its timestamp after the highest one there, in an exclusive write transaction.

import { open, type RootDatabase } from 'lmdb'
import { timestampAfter } from '../../lib/host/timestamp-source.ts'

/** The first process must have opened it before another one does: lmdb cannot create a database in two processes at once. */
export const openShared = (path: string): RootDatabase<string, string> => open<string, string>({ path })

/** Commits `count` transactions, and returns their timestamps. `next`: default `timestampAfter`. */
export function committedTimestamps(
  database: RootDatabase<string, string>,
  node: string,
  count: number,
  next = (last: string | undefined) => timestampAfter(last, node),
): string[] {
  const issued: string[] = []
  for (let index = 0; index < count; index++)
    database.transactionSync(() => {
      const timestamp = next(database.get('last'))
      database.putSync('last', timestamp)
      issued.push(timestamp)
    })
  return issued
}
