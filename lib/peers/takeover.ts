// Takes over subscriptions that were negotiated, requested by a remote node, or found in a comparison: the newer revision wins.

import { reasonOf } from '../errors.ts'
import type { RemoteTable, Timestamp } from '../host/host.ts'
import type { HybridClock } from '../host/hybrid-clock.ts'
import { type ChangeCause, findNode, mergeSubscriptions, tableKey } from '../manifest/manifest.ts'
import type { StartRequest } from '../manifest/start-request.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { forEachConcurrently } from '../util/for-each-concurrently.ts'
import { KeyedMutex } from '../util/keyed-mutex.ts'
import type { RegisterEntry } from './protocol.ts'
import { type Register, sameValue } from './register.ts'
import type { Registers } from './registers.ts'
import { MAX_CONCURRENT_STREAMS, type Tables, type TablesByKey } from './tables.ts'
import { fromWire } from './wire-subscription.ts'

export type UndoStart = () => Promise<void>

/** Where subscriptions begin to read. */
export interface SubscriptionStarts {
  /**
   * `start`: what was asked for. `since`: when the subscription was made, in ms since 1970. Resolves with a function that undoes this,
   * for a request that fails. A running subscription begins a copy that it is asked for after the commit.
   */
  setStart(source: RemoteTable, start?: StartRequest, since?: number): Promise<UndoStart>
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

const TOO_MANY = 'there are too many subscriptions already'
const REVISION_AHEAD = 'its revision lies too far in the future: compare the clocks of both nodes'

const ownKey = (node: string, revision: Timestamp) => JSON.stringify([node, revision])

/** Why subscriptions of a remote node cannot be accepted now, by `tableKey`. */
export type Refusals = ReadonlyMap<string, string>

export class Takeover {
  readonly #options: TakeoverOptions
  /** The reasons that were logged, by node and `tableKey`. */
  readonly #loggedRefusals = new Map<string, string>()
  readonly #mutex = new KeyedMutex()
  /** Revisions of requests under way, with their nodes. */
  readonly #own = new Set<string>()

  constructor(options: TakeoverOptions) {
    this.#options = options
  }

  /**
   * The operation that asks the node for changes with this revision commits or withdraws them. Until the returned function is called, they
   * are not taken over when the node, which may have accepted them already, shows them in a comparison: it does not know all of them.
   */
  ignoreOwn(node: string, revision: Timestamp): () => void {
    const key = ownKey(node, revision)
    this.#own.add(key)
    return () => void this.#own.delete(key)
  }

  /** Later local timestamps are higher than this revision. False when it lies too far in the future to be accepted. */
  observe(revision: Timestamp): boolean {
    return revision === '' || this.#options.clock.merge(revision)
  }

  /**
   * Stores where each subscription starts, then commits the changes that still win. Undoes the starts of those that were not
   * committed. With `dropEmpty` a node without subscriptions is removed. Runs one at a time for each node; `changes` is called when
   * it is this one's turn.
   */
  commitWinning(
    node: string,
    changes: () => readonly Register[],
    cause: ChangeCause,
    { dropEmpty = false, user }: CommitWinningOptions = {},
  ): Promise<void> {
    return this.#mutex.run(node, async () => {
      const winning = () => changes().filter((each) => this.#wins(node, each))
      /** By `tableKey`. */
      const undo = new Map<string, UndoStart>()
      try {
        await this.#setStarts(node, winning(), undo)
        const committed = await this.#commit(node, winning, cause, { dropEmpty, user })
        for (const each of committed) undo.delete(tableKey(each))
        await this.#keepStarts(node, committed)
      } finally {
        for (const undoStart of undo.values()) await undoStart().catch((error) => this.#reportUndo(node, error))
      }
    })
  }

  #reportUndo(node: string, error: unknown): void {
    this.#options.logger.warn({ peer: node, reason: reasonOf(error) }, 'start of a failed request not undone')
  }

  async #setStarts(node: string, changes: readonly Register[], undo: Map<string, UndoStart>): Promise<void> {
    const { starts, registers, progress } = this.#options
    const subscribed = changes.filter(({ subscribe }) => subscribe)
    const setStart = async ({ database, table, start, subscribeSince }: Register) => {
      const source = { node, database, table }
      const request = start ?? registers.openStart(source)
      undo.set(tableKey(source), await starts.setStart(source, request, subscribeSince))
    }
    await forEachConcurrently(subscribed, MAX_CONCURRENT_STREAMS, setStart, progress(node, 'start'))
  }

  /** The requests of these changes are on disk now: a copy that is asked for begins, also after a crash. */
  async #keepStarts(node: string, changes: readonly Register[]): Promise<void> {
    const { registers } = this.#options
    const requested = changes.filter(({ start }) => start)
    for (const { start, ...each } of requested) {
      const register = registers.get(node, each)
      if (register?.revision === each.revision) registers.set(node, { ...register, start })
    }
    if (requested.length > 0) await registers.flush()
  }

  /** Resolves with the changes that were committed. */
  async #commit(
    node: string,
    winning: () => readonly Register[],
    cause: ChangeCause,
    { dropEmpty, user }: CommitWinningOptions,
  ): Promise<readonly Register[]> {
    const revisions = new Map<string, Timestamp>()
    let accepted: readonly Register[] = []
    await this.#options.store.commit(
      (current) => {
        accepted = cause === 'peer' ? this.withinLimit(node, winning()) : winning()
        revisions.clear()
        for (const each of accepted) revisions.set(tableKey(each), each.revision)
        this.#adoptRevisions(node, accepted)
        return mergeSubscriptions(current, node, accepted, dropEmpty)
      },
      cause,
      { revisions, user },
    )
    return accepted
  }

  /**
   * Commits those entries of a remote node that win and whose tables exist or can be created here. Resolves with the reasons of those
   * that win and cannot be accepted now, by `tableKey`. Rejects as the host does.
   */
  async mergeEntries(node: string, entries: readonly RegisterEntry[]): Promise<Refusals> {
    this.#options.tables.observe(node, entries)
    const refusals = new Map<string, string>()
    const refuse = (table: TableName, reason: string) => void refusals.set(tableKey(table), reason)
    const changes: Register[] = []
    const tables: TablesByKey = entries.length > 0 ? await this.#options.tables.local() : new Map()
    const named = entries.map((entry) => ({ ...fromWire(entry, entry.revision), entry }))
    const allowed = new Set(this.withinLimit(node, named))
    for (const each of named) {
      const { entry, ...change } = each
      if (!allowed.has(each)) refuse(change, TOO_MANY)
      else if (this.#own.has(ownKey(node, entry.revision))) continue
      else if (!this.observe(entry.revision)) refuse(change, REVISION_AHEAD)
      else if (this.#wins(node, change)) {
        const reason = change.removed ? undefined : await this.#reasonAgainst(node, entry, tables)
        if (reason === undefined) changes.push(change)
        else refuse(change, reason)
      }
    }
    try {
      if (changes.length > 0 || this.#isEmpty(node))
        await this.commitWinning(node, () => changes, 'peer', { dropEmpty: true })
    } catch (error) {
      for (const each of changes) if (this.#wins(node, each)) refuse(each, reasonOf(error))
    }
    this.#logRefusals(node, named, refusals)
    return refusals
  }

  #isEmpty(node: string): boolean {
    return findNode(this.#options.store.manifest, node)?.subscriptions.length === 0
  }

  /** Logs each reason once, although the remote node asks again and again. */
  #logRefusals(node: string, tables: readonly TableName[], refusals: Refusals): void {
    for (const { database, table } of tables) {
      const key = tableKey({ database, table })
      const logged = JSON.stringify([node, key])
      const reason = refusals.get(key)
      if (reason === undefined) this.#loggedRefusals.delete(logged)
      else if (this.#loggedRefusals.get(logged) !== reason) {
        if (this.#loggedRefusals.size < MAX_REGISTERS) this.#loggedRefusals.set(logged, reason)
        this.#options.logger.warn({ peer: node, database, table, reason }, 'subscription not taken over yet')
      }
    }
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
  #wins(node: string, change: Register): boolean {
    const known = this.#options.registers.get(node, change)
    if (!known || change.revision > known.revision) return true
    return change.revision === known.revision && !sameValue(change, known) && node > this.#options.node
  }

  /** A value that is unchanged gets its newer revision here: it is no change of the manifest, so no commit carries it. */
  #adoptRevisions(node: string, changes: readonly Register[]): void {
    const { registers } = this.#options
    for (const { start: _, ...each } of changes) {
      const known = registers.get(node, each)
      if (known ? sameValue(known, each) : each.removed) registers.set(node, each)
    }
  }

  /** The reason when the table is missing on both nodes, differs, or cannot be created. */
  async #reasonAgainst(node: string, entry: RegisterEntry, tables: TablesByKey): Promise<string | undefined> {
    try {
      await this.#options.tables.prepare(node, [entry], tables)
      return undefined
    } catch (error) {
      return reasonOf(error)
    }
  }
}
