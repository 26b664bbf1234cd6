// Answers the requests of a node that compares a table with this one. Nothing is remembered between two requests.

import type { KeyedRow, PrimaryKey, RemoteTable, TableName } from '../../host/host.ts'
import { systemTimers } from '../../util/timers.ts'
import { BucketSet, bucketOf, isBucketCount, PartialSums } from './buckets.ts'
import { keyIdentity } from './key-identity.ts'
import { type HashRules, rowDigest } from './row-hash.ts'
import type { RowsRequest, ScanAnswer, SumsAnswer, TableStatus, VersionsAnswer } from './row-messages.ts'
import { decodeKey, decodeKeys, encodeKey, RowPageError } from './row-page.ts'
import type { RowRequests } from './row-requests.ts'
import type { RowSource } from './row-source.ts'
import { encodeVersions, type RowVersion } from './row-versions.ts'
import { describeTable, type RowsHost, scanTable } from './table-scan.ts'

export type HashSourceOptions = {
  host: RowsHost
  source: RowSource
  status(table: TableName): Promise<TableStatus>
  /** Rows of remote nodes. */
  rows: RowRequests
  /** Applies copied rows of a source that is subscribed. Rejects as the host does. */
  applyRows(source: RemoteTable, rows: readonly KeyedRow[]): Promise<void>
}

/** ms for the answer to one request. */
const ANSWER_MS = 50
const MAX_ROWS = 50_000
const MAX_VERSIONS = 20_000
const MAX_KEYS = 500
/** ms for reading the rows of one request; the sender does not wait longer. */
const REPAIR_TIMEOUT_MS = 30_000

export class HashSource {
  readonly #options: HashSourceOptions

  constructor(options: HashSourceOptions) {
    this.#options = options
  }

  /** Rejects with the reason of a refusal, and as the host does. */
  async answer(node: string, operation: string, request: RowsRequest): Promise<unknown> {
    const { source, status } = this.#options
    const { database, table, keys } = request
    source.requireSubscription(node, request, operation === 'repair_rows' ? 'subscribe' : undefined)
    switch (operation) {
      case 'table_status':
        return status({ database, table })
      case 'hash_rows':
        return source.limited(() => this.#hash(request))
      case 'find_rows':
        return source.limited(() => (keys ? this.#findKeys(request, decodeKeys(keys)) : this.#find(request)))
      case 'repair_rows':
        if (!keys) throw new Error("'keys' is required")
        return source.limited(() => this.#repair({ node, database, table }, limitedKeys(decodeKeys(keys))), 'repair')
      default:
        throw new Error(`Operation '${operation}' not found`)
    }
  }

  async #hash(request: RowsRequest): Promise<SumsAnswer> {
    const buckets = bucketsOf(request)
    const sums = new PartialSums(buckets)
    const scanned = await this.#scan(request, (row, rules) => {
      sums.add(row, rules)
      return true
    })
    return { sums: sums.encode(), ...scanned }
  }

  async #find(request: RowsRequest): Promise<VersionsAnswer> {
    const buckets = bucketsOf(request)
    const selected = new BucketSet(buckets, request.selected)
    const versions: RowVersion[] = []
    const scanned = await this.#scan(request, (row, rules) => {
      if (!selected.has(bucketOf(keyIdentity(row.key), buckets))) return true
      const digest = rowDigest(row, rules)
      if (digest !== undefined) versions.push({ key: row.key, digest })
      return versions.length < MAX_VERSIONS
    })
    return { versions: encodeVersions(versions), ...scanned }
  }

  async #findKeys(request: RowsRequest, keys: readonly PrimaryKey[]): Promise<VersionsAnswer> {
    const { host } = this.#options
    const rules = await this.#rulesOf(request)
    const { database, table } = request
    const rows = await host.readRows!({ database, table }, { keys: limitedKeys(keys) })
    return { versions: encodeVersions(versionsOf(rows, rules)), rows: rows.length, ...confirmed(request) }
  }

  async #repair(source: RemoteTable, keys: readonly PrimaryKey[]): Promise<object> {
    const { rows, applyRows } = this.#options
    await applyRows(source, await rows.rows(source, keys, { signal: AbortSignal.timeout(REPAIR_TIMEOUT_MS) }))
    return {}
  }

  /** Calls `add` for the next rows until the time is over or it returns false. */
  async #scan(request: RowsRequest, add: (row: KeyedRow, rules: HashRules) => boolean): Promise<ScanAnswer> {
    const rules = await this.#rulesOf(request)
    const end = systemTimers.elapsed() + ANSWER_MS
    let rows = 0
    for await (const chunk of scanTable(this.#options.host, request, request.after && decodeKey(request.after)))
      for (const [index, row] of chunk.entries()) {
        rows++
        const isLast = index === chunk.length - 1
        const isOver = isLast && (systemTimers.elapsed() >= end || rows >= MAX_ROWS)
        if (!add(row, rules) || isOver) return { rows, next: encodeKey(row.key), ...confirmed(request) }
      }
    return { rows, ...confirmed(request) }
  }

  async #rulesOf({ cut = '', values = false, ...table }: RowsRequest): Promise<HashRules> {
    const { primaryKey } = await describeTable(this.#options.host, table)
    return { primaryKey, cut, values }
  }
}

/** The asking node must not compare digests with values and without. */
const confirmed = ({ values }: RowsRequest): { values?: boolean } => (values ? { values } : {})

export const versionsOf = (rows: readonly KeyedRow[], rules: HashRules): RowVersion[] =>
  rows.flatMap((row) => {
    const digest = rowDigest(row, rules)
    return digest === undefined ? [] : [{ key: row.key, digest }]
  })

function bucketsOf({ buckets = 0 }: RowsRequest): number {
  if (!isBucketCount(buckets)) throw new RowPageError(`has ${buckets} buckets`)
  return buckets
}

function limitedKeys(keys: readonly PrimaryKey[]): readonly PrimaryKey[] {
  if (keys.length > MAX_KEYS) throw new RowPageError(`has ${keys.length} keys, more than ${MAX_KEYS}`)
  return keys
}
