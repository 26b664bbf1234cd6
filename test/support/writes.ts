// Access to the rows of a write, for tests that know which kind of write they read.

import type { Write } from '../../lib/host/host.ts'

/** The records of an insert, update or upsert; [] for a delete. */
export const recordsOf = (write: Write | undefined): Record<string, unknown>[] =>
  write === undefined || write.operation === 'delete' ? [] : write.records
