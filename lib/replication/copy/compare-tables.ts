// Compares the rows of a table here and on a remote node by sums of their digests in buckets: one scan on each side.

import type { RemoteTable } from '../../host/host.ts'
import { BucketSums, bucketsFor, MAX_BUCKETS } from './buckets.ts'
import type { PeerHashes } from './peer-hashes.ts'
import type { HashRules } from './row-hash.ts'
import { type RowsHost, scanTable } from './table-scan.ts'

export type ComparisonOptions = {
  source: RemoteTable
  host: RowsHost
  peers: Pick<PeerHashes, 'addSums'>
  rules: HashRules
  signal: AbortSignal
  /** Rows of both nodes. */
  progress?: (done: number, total?: number) => void
}

/** `rows`: number of local rows; `remoteRows`: of the remote node. */
export type Comparison = { local: BucketSums; remote: BucketSums; rows: number; remoteRows: number }

/**
 * Both nodes at the same time, in as many buckets as possible first, because the number of rows is not known. Rejects as the host and
 * `PeerHashes` do, and with the reason of the signal.
 */
export async function compareTables({ progress = () => {}, ...options }: ComparisonOptions): Promise<Comparison> {
  const { source, peers, rules } = options
  const [local, remote] = [new BucketSums(MAX_BUCKETS), new BucketSums(MAX_BUCKETS)]
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  const done = { here: 0, there: 0 }
  const report = (side: keyof typeof done) => (rows: number) => {
    done[side] = rows
    progress(done.here + done.there)
  }
  const failBoth = (error: unknown) => {
    failed.abort(error)
    throw error
  }
  const there = peers.addSums(source, remote, { rules, signal, progress: report('there') })
  const here = addLocal({ ...options, signal, progress: report('here') }, local)
  const [rows, remoteRows] = await Promise.all([here.catch(failBoth), there.catch(failBoth)])
  const buckets = bucketsFor(rows)
  return { local: local.fold(buckets), remote: remote.fold(buckets), rows, remoteRows }
}

/** Resolves with the number of rows. */
async function addLocal(
  { source, host, rules, signal, progress }: Required<Omit<ComparisonOptions, 'peers'>>,
  sums: BucketSums,
): Promise<number> {
  let rows = 0
  for await (const chunk of scanTable(host, source)) {
    signal.throwIfAborted()
    for (const row of chunk) sums.add(row, rules)
    rows += chunk.length
    progress(rows)
  }
  return rows
}

/** The greater of both horizons: tombstones up to it may have been dropped on one of the nodes. */
export const cutOf = (here: string | undefined = '', there: string | undefined = ''): string =>
  there > here ? there : here
