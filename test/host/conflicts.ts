// The last conflicts of row merging, in a bounded table: writes of remote nodes that lost against newer ones.

import type { PrimaryKey, TableName } from '../../lib/host/host.ts'
import type { MergeConflict } from '../../lib/host/merge-conflict.ts'
import type { Storage } from './storage.ts'

const MAX_CONFLICTS = 1_000

export type StoredConflict = MergeConflict & TableName & { key: PrimaryKey }

export class Conflicts {
  readonly #storage: Storage

  constructor(storage: Storage) {
    this.#storage = storage
  }

  /** Removes the oldest one beyond the limit. Must run inside a storage transaction. */
  add(conflict: StoredConflict): void {
    const { conflicts } = this.#storage
    const [last = 0] = conflicts.getKeys({ reverse: true, limit: 1 })
    conflicts.put(last + 1, conflict)
    for (const key of conflicts.getKeys({ end: last + 2 - MAX_CONFLICTS })) conflicts.remove(key)
  }

  /** The newest ones first. */
  list(limit = MAX_CONFLICTS): StoredConflict[] {
    return [...this.#storage.conflicts.getRange({ reverse: true, limit })].map(({ value }) => value)
  }
}
