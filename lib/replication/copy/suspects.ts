// Rows that differed between two nodes. They are compared again until it is certain which of them are differences, and not on their way.

import type { PrimaryKey, RemoteTable } from '../../host/host.ts'
import { pause } from '../../util/pause.ts'
import type { Timers } from '../../util/timers.ts'
import { versionsOf } from './hash-source.ts'
import { keyIdentity } from './key-identity.ts'
import { MAX_KEYS, type PeerHashes } from './peer-hashes.ts'
import type { HashRules, RowDigest } from './row-hash.ts'
import type { TableStatus } from './row-messages.ts'
import { type BothStatus, isBlocked, isLagging, missingAt } from './settling.ts'
import type { RowsHost } from './table-scan.ts'

/** A row and its digests on both nodes; undefined: the node does not have it. */
export type Suspect = { key: PrimaryKey; here: RowDigest | undefined; there: RowDigest | undefined }

export type SuspectsOptions = {
  /** Name of the local node. */
  local: string
  source: RemoteTable
  host: RowsHost
  peers: PeerHashes
  status(table: RemoteTable): Promise<TableStatus>
  rules: HashRules
  signal: AbortSignal
  timers: Timers
}

/** Comparisons of a row that changes between them. */
const MAX_ROUNDS = 10
/** ms for which each node may take to apply what the other one had. */
const SETTLE_TIMEOUT_MS = 10_000
/** ms between two questions whether it has. */
const POLL_MS = { first: 20, max: 500 }

export class Suspects {
  readonly #options: SuspectsOptions
  /** By key identity. */
  #rows = new Map<string, Suspect>()

  constructor(options: SuspectsOptions) {
    this.#options = options
  }

  /** `digest` is undefined for a row that is left out. */
  addHere(key: PrimaryKey, digest: RowDigest | undefined): void {
    if (digest !== undefined) this.#rows.set(keyIdentity(key), { key, here: digest, there: undefined })
  }

  /** After all local rows. */
  addThere(key: PrimaryKey, digest: RowDigest): void {
    const identity = keyIdentity(key)
    const known = this.#rows.get(identity)
    if (known?.here === digest) this.#rows.delete(identity)
    else this.#rows.set(identity, { key, here: known?.here, there: digest })
  }

  /**
   * A row is a difference when it is the same as in the comparison before, on both nodes, although each has applied meanwhile what the
   * other one had then. `inFlight`: number of rows that may be on their way.
   */
  async confirm(): Promise<{ confirmed: Suspect[]; inFlight: number }> {
    const confirmed: Suspect[] = []
    let rows: readonly Suspect[] = [...this.#rows.values()]
    this.#rows = new Map()
    for (let round = 0; round < MAX_ROUNDS && rows.length > 0; round++) {
      const isSettled = await this.#settle(round)
      const before = new Map(rows.map((each) => [keyIdentity(each.key), each]))
      const different = await this.different(rows)
      if (!isSettled) return { confirmed, inFlight: different.length }
      rows = different.filter((each) => {
        const { here, there } = before.get(keyIdentity(each.key))!
        if (here !== each.here || there !== each.there) return true
        confirmed.push(each)
        return false
      })
    }
    return { confirmed, inFlight: rows.length }
  }

  /** Those of the rows that differ now. Default: by the rules of the comparison. */
  async different(rows: readonly Suspect[], rules = this.#options.rules): Promise<Suspect[]> {
    const found: Suspect[] = []
    for (let at = 0; at < rows.length; at += MAX_KEYS)
      found.push(
        ...(await this.#compare(
          rows.slice(at, at + MAX_KEYS).map(({ key }) => key),
          rules,
        )),
      )
    return found
  }

  async #compare(keys: readonly PrimaryKey[], rules: HashRules): Promise<Suspect[]> {
    const { source, host, peers, signal } = this.#options
    const { database, table } = source
    const byIdentity = (versions: readonly { key: PrimaryKey; digest: RowDigest }[]) =>
      new Map(versions.map(({ key, digest }) => [keyIdentity(key), digest]))
    const rows = await host.readRows!({ database, table }, { keys })
    const here = byIdentity(versionsOf(rows, rules))
    const there = byIdentity(await peers.versions(source, keys, { rules, signal }))
    return keys
      .map((key) => ({ key, here: here.get(keyIdentity(key)), there: there.get(keyIdentity(key)) }))
      .filter((each) => each.here !== each.there)
  }

  /** Resolves with true when both nodes have applied what the other one has now; with false when that may take long. */
  async #settle(round: number): Promise<boolean> {
    const { timers, source, local, signal } = this.#options
    const then = await this.#status()
    const end = timers.elapsed() + SETTLE_TIMEOUT_MS
    // Longer in each round: a row that is written all the time is compared at different times.
    for (let wait = POLL_MS.first * 2 ** Math.min(round, 4); ; wait = Math.min(2 * wait, POLL_MS.max)) {
      await pause(timers, wait, signal)
      const now = await this.#status()
      const missing = missingAt(then, now, { here: local, there: source.node })
      if (!missing && !isLagging(now)) return true
      if (isBlocked(now) || timers.elapsed() >= end) return false
    }
  }

  async #status(): Promise<BothStatus> {
    const { source, status, peers, signal } = this.#options
    signal.throwIfAborted()
    const [here, there] = await Promise.all([status(source), peers.status(source, { signal })])
    return { here, there }
  }
}
