// Where a copy takes its rows from: all rows of the source, or those that differ when the table has rows already.

import type { CopyPosition, RemoteTable } from '../../host/host.ts'
import type { Copies } from './copies.ts'
import { DifferingRows, type DifferingRowsOptions } from './differing-rows.ts'
import { keyOfText } from './key-text.ts'
import { AllRows, type RowFeed } from './row-feed.ts'
import { type UntilAppliedOptions, waitUntilApplied } from './until-applied.ts'

/** `position`: that of the copy after the last step. `retryAt`: as in CopyPosition. */
export type Feed = { rows: RowFeed; position: CopyPosition; retryAt?: number | undefined; isEmpty: boolean }

export type FeedOptions = Pick<DifferingRowsOptions, 'host' | 'requests' | 'isAnnounced'> &
  Omit<UntilAppliedOptions, 'hashes'> & {
    source: RemoteTable
    relayEnabled: boolean
    copies: Copies
    hashes: Copies['hashes']
    /** Of the local table. Rejects when the table does not exist. */
    primaryKey(): Promise<string>
  }

/** Rejects as the host does. */
export async function createFeed(position: CopyPosition, options: FeedOptions): Promise<Feed> {
  const { source, copies, hashes, relayEnabled } = options
  const { after, retryAt, acceptOld = false } = position
  if (after === undefined && hashes && !position.replace && (await copies.hasRows(source))) {
    // A relaying node tells its subscribers of the rows that it copies, so it does not copy those that are on their way to it.
    const settle = relayEnabled ? waitUntilApplied(source, { ...options, hashes }) : undefined
    const primaryKey = await options.primaryKey()
    return { rows: new DifferingRows({ ...options, hashes, primaryKey, acceptOld, settle }), position, isEmpty: true }
  }
  const all = { ...options, acceptOld }
  if (after === undefined) return { rows: new AllRows(all), position, isEmpty: true }
  return { rows: new AllRows({ ...all, after: keyOfText(after) }), position, retryAt, isEmpty: false }
}
