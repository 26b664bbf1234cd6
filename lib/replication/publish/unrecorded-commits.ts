// Local transactions that were committed and will never be published: the host does not record them while clustering is disabled, or has
// no outbox and its process died.

import type { TableName } from '../../mesh/mesh.ts'

export interface UnrecordedCommits {
  /** Another text each time that such transactions were committed to the table, in [0-9a-f]; undefined before the first time. */
  markOf(table: TableName): Promise<string | undefined>
  /** True when the mark may be a new one since this process started, so that the stream of the table is checked at once. */
  isCheckDue(table: TableName): Promise<boolean>
  /** The publisher was closed. `isComplete`: it has published everything that it was given, and checked all streams. */
  onClosed(isComplete: boolean): Promise<void>
}

/** For a host that records everything. */
export const everythingRecorded: UnrecordedCommits = {
  markOf: async () => undefined,
  isCheckDue: async () => false,
  onClosed: async () => {},
}
