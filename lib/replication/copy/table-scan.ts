// Reads all rows of a local table in chunks that the database answers quickly, so that other work gets its turn.

import { clusterError } from '../../errors.ts'
import type { Host, KeyedRow, PrimaryKey, TableDescription, TableName } from '../../host/host.ts'
import { nextTurn, systemTimers } from '../../util/timers.ts'

export type RowsHost = Pick<Host, 'readRows' | 'horizon' | 'describe'>

const FIRST_CHUNK_ROWS = 64
const MAX_CHUNK_ROWS = 1_000
/** ms for one chunk: it becomes smaller or larger until the database takes about this long. */
const CHUNK_MS = { min: 4, max: 12 }

/** Rejects table_not_found, and as the host does. */
export async function describeTable(host: RowsHost, { database, table }: TableName): Promise<TableDescription> {
  const found = (await host.describe()).find((each) => each.database === database && each.table === table)
  if (!found) throw clusterError('table_not_found', table)
  return found
}

/** The rows after this key in the order of the host. Rejects as the host does. */
export async function* scanTable(
  host: RowsHost,
  { database, table }: TableName,
  first?: PrimaryKey,
): AsyncGenerator<KeyedRow[], void> {
  let limit = FIRST_CHUNK_ROWS
  for (let after = first; ; ) {
    const started = systemTimers.elapsed()
    const rows = await host.readRows!({ database, table }, { after, limit })
    if (rows.length === 0) return
    yield rows
    after = rows.at(-1)!.key
    const elapsed = systemTimers.elapsed() - started
    if (elapsed < CHUNK_MS.min) limit = Math.min(2 * limit, MAX_CHUNK_ROWS)
    else if (elapsed > CHUNK_MS.max) limit = Math.max(limit >> 1, 1)
    await nextTurn()
  }
}
