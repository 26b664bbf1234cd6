// Requests for the rows of remote nodes.

import type { KeyedRow, PrimaryKey, RemoteTable, Timestamp } from '../../host/host.ts'

/** `horizon`: of the source's table. */
export type RowPage = { rows: KeyedRow[]; horizon?: Timestamp }

/** A page that is decoded only when it is read: rows that wait for those before them cost memory and garbage collection. */
export type ArrivedPage = {
  /** Undefined: there are no rows. */
  last: PrimaryKey | undefined
  /** Throws peer_rejected for a page that is not valid. */
  read(): RowPage
}

/** Rows of a remote node. */
export interface RowRequests {
  /** Whether the source serves rows; undefined while that is unknown (not described yet). */
  serves(source: RemoteTable): boolean | undefined
  /** The next rows after this key, in the source's order; an empty page at the end. Rejects as Peers.request; waits while the source is busy. */
  page(source: RemoteTable, after: PrimaryKey | undefined, options: { signal: AbortSignal }): Promise<RowPage>
  /** The same. */
  arrivedPage(
    source: RemoteTable,
    after: PrimaryKey | undefined,
    options: { signal: AbortSignal },
  ): Promise<ArrivedPage>
  /** These rows, without those that do not exist there. */
  rows(source: RemoteTable, keys: readonly PrimaryKey[], options: { signal: AbortSignal }): Promise<KeyedRow[]>
}
