// A database that several processes commit into: each takes its timestamp after the highest one there, in an exclusive write transaction.

import { open } from 'lmdb'
import { timestampAfter } from '../../lib/host/timestamp-source.ts'

/** Commits `count` transactions, and resolves with their timestamps. `next`: default `timestampAfter`. */
export async function committedTimestamps(
  path: string,
  node: string,
  count: number,
  next = (last: string | undefined) => timestampAfter(last, node),
): Promise<string[]> {
  const database = open<string, string>({ path })
  const issued: string[] = []
  for (let index = 0; index < count; index++)
    database.transactionSync(() => {
      const timestamp = next(database.get('last'))
      database.putSync('last', timestamp)
      issued.push(timestamp)
    })
  await database.close()
  return issued
}
