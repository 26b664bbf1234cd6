// Takes over subscriptions that were negotiated, requested by a remote node, or found in a comparison: the newer revision wins.

import { reasonOf } from '../errors.ts'
import type { RemoteTable, Timestamp } from '../host/host.ts'
import type { HybridClock } from '../host/hybrid-clock.ts'
import { type ChangeCause, findNode, mergeSubscriptions, tableKey } from '../manifest/manifest.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { forEachConcurrently } from '../util/for-each-concurrently.ts'
import { KeyedMutex } from '../util/keyed-mutex.ts'
import type { RegisterEntry } from './protocol.ts'
import { type Registers, sameValue } from './registers.ts'
import { MAX_CONCURRENT_STREAMS, type Tables, type TablesByKey } from './tables.ts'
import { fromWire, type RegisterChange } from './wire-subscription.ts'

/** Where subscriptions begin to read. */
export interface SubscriptionStarts {
  setStart(source: RemoteTable, startTime?: string): Promise<void>
  clearStart(source: RemoteTable): Promise<void>
}

export type Progress = (done: number, total: number) => void

export type TakeoverOptions = {
  /** Name of the local node. */
  node: string
  store: Pick<ManifestStore, 'manifest' | 'commit'>
  registers: Registers
  tables: Tables
  starts: SubscriptionStarts
  clock: Pick<HybridClock, 'timestamp' | 'merge'>
  logger: Logger
  /** Returns a function that reports how many tables are done; a step that ends at once is not reported. */
  progress(node: string, step: 'streams' | 'agreement' | 'start'): Progress
}

/** `dropEmpty`: a node without subscriptions is removed. `user`: the caller whose operation this is. */
type CommitWinningOptions = { dropEmpty?: boolean; user?: string | undefined }

/** Limits what remote nodes can add. Local requests and the configuration file may exceed it. */
const MAX_REGISTERS = 100_000

export class Takeover {
  readonly #options: TakeoverOptions
  readonly #mutex = new KeyedMutex()

  constructor(options: TakeoverOptions) {
    this.#options = options
  }

  /** Later local timestamps are higher than this revision. False when it lies too far in the future to be accepted. */
  observe(revision: Timestamp): boolean {
    return revision === '' || this.#options.clock.merge(revision)
  }

  /**
   * Stores where each subscription starts, then commits the changes that still win. Clears the starts of subscriptions that were
   * not committed. Runs one at a time for each node; `changes` is
   * called when it is this one's turn.
   */
  commitWinning(
    node: string,
    changes: () => readonly RegisterChange[],
    cause: ChangeCause,
    { dropEmpty = false, user }: CommitWinningOptions = {},
  ): Promise<void> {
    return this.#mutex.run(node, async () => {
      const winning = () => changes().filter((each) => this.#wins(node, each))
      const started: RemoteTable[] = []
      try {
        await this.#setStarts(node, winning(), started)
        await this.#commit(node, winning, cause, { dropEmpty, user })
      } finally {
        await this.#clearUnused(node, started)
      }
    })
  }

  async #setStarts(node: string, changes: readonly RegisterChange[], started: RemoteTable[]): Promise<void> {
    const { starts, progress } = this.#options
    const subscribed = changes.filter(({ subscribe }) => subscribe)
    const setStart = async ({ database, table, startTime }: RegisterChange) => {
      const source = { node, database, table }
      started.push(source)
      await starts.setStart(source, startTime)
    }
    await forEachConcurrently(subscribed, MAX_CONCURRENT_STREAMS, setStart, progress(node, 'start'))
  }

  async #commit(
    node: string,
    winning: () => readonly RegisterChange[],
    cause: ChangeCause,
    { dropEmpty, user }: CommitWinningOptions,
  ): Promise<void> {
    const revisions = new Map<string, Timestamp>()
    await this.#options.store.commit(
      (current) => {
        const accepted = cause === 'peer' ? this.withinLimit(node, winning()) : winning()
        revisions.clear()
        for (const each of accepted) revisions.set(tableKey(each), each.revision)
        this.#adoptRevisions(node, accepted)
        return mergeSubscriptions(current, node, accepted, dropEmpty)
      },
      cause,
      { revisions, user },
    )
  }

  async #clearUnused(node: string, started: readonly RemoteTable[]): Promise<void> {
    const { store, starts } = this.#options
    const subscriptions = findNode(store.manifest, node)?.subscriptions ?? []
    const used = new Set(subscriptions.filter(({ subscribe }) => subscribe).map(tableKey))
    for (const source of started) if (!used.has(tableKey(source))) await starts.clearStart(source).catch(() => {})
  }

  /** Commits those entries of a remote node that win and whose tables exist or can be created here. */
  async mergeEntries(node: string, entries: readonly RegisterEntry[]): Promise<void> {
    this.#options.tables.observe(node, entries)
    const changes: RegisterChange[] = []
    const tables: TablesByKey = entries.length > 0 ? await this.#options.tables.local() : new Map()
    const named = entries.map((entry) => ({ ...fromWire(entry, entry.revision), entry }))
    for (const { entry, ...change } of this.withinLimit(node, named)) {
      const accepted = this.observe(entry.revision)
      if (accepted && this.#wins(node, change) && (change.removed || (await this.#canAccept(node, entry, tables))))
        changes.push(change)
    }
    await this.commitWinning(node, () => changes, 'peer', { dropEmpty: true })
  }

  /** Drops new subscriptions beyond the limit. The oldest removed registers make room; known subscriptions need none. */
  withinLimit<T extends TableName>(node: string, subscriptions: readonly T[]): T[] {
    const { registers, logger } = this.#options
    const isKnown = (each: T) => registers.get(node, each) !== undefined
    const added = subscriptions.filter((each) => !isKnown(each)).length
    if (added === 0 || registers.reserve(added, MAX_REGISTERS)) return [...subscriptions]
    logger.warn(
      { peer: node, added, held: registers.size },
      'too many subscriptions; new ones of this peer are ignored',
    )
    return subscriptions.filter(isKnown)
  }

  /** The higher revision wins. At equal revisions the value of the node with the larger name wins, on both nodes. */
  #wins(node: string, change: RegisterChange): boolean {
    const known = this.#options.registers.get(node, change)
    if (!known || change.revision > known.revision) return true
    return change.revision === known.revision && !sameValue(change, known) && node > this.#options.node
  }

  /** A value that is unchanged gets its newer revision here: it is no change of the manifest, so no commit carries it. */
  #adoptRevisions(node: string, changes: readonly RegisterChange[]): void {
    const { registers } = this.#options
    for (const { startTime: _, ...each } of changes) {
      const known = registers.get(node, each)
      if (known ? sameValue(known, each) : each.removed) registers.set(node, each)
    }
  }

  /** False, and logged, when the table is missing on both nodes or differs: the subscription stays pending. */
  async #canAccept(node: string, entry: RegisterEntry, tables: TablesByKey): Promise<boolean> {
    try {
      await this.#options.tables.prepare(node, [entry], tables)
      return true
    } catch (error) {
      const { schema: database, table } = entry
      this.#options.logger.warn({ database, table, reason: reasonOf(error) }, 'subscription not taken over yet')
      return false
    }
  }
}
