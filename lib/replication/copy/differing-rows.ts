// The rows of a source that are newer there than here: buckets that differ are found first, then the rows in them, then those rows are
// requested. Only these are transferred.

import type { KeyedRow, PrimaryKey, RemoteTable } from '../../host/host.ts'
import { BucketSet } from './buckets.ts'
import { compareTables, cutOf } from './compare-tables.ts'
import { versionsOf } from './hash-source.ts'
import { keyIdentity } from './key-identity.ts'
import type { PeerHashes } from './peer-hashes.ts'
import { type EffectiveRows, effectiveRows, type IsAnnounced } from './row-effect.ts'
import type { FeedPart, RowFeed } from './row-feed.ts'
import type { RowRequests } from './row-requests.ts'
import type { RowVersion } from './row-versions.ts'
import type { RowsHost } from './table-scan.ts'

export type DifferingRowsOptions = {
  source: RemoteTable
  host: RowsHost
  hashes: Pick<PeerHashes, 'status' | 'addSums' | 'findAfter'>
  requests: RowRequests
  /** Of the local table. */
  primaryKey: string
  acceptOld: boolean
  isAnnounced: IsAnnounced
  /** Waits until the transactions that the source has published are applied. Undefined: rows on their way count as different. */
  settle?: ((signal: AbortSignal) => Promise<void>) | undefined
}

/** Rows that are compared and requested at once: a row may be large. */
const MAX_KEYS = 100

export class DifferingRows implements RowFeed {
  readonly isOrdered = false
  readonly #options: DifferingRowsOptions
  /** The buckets that differ; undefined until both tables are compared. */
  #selected: { buckets: number; selected: BucketSet } | undefined
  /** Versions of rows of the source, and the key of the source to continue after; undefined: they are the last ones. */
  #versions: RowVersion[] = []
  #next: { after?: PrimaryKey } | undefined
  #isChunkDone = false

  constructor(options: DifferingRowsOptions) {
    this.#options = options
  }

  async next(signal: AbortSignal): Promise<FeedPart> {
    this.#selected ??= await this.#compare(signal)
    for (;;) {
      if (this.#isChunkDone) this.#versions.splice(0, MAX_KEYS)
      this.#isChunkDone = false
      while (this.#versions.length === 0 && this.#next) await this.#find(this.#next, signal)
      if (this.#versions.length === 0) break
      const part = await this.#newerThere(this.#versions.slice(0, MAX_KEYS), signal)
      if (part.rows.length > 0) return part
      this.#isChunkDone = true
    }
    const { hashes, source } = this.#options
    const { horizon } = await hashes.status(source, { signal })
    return { rows: [], announce: false, horizon: horizon ?? undefined }
  }

  done(): void {
    this.#isChunkDone = true
  }

  async #compare(signal: AbortSignal): Promise<{ buckets: number; selected: BucketSet }> {
    const { source, host, hashes, primaryKey } = this.#options
    const { database, table } = source
    const { horizon } = await hashes.status(source, { signal })
    const cut = cutOf(await host.horizon?.({ database, table }), horizon)
    const { local, remote } = await compareTables({
      ...this.#options,
      peers: hashes,
      rules: { primaryKey, cut },
      signal,
    })
    const selected = new BucketSet(local.buckets)
    const differences = local.differences(remote)
    for (const bucket of differences) selected.add(bucket)
    this.#next = differences.length > 0 ? {} : undefined
    return { buckets: local.buckets, selected }
  }

  /** Tombstones below a horizon are found too: they delete rows that are here. */
  async #find(place: { after?: PrimaryKey }, signal: AbortSignal): Promise<void> {
    const { source, hashes } = this.#options
    const { versions, next } = await hashes.findAfter(source, { ...this.#selected!, ...place, cut: '' }, { signal })
    this.#versions = versions
    this.#next = next === undefined ? undefined : { after: next }
  }

  async #newerThere(versions: readonly RowVersion[], signal: AbortSignal): Promise<EffectiveRows> {
    const { source, host, requests, primaryKey, settle } = this.#options
    const { database, table } = source
    const stored = await host.readRows!({ database, table }, { keys: versions.map(({ key }) => key) })
    const here = new Map(
      versionsOf(stored, { primaryKey, cut: '' }).map(({ key, digest }) => [keyIdentity(key), digest]),
    )
    const keys = versions.filter(({ key, digest }) => here.get(keyIdentity(key)) !== digest).map(({ key }) => key)
    if (keys.length === 0) return { rows: [], announce: false }
    const found = await requests.rows(source, keys, { signal })
    const effective = await this.#effective(found)
    if (!settle || !effective.announce) return effective
    await settle(signal)
    return this.#effective(effective.rows)
  }

  #effective(rows: readonly KeyedRow[]): Promise<EffectiveRows> {
    return effectiveRows(rows, { ...this.#options, table: this.#options.source })
  }
}
