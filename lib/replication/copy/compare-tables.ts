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

/** Rejects as the host and `PeerHashes` do, and with the reason of the signal. */
export async function compareTables({
  source,
  host,
  peers,
  rules,
  signal,
  progress = () => {},
}: ComparisonOptions): Promise<Comparison> {
  // In as many buckets as possible first, because the number of rows is not known.
  const sums = new BucketSums(MAX_BUCKETS)
  let rows = 0
  for await (const chunk of scanTable(host, source)) {
    signal.throwIfAborted()
    for (const row of chunk) sums.add(row, rules)
    rows += chunk.length
    progress(rows)
  }
  const local = sums.fold(bucketsFor(rows))
  const remote = new BucketSums(local.buckets)
  const remoteRows = await peers.addSums(source, remote, {
    cut: rules.cut,
    signal,
    progress: (done) => progress(rows + done, Math.max(2 * rows, rows + done + 1)),
  })
  return { local, remote, rows, remoteRows }
}

/** The greater of both horizons: tombstones up to it may have been dropped on one of the nodes. */
export const cutOf = (here: string | undefined = '', there: string | undefined = ''): string =>
  there > here ? there : here
