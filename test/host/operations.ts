// Dispatch of the data operations: JSON bodies and answers as HarperDB documents them.

import type { Caller, Transaction } from '../../lib/index.ts'
import { conflictOperations } from './conflict-operations.ts'
import type { Database } from './database.ts'
import { HostError } from './errors.ts'
import { type Body, isObject } from './request.ts'
import { describeOperations, schemaOperations } from './schema-operations.ts'
import { searchOperations } from './search-operations.ts'
import { writeOperations } from './write-operations.ts'

/** `onCommit` is called with what the operation has committed, for what waits for other nodes. */
export type DataCaller = Caller & { onCommit?(transaction: Transaction): void }
/** Rejects with HostError. */
export type Operation = (database: Database, body: Body, caller: DataCaller) => Promise<object>
export type Operations = Record<string, Operation>

const unrestricted = new Map(Object.entries({ ...writeOperations, ...searchOperations, ...describeOperations }))
const superUserOnly = new Map(Object.entries({ ...schemaOperations, ...conflictOperations }))

/** Returns undefined for any other operation, which the cluster answers. */
export async function executeData(database: Database, body: unknown, caller: DataCaller): Promise<object | undefined> {
  if (!isObject(body) || typeof body.operation !== 'string') return undefined
  const restricted = superUserOnly.get(body.operation)
  if (restricted && !caller.superUser) {
    throw new HostError(403, 'This operation is not authorized due to role restrictions and/or invalid database items')
  }
  const operation = restricted ?? unrestricted.get(body.operation)
  return operation?.(database, body, caller)
}
