// list_conflicts: what concurrent writes lost, if the configuration has `logConflicts: true`. HarperDB has no such operation.

import { badRequest } from './errors.ts'
import type { Operations } from './operations.ts'

export const conflictOperations: Operations = {
  /** The newest conflicts first; `limit` of them at most. */
  async list_conflicts(database, { limit }) {
    if (limit !== undefined && !(Number.isInteger(limit) && (limit as number) > 0))
      throw badRequest("'limit' must be an integer above 0")
    return database
      .conflicts(limit as number | undefined)
      .map(({ database: name, table, key, attribute, lost, kept }) => ({
        ...{ database: name, table, key, attribute: attribute ?? null },
        lost: { ...lost, value: lost.value ?? null },
        kept: { ...kept, value: kept.value ?? null },
      }))
  },
}
