// How two nodes come to hold mirror images of each subscription. It is one register with two holders: whoever changes it
// gives it a revision, the newer one wins on both, and whenever the two meet they compare.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { Host, Source, Stamp, TableDescription } from '../host.ts'
import type { Logger } from '../logger.ts'
import {
  type Cause,
  findNode,
  type Manifest,
  mergeSubscriptions,
  type Subscription,
  tableKey,
} from '../manifest/manifest.ts'
import { isNodeName } from '../manifest/names.ts'
import { MeshError, type NameCheck, type TableName } from '../mesh/mesh.ts'
import type { Timers } from '../timers.ts'
import { asClusterError, type Peers } from './peers.ts'
import type { Entry, Request, WireSubscription } from './protocol.ts'
import { readEntries } from './protocol.ts'
import { type Register, type Registers, sameValue } from './registers.ts'

/** A subscription as asked for; `startTime` in ISO 8601, UTC. */
export type Wanted = Subscription & { readonly startTime?: string }

/** What came of it: `skipped` tables exist on neither node, or differ in their primary key. */
export type Outcome = { readonly agreed: readonly Wanted[]; readonly skipped: readonly Wanted[] }

export type AgreeOptions = {
  /** Named in the texts of errors. */
  operation: string
  /** Subscriptions that are not named are ended (configure_cluster) instead of kept. */
  replace?: boolean
  signal?: AbortSignal | undefined
}

/** What an agreement needs of the streams: ours exist before the other node is told, theirs are read from a stored start. */
export interface Streams {
  ensure(table: TableName): Promise<unknown>
  place(source: Source, startTime?: string): Promise<void>
  displace(source: Source): Promise<void>
}

/** The revision that a commit gives to what it changes. */
export type RevisionOf = (node: string, table: TableName) => Stamp

export type AgreementOptions = {
  node: string
  host: Host
  peers: Pick<Peers, 'ask' | 'describe' | 'isUp'>
  streams: Streams
  registers: Registers
  stamp(): Stamp
  /** From now on `stamp` gives higher ones. False when this one lies too far in the future to be believed. */
  witness(revision: Stamp): boolean
  manifest(): Manifest
  commit(change: (current: Manifest) => Manifest, cause: Cause, revisionOf?: RevisionOf): Promise<unknown>
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  logger: Logger
  timers: Timers
  /** How many tables of so many are done; nothing of what is over at once. */
  progress(node: string, step: 'streams' | 'agreement' | 'start'): (done: number, total: number) => void
}

/** ms after which a node that could not be compared with is asked again: twice as long each time. */
const COMPARE_AFTER = { first: 1_000, most: 10_000 }
/** Tables in one request to the other node; each request has its own time-out. */
const PAGE = 100

/**
 * Up to which other nodes may add subscriptions, and have tables made here: made up ones must not fill the disk. What is asked
 * for here, or written into the file, may go beyond.
 */
const MOST_REGISTERS = 100_000
const MOST_TABLES = 20_000

/** Tables that something is asked about at once: each is a round or two to a server. */
const AT_ONCE = 32

/** A subscription as it is to be, or not to be, from its revision on. */
type Change = Register & { readonly startTime?: string | undefined }

/** By `tableKey`. */
type Tables = Map<string, TableDescription>

/** A subscription that can be agreed on, and the table as whichever node has it describes it. */
type Settled = { wanted: Wanted; table: TableDescription; missingHere: boolean }

export class Agreement {
  readonly #options: AgreementOptions
  /** Nodes to be compared with when they are met, and how that is forgotten. */
  readonly #due = new Map<string, () => void>()
  /** ms that each of them waits next. */
  readonly #patience = new Map<string, number>()
  readonly #comparing = new Map<string, Promise<void>>()
  /** Nodes of which something changed while they were being compared with. */
  readonly #again = new Set<string>()
  /** Tables made for other nodes. */
  #made = 0
  #closed = false

  constructor(options: AgreementOptions) {
    this.#options = options
  }

  // --- asking -----------------------------------------------------------------------------------------------------------

  /**
   * Describe, settle, tell, place, commit. Rejects node_not_listening, node_timeout, remote_refused, mesh_unavailable;
   * nothing has changed on this side then. Commits nothing when all are skipped.
   */
  async subscribe(node: string, wanted: readonly Wanted[], options: AgreeOptions): Promise<Outcome> {
    const { host, peers, streams, stamp, progress } = this.#options
    const [theirs, ours] = await Promise.all([peers.describe(node, options), host.describe()])
    const { settled, skipped } = this.#settle(node, wanted, ours, theirs)
    const agreed = settled.map((each) => each.wanted)
    if (settled.length === 0 && (wanted.length > 0 || !options.replace)) return { agreed, skipped }
    await this.#checkWritable()
    await forEach(settled, (each) => streams.ensure(each.wanted), progress(node, 'streams'))
    const revision = stamp()
    const ended = () => (options.replace ? this.#othersOf(node, agreed) : [])
    const changes = () => [...agreed.map((each) => ({ ...each, removed: false })), ...ended().map(removed)]
    await this.#orWithdraw(node, changes, options, async (ask) => {
      let told = 0
      const telling = progress(node, 'agreement')
      for (const request of this.#requests(node, settled, revision, options)) {
        await ask(request)
        told = Math.min(told + (request.subscriptions?.length ?? 0), settled.length)
        telling(told, settled.length)
      }
      for (const { table } of settled.filter((each) => each.missingHere)) await host.createTable(table)
      await this.#take(node, () => changes().map((each) => ({ ...each, revision })), 'api')
    })
    return { agreed, skipped }
  }

  /** A file that is bad refuses here, before the other node is told. */
  async #checkWritable(): Promise<void> {
    await this.#options.commit((current) => current, 'api')
  }

  /** Takes the node out of the manifest, whether or not it could be told; it learns of it when it is met. Rejects aborted. */
  async remove(node: string, options: AgreeOptions): Promise<{ reached: boolean }> {
    const { registers, stamp, logger } = this.#options
    await this.#checkWritable()
    const revision = stamp()
    const held = () => registers.of(node)
    let reached = true
    await this.#orWithdraw(node, held, options, async (ask) => {
      await ask({ operation: 'remove_node', revision }).catch((error) => {
        if (error instanceof ClusterError && error.code === 'aborted') throw error
        reached = false
        logger.warn({ node, reason: reasonOf(error) }, 'a removed node could not be told yet')
      })
      await this.#take(node, () => held().map((each) => ({ ...removed(each), revision })), 'api', true)
    })
    if (!reached) void this.compare(node)
    return { reached }
  }

  /** When what was told fails, here or there, and may have been taken over there, it is withdrawn by something newer. */
  async #orWithdraw(
    node: string,
    tables: () => readonly TableName[],
    options: AgreeOptions,
    work: (ask: (request: Request) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const { peers, registers, stamp } = this.#options
    let told = false
    try {
      await work(async (request) => {
        try {
          await peers.ask(node, request, options)
          told = true
        } catch (error) {
          told ||= !wasDeclined(error)
          throw error
        }
      })
    } catch (error) {
      if (told) {
        const revision = stamp()
        for (const { database, table } of tables()) {
          const known = registers.get(node, { database, table })
          registers.set(node, { ...(known ?? removed({ database, table })), revision })
        }
        void this.compare(node)
      }
      // Where to begin in its streams was asked of the other node too.
      throw error instanceof MeshError ? asClusterError(error, options.operation, node) : error
    }
  }

  #othersOf(node: string, named: readonly TableName[]): Register[] {
    const keys = new Set(named.map(tableKey))
    return this.#options.registers.of(node).filter((each) => !keys.has(tableKey(each)))
  }

  /** What exists on one of the two nodes, and does not differ in its primary key. */
  #settle(node: string, wanted: readonly Wanted[], ours: TableDescription[], theirs: TableDescription[]) {
    const [here, there] = [byKey(ours), byKey(theirs)]
    const settled: Settled[] = []
    const skipped: Wanted[] = []
    for (const each of wanted) {
      const [local, remote] = [here.get(tableKey(each)), there.get(tableKey(each))]
      const table = local ?? remote
      const reason = !table
        ? 'the table exists on neither node'
        : local && remote && local.primaryKey !== remote.primaryKey
          ? `its primary key is '${local.primaryKey}' here and '${remote.primaryKey}' there`
          : undefined
      if (table && !reason) settled.push({ wanted: each, table, missingHere: !local })
      else {
        skipped.push(each)
        this.#options.logger.warn({ node, database: each.database, table: each.table, reason }, 'subscription skipped')
      }
    }
    return { settled, skipped }
  }

  /** The mirror image, in pages; if these are all there are to be, more than one page are followed by the names of all. */
  #requests(node: string, settled: readonly Settled[], revision: Stamp, { replace }: AgreeOptions): Request[] {
    const known = this.#options.manifest().nodes.some(({ name }) => name === node)
    const requests: Request[] = pagesOf(settled).map((page, index) => ({
      operation: known || index > 0 ? 'update_node' : 'add_node',
      revision,
      subscriptions: page.map(({ wanted, table }) => mirrored(wanted, table)),
    }))
    if (!replace) return requests
    if (requests.length === 1) return [{ ...requests[0]!, replace }]
    const all = settled.map(({ wanted }) => mirrored(wanted))
    return [...requests, { operation: 'update_node', revision, subscriptions: all, replace }]
  }

  /** The table of a subscription exists here: one that was dropped is made again as the other node describes it. */
  async restoreTable({ node, ...table }: Source): Promise<void> {
    const { host, peers } = this.#options
    const is = (each: TableName) => tableKey(each) === tableKey(table)
    if ((await host.describe()).some(is)) return
    const there = (await peers.describe(node, { operation: 'describe_all' })).find(is)
    if (!there) throw clusterError('table_not_found', table.table)
    await host.createTable(there)
  }

  // --- comparing --------------------------------------------------------------------------------------------------------

  /** The node is there: compare what both hold, unless we have nothing to do with each other. */
  met(node: string): void {
    if (this.#options.registers.of(node).length > 0) void this.compare(node)
  }

  /** What the manifest holds for this node is still to be agreed on: now if it is there, else as soon as it is met. */
  postpone(node: string): void {
    void this.compare(node)
  }

  /** One at a time for each node, and once more for what changed meanwhile; tried again later when it fails. Never rejects. */
  compare(node: string): Promise<void> {
    const before = this.#comparing.get(node)
    if (before) {
      this.#again.add(node)
      return before
    }
    this.#due.get(node)?.()
    this.#due.delete(node)
    const work = this.#compare(node)
      .then(() => void this.#patience.delete(node))
      .catch((error) => {
        this.#options.logger.info({ node, reason: reasonOf(error) }, 'subscriptions could not be compared')
        // A node that refuses and is not heard knows nothing of revisions; any other one is asked again.
        const refused = error instanceof ClusterError && error.code === 'remote_refused'
        if (!refused || this.#options.peers.isUp(node)) this.#compareLater(node)
      })
      .finally(() => {
        this.#comparing.delete(node)
        if (this.#again.delete(node) && !this.#closed) void this.compare(node)
      })
    this.#comparing.set(node, work)
    return work
  }

  async #compare(node: string): Promise<void> {
    const { host, peers, streams, registers } = this.#options
    const options = { operation: 'compare_node' }
    const theirs = byKey(await peers.describe(node, options))
    const ours = await this.#tables()
    const entries = registers.of(node).sort((a, b) => (tableKey(a) < tableKey(b) ? -1 : 1))
    const held = entries.filter(({ removed }) => !removed)
    for (const entry of held) {
      const there = theirs.get(tableKey(entry))
      if (!ours.has(tableKey(entry)) && there) await host.createTable(there)
    }
    await forEach(
      held.filter(({ publish }) => publish),
      (entry) => streams.ensure(entry),
    )
    // Each page is about everything from its first table up to the first of the next one, whether we know it or not.
    const pages = entries.length > 0 ? pagesOf(entries) : [[]]
    for (const [index, page] of pages.entries()) {
      const next = pages[index + 1]?.[0]
      const request: Request = {
        operation: 'compare_node',
        entries: page.map((entry) => toEntry(entry, ours.get(tableKey(entry)) ?? theirs.get(tableKey(entry)))),
        range: { from: index > 0 ? tableKey(page[0]!) : '', ...(next ? { to: tableKey(next) } : {}) },
      }
      const answer = readEntries(await peers.ask(node, request, options))
      if (!answer) throw clusterError('remote_refused', node, 'its comparison could not be read')
      await this.#merge(node, answer)
    }
  }

  #compareLater(node: string): void {
    if (this.#closed) return
    this.#due.get(node)?.()
    const wait = this.#patience.get(node) ?? COMPARE_AFTER.first
    this.#patience.set(node, Math.min(2 * wait, COMPARE_AFTER.most))
    this.#due.set(
      node,
      this.#options.timers.after(wait, () => void this.compare(node)),
    )
  }

  close(): void {
    this.#closed = true
    for (const forget of this.#due.values()) forget()
    this.#due.clear()
  }

  // --- answering --------------------------------------------------------------------------------------------------------

  /** What another node asks of us. Resolves with the message of success; rejects with the reason of the refusal. */
  async answer(request: Request): Promise<unknown> {
    const { node: self, registers, stamp, witness, nameFault } = this.#options
    const { operation, node_name: node, subscriptions = [], replace = false } = request
    // From a node that shows no revision the last request received wins.
    const { revision = stamp() } = request
    if (!node) throw new Error("'node_name' is required")
    if (!isNodeName(node)) throw new Error("'node_name' invalid, must not contain ., * or >")
    const fault = nameFault(node)
    if (fault) throw new Error(`'node_name' invalid, ${fault}`)
    if (node === self) throw clusterError('remote_refused', self, 'there are two nodes of this name')
    if (!witness(revision)) throw new Error('the request comes from too far in the future: are the clocks right?')
    if (operation === 'compare_node') return this.#compared(node, request)
    if (operation === 'remove_node') {
      const gone = () => registers.of(node).map((each) => ({ ...removed(each), revision }))
      await this.#take(node, gone, 'peer', true)
      return `Successfully removed '${node}' from manifest`
    }
    const named = subscriptions.map((each) => toChange(each, revision))
    if (this.#withRoom(node, named).length < named.length) throw new Error('there are too many subscriptions already')
    await this.#prepare(subscriptions, await this.#tables())
    const ended = () => (replace ? this.#othersOf(node, named).map((each) => ({ ...removed(each), revision })) : [])
    await this.#take(node, () => [...named, ...ended()], 'peer')
    return operation === 'add_node' ? `Successfully added '${node}' to manifest` : `Successfully updated '${node}'`
  }

  /** Takes what is newer, and answers with what is newer here or unknown there. */
  async #compared(node: string, { entries = [], range: { from, to } = { from: '' } }: Request): Promise<unknown> {
    const { registers } = this.#options
    await this.#merge(node, entries)
    const theirs = new Map(entries.map((entry) => [tableKey({ ...entry, database: entry.schema }), entry]))
    const tables = await this.#tables()
    return registers
      .of(node)
      .filter((mine) => {
        const key = tableKey(mine)
        const known = theirs.get(key)
        if (known) return mine.revision > known.revision || !sameValue(mine, toChange(known, known.revision))
        return key >= from && (to === undefined || key < to)
      })
      .map((mine) => toEntry(mine, tables.get(tableKey(mine))))
  }

  // --- taking over ------------------------------------------------------------------------------------------------------

  /** Entries of the other node: those that win and can be taken over are. */
  async #merge(node: string, entries: readonly Entry[]): Promise<void> {
    const changes: Change[] = []
    const tables: Tables = entries.length > 0 ? await this.#tables() : new Map()
    const named = entries.map((entry) => ({ ...toChange(entry, entry.revision), entry }))
    for (const { entry, ...change } of this.#withRoom(node, named)) {
      const believed = this.#options.witness(entry.revision)
      if (believed && this.#wins(node, change) && (change.removed || (await this.#canTake(entry, tables))))
        changes.push(change)
    }
    await this.#take(node, () => changes, 'peer', true)
  }

  /** Those there is room for, the oldest removed ones making it; what is known needs none. */
  #withRoom<T extends TableName>(node: string, subscriptions: readonly T[]): T[] {
    const { registers, logger } = this.#options
    const isKnown = (each: T) => registers.get(node, each) !== undefined
    const fresh = subscriptions.filter((each) => !isKnown(each)).length
    if (fresh === 0 || registers.makeRoom(fresh, MOST_REGISTERS)) return [...subscriptions]
    logger.warn(
      { node, fresh, held: registers.size },
      'there are too many subscriptions to take over more of this node',
    )
    return subscriptions.filter(isKnown)
  }

  /** Is it newer than what is held here? Of two values of one revision the larger name's wins, on both nodes. */
  #wins(node: string, change: Change): boolean {
    const mine = this.#options.registers.get(node, change)
    if (!mine || change.revision > mine.revision) return true
    return change.revision === mine.revision && !sameValue(change, mine) && node > this.#options.node
  }

  /**
   * The one way in: stores where each subscription begins, then commits what still wins. A start that was stored for what did
   * not come about is taken back. With `dropEmpty` a node without subscriptions goes.
   */
  async #take(node: string, changes: () => readonly Change[], cause: Cause, dropEmpty = false): Promise<void> {
    const { streams, commit, manifest, stamp, progress } = this.#options
    const winning = () => changes().filter((each) => this.#wins(node, each))
    const revisions = new Map<string, Stamp>()
    const revisionOf = (_: string, table: TableName) => revisions.get(tableKey(table)) ?? stamp()
    const placed: TableName[] = []
    try {
      const wanted = winning().filter(({ subscribe }) => subscribe)
      const place = async ({ database, table, startTime }: Change) => {
        placed.push({ database, table })
        await streams.place({ node, database, table }, startTime)
      }
      await forEach(wanted, place, progress(node, 'start'))
      await commit(
        (current) => {
          const taken = cause === 'peer' ? this.#withRoom(node, winning()) : winning()
          for (const each of taken) revisions.set(tableKey(each), each.revision)
          this.#confirm(node, taken)
          return mergeSubscriptions(current, node, taken, dropEmpty)
        },
        cause,
        revisionOf,
      )
    } finally {
      const held = new Set(
        findNode(manifest(), node)
          ?.subscriptions.filter(({ subscribe }) => subscribe)
          .map(tableKey),
      )
      for (const { database, table } of placed)
        if (!held.has(tableKey({ database, table }))) await streams.displace({ node, database, table }).catch(() => {})
    }
  }

  /** What has this value already only gets the newer revision: there is nothing to commit that would give it. */
  #confirm(node: string, changes: readonly Change[]): void {
    const { registers } = this.#options
    for (const { startTime: _, ...each } of changes) {
      const mine = registers.get(node, each)
      if (mine ? sameValue(mine, each) : each.removed) registers.set(node, each)
    }
  }

  /** What cannot be taken over (its table exists on neither node, or differs) stays pending, said in the log. */
  async #canTake(entry: Entry, tables: Tables): Promise<boolean> {
    try {
      await this.#prepare([entry], tables)
      return true
    } catch (error) {
      const { schema: database, table } = entry
      this.#options.logger.warn({ database, table, reason: reasonOf(error) }, 'a subscription cannot be taken over yet')
      return false
    }
  }

  async #tables(): Promise<Tables> {
    return byKey(await this.#options.host.describe())
  }

  /** The tables exist here, and so do their streams; those that are made join `here`. */
  async #prepare(subscriptions: readonly WireSubscription[], here: Tables): Promise<void> {
    const { host, streams, nameFault } = this.#options
    for (const { schema: database, table, hash_attribute: primaryKey, attributes = [] } of subscriptions) {
      const fault = nameFault(database) ?? nameFault(table)
      if (fault) throw clusterError('name_not_replicable', `${database}.${table}`, fault)
      const local = here.get(tableKey({ database, table }))
      if (local && primaryKey && local.primaryKey !== primaryKey)
        throw new Error(`the primary key of '${database}.${table}' is '${local.primaryKey}' here, not '${primaryKey}'`)
      if (!local && !primaryKey) throw clusterError('table_not_found', table)
      if (!local && primaryKey) {
        const names = attributes.map((each) => (typeof each === 'string' ? each : each.attribute))
        const made = { database, table, primaryKey, attributes: names }
        // Requests that come together know nothing of each other's tables yet.
        if (here.size >= MOST_TABLES || this.#made >= MOST_TABLES) throw new Error('there are too many tables already')
        this.#made++
        await host.createTable(made)
        here.set(tableKey(made), made)
      }
    }
    await forEach(subscriptions, ({ schema: database, table }) => streams.ensure({ database, table }))
  }
}

/** It never arrived, or was answered with a refusal: nothing of it was taken over. */
const wasDeclined = (error: unknown): boolean =>
  error instanceof ClusterError &&
  (error.code === 'remote_refused' || (error.cause instanceof MeshError && error.cause.code === 'no_responders'))

/** So many at once; rejects as the first that failed, when all that were begun have ended. */
async function forEach<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
  report?: (done: number, total: number) => void,
): Promise<void> {
  for (let from = 0; from < items.length; from += AT_ONCE) {
    const results = await Promise.allSettled(items.slice(from, from + AT_ONCE).map(work))
    for (const result of results) if (result.status === 'rejected') throw result.reason
    report?.(Math.min(from + AT_ONCE, items.length), items.length)
  }
}

const byKey = (tables: readonly TableDescription[]): Tables => new Map(tables.map((table) => [tableKey(table), table]))

const pagesOf = <T>(items: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(items.length / PAGE) }, (_, index) => items.slice(index * PAGE, (index + 1) * PAGE))

const removed = ({ database, table }: TableName): Register => ({
  database,
  table,
  publish: false,
  subscribe: false,
  removed: true,
  revision: '',
})

/** What is `publish` here is `subscribe` there. */
const mirrored = (wanted: Wanted, described?: TableDescription): WireSubscription => ({
  schema: wanted.database,
  table: wanted.table,
  publish: wanted.subscribe,
  subscribe: wanted.publish,
  ...(wanted.startTime ? { start_time: wanted.startTime } : {}),
  ...(described ? { hash_attribute: described.primaryKey, attributes: described.attributes } : {}),
})

const toEntry = (register: Register, described: TableDescription | undefined): Entry => ({
  ...mirrored(register, described),
  removed: register.removed,
  revision: register.revision,
})

const toChange = (
  { schema, table, publish, subscribe, start_time, removed = false }: WireSubscription & { removed?: boolean },
  revision: Stamp,
): Change => ({
  database: schema,
  table,
  publish,
  subscribe,
  removed,
  revision,
  ...(start_time && !Number.isNaN(Date.parse(start_time)) ? { startTime: start_time } : {}),
})
