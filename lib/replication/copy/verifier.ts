// Compares a table with that of another node, and copies the rows that differ. Values are compared only on request: rows with equal
// timestamps come from the same writes.

import { clusterError, clusterErrorFrom } from '../../errors.ts'
import type { KeyedRow, RemoteTable } from '../../host/host.ts'
import type { VerifyResult } from '../../host/verify-result.ts'
import { findNode, type Manifest, type Subscription, tableKey } from '../../manifest/manifest.ts'
import { KeyedMutex } from '../../util/keyed-mutex.ts'
import type { Timers } from '../../util/timers.ts'
import { BucketSet, type BucketSums, bucketOf } from './buckets.ts'
import { compareTables, cutOf } from './compare-tables.ts'
import { keyIdentity } from './key-identity.ts'
import type { PeerHashes } from './peer-hashes.ts'
import { type HashRules, rowDigest } from './row-hash.ts'
import type { TableStatus } from './row-messages.ts'
import type { RowRequests } from './row-requests.ts'
import { type Suspect, Suspects } from './suspects.ts'
import { describeTable, type RowsHost, scanTable } from './table-scan.ts'

export type VerifyOptions = {
  /** Copies the rows that differ: from the other node if the table is subscribed from there, and to it if it subscribes from here. */
  repair?: boolean
  /**
   * Compares values too. A row with the same timestamps and other values was changed past the cluster, or is damaged; nobody can know on
   * which node. `repair` takes it from the other node if the table is subscribed from there, and leaves it otherwise.
   */
  values?: boolean
  signal?: AbortSignal | undefined
}

export type VerifierOptions = {
  /** Name of the local node. */
  node: string
  host: RowsHost
  manifest(): Manifest
  peers: PeerHashes
  rows: RowRequests
  status(table: RemoteTable): Promise<TableStatus>
  /** Applies copied rows of a source that is subscribed. Rejects as the host does. */
  applyRows(source: RemoteTable, rows: readonly KeyedRow[]): Promise<void>
  /** Starts a progress report, in rows of both nodes. */
  progress(source: RemoteTable): (done: number, total?: number) => void
  verified(source: RemoteTable, result: VerifyResult): void
  timers: Timers
}

type CheckedOptions = { repair: boolean; values: boolean; signal: AbortSignal }

/** A comparison that is under way. */
type Run = {
  source: RemoteTable
  subscription: Subscription
  rules: HashRules
  signal: AbortSignal
  result: VerifyResult
}

/** Rows of differing buckets that are compared at once: bounds the memory. */
const MAX_GROUP_ROWS = 100_000
/** Rows that are copied at once. */
const MAX_REPAIR_ROWS = 100

export class Verifier {
  readonly #options: VerifierOptions
  readonly #mutex = new KeyedMutex()

  constructor(options: VerifierOptions) {
    this.#options = options
  }

  /**
   * One at a time for each table. Rejects subscription_not_found without a subscription in any direction, rows_not_served,
   * table_not_found, aborted, node_not_listening, node_timeout, peer_rejected, and as the host does.
   */
  async verify(
    source: RemoteTable,
    { repair = false, values = false, signal = new AbortController().signal }: VerifyOptions = {},
  ): Promise<VerifyResult> {
    try {
      return await this.#mutex.run(tableKey(source), () => this.#verify(source, { repair, values, signal }), signal)
    } catch (error) {
      throw signal.aborted ? clusterErrorFrom(error, 'aborted', 'verify_table') : error
    }
  }

  async #verify({ node, database, table }: RemoteTable, options: CheckedOptions): Promise<VerifyResult> {
    const source = { node, database, table }
    const { repair } = options
    const run = await this.#begin(source, options)
    const { result } = run
    const progress = this.#options.progress(source)
    const { local, remote, rows, remoteRows } = await compareTables({ ...this.#options, ...run, progress })
    result.rows = rows
    for (const group of groupsOf(local, remote)) await this.#compare(run, local.buckets, group, repair)
    progress(rows + remoteRows, rows + remoteRows)
    this.#options.verified(source, result)
    return result
  }

  async #begin(source: RemoteTable, { values, signal }: CheckedOptions): Promise<Run> {
    const { host, manifest, node, rows, peers } = this.#options
    const subscription = findNode(manifest(), source.node)?.subscriptions.find(
      (each) => tableKey(each) === tableKey(source),
    )
    if (!subscription) throw clusterError('subscription_not_found', source.node, `${source.database}.${source.table}`)
    if (!host.readRows) throw clusterError('rows_not_served', node)
    if (rows.serves(source) === false) throw clusterError('rows_not_served', source.node)
    const { primaryKey } = await describeTable(host, source)
    const there = await peers.status(source, { signal })
    const here = await host.horizon?.({ database: source.database, table: source.table })
    const cut = cutOf(here, there.horizon)
    const result = { rows: 0, missingHere: 0, missingThere: 0, different: 0, inFlight: 0, repaired: 0 }
    return { source, subscription, rules: { primaryKey, cut, values }, signal, result }
  }

  /** Compares the rows in these buckets one by one. */
  async #compare(run: Run, buckets: number, group: readonly number[], repair: boolean): Promise<void> {
    const { source, rules, signal, result } = run
    const selected = new BucketSet(buckets)
    for (const bucket of group) selected.add(bucket)
    const suspects = new Suspects({ ...this.#options, ...run, local: this.#options.node })
    for await (const chunk of scanTable(this.#options.host, source)) {
      signal.throwIfAborted()
      for (const row of chunk)
        if (selected.has(bucketOf(keyIdentity(row.key), buckets))) suspects.addHere(row.key, rowDigest(row, rules))
    }
    const request = { buckets, selected, rules }
    await this.#options.peers.find(source, request, ({ key, digest }) => suspects.addThere(key, digest), { signal })
    const { confirmed, inFlight } = await suspects.confirm()
    result.inFlight += inFlight
    for (const { here, there } of confirmed)
      if (here === undefined) result.missingHere++
      else if (there === undefined) result.missingThere++
      else result.different++
    if (repair && confirmed.length > 0) {
      await this.#repair(run, confirmed, suspects)
      result.repaired += confirmed.length - (await suspects.different(confirmed)).length
    }
  }

  /**
   * A row that both have is merged on both sides: each may have the newer value of one attribute. Of equal timestamps the applied row
   * wins, so this node takes the other values first, and gives them back.
   */
  async #repair(
    { source, subscription, rules, signal }: Run,
    differences: readonly Suspect[],
    suspects: Suspects,
  ): Promise<void> {
    const { rows, applyRows, peers } = this.#options
    const { subscribe, publish } = subscription
    const there = subscribe ? keysOf(differences, 'there') : []
    for (let at = 0; at < there.length; at += MAX_REPAIR_ROWS) {
      const found = await rows.rows(source, there.slice(at, at + MAX_REPAIR_ROWS), { signal })
      await applyRows(source, found)
    }
    if (!publish) return
    const isOneWay = !subscribe && rules.values
    const different = isOneWay ? await suspects.different(differences, { ...rules, values: false }) : differences
    await peers.repair(source, keysOf(different, 'here'), { signal })
  }
}

const keysOf = (rows: readonly Suspect[], side: 'here' | 'there') =>
  rows.filter((each) => each[side] !== undefined).map(({ key }) => key)

/** The buckets that differ, in groups of a bounded number of rows. */
function groupsOf(local: BucketSums, remote: BucketSums): number[][] {
  const groups: number[][] = []
  let rows = Number.POSITIVE_INFINITY
  for (const bucket of local.differences(remote)) {
    const count = Math.max(local.count(bucket), remote.count(bucket))
    if (rows + count > MAX_GROUP_ROWS) {
      groups.push([])
      rows = 0
    }
    groups.at(-1)!.push(bucket)
    rows += count
  }
  return groups
}
