// How two nodes come to hold mirror images of each subscription. It is one register with two holders: whoever changes it
// gives it a revision, the newer one wins on both, and whenever the two meet they compare.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { Host, RemoteTable, TableDescription, Timestamp } from '../host/host.ts'
import {
  type ChangeCause,
  findNode,
  type Manifest,
  mergeSubscriptions,
  type Subscription,
  tableKey,
} from '../manifest/manifest.ts'
import { isNodeName } from '../manifest/names.ts'
import { MeshError, type NameCheck, type TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Timers } from '../util/timers.ts'
import { type Peers, toClusterError } from './peers.ts'
import type { PeerRequest, RegisterEntry, WireSubscription } from './protocol.ts'
import { readEntries } from './protocol.ts'
import { type Register, type Registers, sameValue } from './registers.ts'

/** A subscription as asked for; `startTime` in ISO 8601, UTC. */
export type SubscriptionRequest = Subscription & { readonly startTime?: string }

/** What came of it: `skipped` tables exist on neither node, or differ in their primary key. */
export type SubscribeResult = {
  readonly agreed: readonly SubscriptionRequest[]
  readonly skipped: readonly SubscriptionRequest[]
}

export type NegotiateOptions = {
  /** Named in the texts of errors. */
  operation: string
  /** Subscriptions that are not named are ended (configure_cluster) instead of kept. */
  replace?: boolean
  signal?: AbortSignal | undefined
}

/** What an agreement needs of the streams: ours exist before the other node is told, theirs are read from a stored start. */
export interface SubscriptionStarts {
  ensureStream(table: TableName): Promise<unknown>
  setStart(source: RemoteTable, startTime?: string): Promise<void>
  clearStart(source: RemoteTable): Promise<void>
}

/** The revision that a commit gives to what it changes. */
export type RevisionOf = (node: string, table: TableName) => Timestamp

export type NegotiatorOptions = {
  node: string
  host: Host
  peers: Pick<Peers, 'request' | 'describeTables' | 'isUp'>
  starts: SubscriptionStarts
  registers: Registers
  timestamp(): Timestamp
  /** From now on `timestamp` gives higher ones. False when this one lies too far in the future to be believed. */
  observe(revision: Timestamp): boolean
  manifest(): Manifest
  commit(change: (current: Manifest) => Manifest, cause: ChangeCause, revisionOf?: RevisionOf): Promise<unknown>
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  logger: Logger
  timers: Timers
  /** How many tables of so many are done; nothing of what is over at once. */
  progress(node: string, step: 'streams' | 'agreement' | 'start'): (done: number, total: number) => void
}

/** ms after which a node that could not be compared with is asked again: twice as long each time. */
const COMPARE_BACKOFF_MS = { min: 1_000, max: 10_000 }
/** Tables in one request to the other node; each request has its own time-out. */
const PAGE_SIZE = 100

/**
 * Up to which other nodes may add subscriptions, and have tables made here: made up ones must not fill the disk. What is asked
 * for here, or written into the file, may go beyond.
 */
const MAX_REGISTERS = 100_000
const MAX_TABLES = 20_000

/** Tables that something is asked about at once: each is a round or two to a server. */
const MAX_CONCURRENT = 32

/** A subscription as it is to be, or not to be, from its revision on. */
type RegisterChange = Register & { readonly startTime?: string | undefined }

/** By `tableKey`. */
type TablesByKey = Map<string, TableDescription>

/** A subscription that can be agreed on, and the table as whichever node has it describes it. */
type MatchedTable = { request: SubscriptionRequest; table: TableDescription; missingHere: boolean }

export class Negotiator {
  readonly #options: NegotiatorOptions
  /** Nodes to be compared with when they are met, and how that is forgotten. */
  readonly #retryTimers = new Map<string, () => void>()
  /** ms that each of them waits next. */
  readonly #retryDelays = new Map<string, number>()
  readonly #comparing = new Map<string, Promise<void>>()
  /** Nodes of which something changed while they were being compared with. */
  readonly #compareAgain = new Set<string>()
  /** Tables made for other nodes. */
  #createdTables = 0
  #closed = false

  constructor(options: NegotiatorOptions) {
    this.#options = options
  }

  // --- asking -----------------------------------------------------------------------------------------------------------

  /**
   * Describe, settle, tell, place, commit. Rejects node_not_listening, node_timeout, peer_rejected, mesh_unavailable;
   * nothing has changed on this side then. Commits nothing when all are skipped.
   */
  async subscribe(
    node: string,
    requests: readonly SubscriptionRequest[],
    options: NegotiateOptions,
  ): Promise<SubscribeResult> {
    const { host, peers, starts, timestamp, progress } = this.#options
    const [remoteTables, localTables] = await Promise.all([peers.describeTables(node, options), host.describe()])
    const { matched, skipped } = this.#matchTables(node, requests, localTables, remoteTables)
    const agreed = matched.map((each) => each.request)
    if (matched.length === 0 && (requests.length > 0 || !options.replace)) return { agreed, skipped }
    await this.#checkWritable()
    await forEachConcurrently(matched, (each) => starts.ensureStream(each.request), progress(node, 'streams'))
    const revision = timestamp()
    const ended = () => (options.replace ? this.#unnamedRegisters(node, agreed) : [])
    const changes = () => [...agreed.map((each) => ({ ...each, removed: false })), ...ended().map(removedRegister)]
    await this.#withdrawOnFailure(node, changes, options, async (ask) => {
      let sent = 0
      const report = progress(node, 'agreement')
      for (const request of this.#requests(node, matched, revision, options)) {
        await ask(request)
        sent = Math.min(sent + (request.subscriptions?.length ?? 0), matched.length)
        report(sent, matched.length)
      }
      for (const { table } of matched.filter((each) => each.missingHere)) await host.createTable(table)
      await this.#commitWinning(node, () => changes().map((each) => ({ ...each, revision })), 'api')
    })
    return { agreed, skipped }
  }

  /** A file that is bad refuses here, before the other node is told. */
  async #checkWritable(): Promise<void> {
    await this.#options.commit((current) => current, 'api')
  }

  /** Takes the node out of the manifest, whether or not it could be told; it learns of it when it is met. Rejects aborted. */
  async remove(node: string, options: NegotiateOptions): Promise<{ reached: boolean }> {
    const { registers, timestamp, logger } = this.#options
    await this.#checkWritable()
    const revision = timestamp()
    const existing = () => registers.forNode(node)
    let reached = true
    await this.#withdrawOnFailure(node, existing, options, async (ask) => {
      await ask({ operation: 'remove_node', revision }).catch((error) => {
        if (error instanceof ClusterError && error.code === 'aborted') throw error
        reached = false
        logger.warn({ node, reason: reasonOf(error) }, 'a removed node could not be told yet')
      })
      await this.#commitWinning(
        node,
        () => existing().map((each) => ({ ...removedRegister(each), revision })),
        'api',
        true,
      )
    })
    if (!reached) void this.compare(node)
    return { reached }
  }

  /** When what was told fails, here or there, and may have been taken over there, it is withdrawn by something newer. */
  async #withdrawOnFailure(
    node: string,
    tables: () => readonly TableName[],
    options: NegotiateOptions,
    work: (ask: (request: PeerRequest) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const { peers, registers, timestamp } = this.#options
    let delivered = false
    try {
      await work(async (request) => {
        try {
          await peers.request(node, request, options)
          delivered = true
        } catch (error) {
          delivered ||= !wasRejected(error)
          throw error
        }
      })
    } catch (error) {
      if (delivered) {
        const revision = timestamp()
        for (const { database, table } of tables()) {
          const known = registers.get(node, { database, table })
          registers.set(node, { ...(known ?? removedRegister({ database, table })), revision })
        }
        void this.compare(node)
      }
      // Where to begin in its streams was asked of the other node too.
      throw error instanceof MeshError ? toClusterError(error, options.operation, node) : error
    }
  }

  #unnamedRegisters(node: string, named: readonly TableName[]): Register[] {
    const keys = new Set(named.map(tableKey))
    return this.#options.registers.forNode(node).filter((each) => !keys.has(tableKey(each)))
  }

  /** What exists on one of the two nodes, and does not differ in its primary key. */
  #matchTables(
    node: string,
    requests: readonly SubscriptionRequest[],
    localTables: TableDescription[],
    remoteTables: TableDescription[],
  ) {
    const [here, there] = [byKey(localTables), byKey(remoteTables)]
    const matched: MatchedTable[] = []
    const skipped: SubscriptionRequest[] = []
    for (const each of requests) {
      const [local, remote] = [here.get(tableKey(each)), there.get(tableKey(each))]
      const table = local ?? remote
      const reason = !table
        ? 'the table exists on neither node'
        : local && remote && local.primaryKey !== remote.primaryKey
          ? `its primary key is '${local.primaryKey}' here and '${remote.primaryKey}' there`
          : undefined
      if (table && !reason) matched.push({ request: each, table, missingHere: !local })
      else {
        skipped.push(each)
        this.#options.logger.warn({ node, database: each.database, table: each.table, reason }, 'subscription skipped')
      }
    }
    return { matched, skipped }
  }

  /** The mirror image, in pages; if these are all there are to be, more than one page are followed by the names of all. */
  #requests(
    node: string,
    matched: readonly MatchedTable[],
    revision: Timestamp,
    { replace }: NegotiateOptions,
  ): PeerRequest[] {
    const known = this.#options.manifest().nodes.some(({ name }) => name === node)
    const requests: PeerRequest[] = toPages(matched).map((page, index) => ({
      operation: known || index > 0 ? 'update_node' : 'add_node',
      revision,
      subscriptions: page.map(({ request, table }) => toMirror(request, table)),
    }))
    if (!replace) return requests
    if (requests.length === 1) return [{ ...requests[0]!, replace }]
    const all = matched.map(({ request }) => toMirror(request))
    return [...requests, { operation: 'update_node', revision, subscriptions: all, replace }]
  }

  /** The table of a subscription exists here: one that was dropped is made again as the other node describes it. */
  async restoreTable({ node, ...table }: RemoteTable): Promise<void> {
    const { host, peers } = this.#options
    const is = (each: TableName) => tableKey(each) === tableKey(table)
    if ((await host.describe()).some(is)) return
    const there = (await peers.describeTables(node, { operation: 'describe_all' })).find(is)
    if (!there) throw clusterError('table_not_found', table.table)
    await host.createTable(there)
  }

  // --- comparing --------------------------------------------------------------------------------------------------------

  /** The node is there: compare what both hold, unless we have nothing to do with each other. */
  onPeerUp(node: string): void {
    if (this.#options.registers.forNode(node).length > 0) void this.compare(node)
  }

  /** What the manifest holds for this node is still to be agreed on: now if it is there, else as soon as it is met. */
  scheduleCompare(node: string): void {
    void this.compare(node)
  }

  /** One at a time for each node, and once more for what changed meanwhile; tried again later when it fails. Never rejects. */
  compare(node: string): Promise<void> {
    const before = this.#comparing.get(node)
    if (before) {
      this.#compareAgain.add(node)
      return before
    }
    this.#retryTimers.get(node)?.()
    this.#retryTimers.delete(node)
    const work = this.#compare(node)
      .then(() => void this.#retryDelays.delete(node))
      .catch((error) => {
        this.#options.logger.info({ node, reason: reasonOf(error) }, 'subscriptions could not be compared')
        // A node that refuses and is not heard knows nothing of revisions; any other one is asked again.
        const rejected = error instanceof ClusterError && error.code === 'peer_rejected'
        if (!rejected || this.#options.peers.isUp(node)) this.#compareLater(node)
      })
      .finally(() => {
        this.#comparing.delete(node)
        if (this.#compareAgain.delete(node) && !this.#closed) void this.compare(node)
      })
    this.#comparing.set(node, work)
    return work
  }

  async #compare(node: string): Promise<void> {
    const { host, peers, starts, registers } = this.#options
    const options = { operation: 'compare_node' }
    const remoteTables = byKey(await peers.describeTables(node, options))
    const localTables = await this.#localTables()
    const entries = registers.forNode(node).sort((a, b) => (tableKey(a) < tableKey(b) ? -1 : 1))
    const existing = entries.filter(({ removed }) => !removed)
    for (const entry of existing) {
      const there = remoteTables.get(tableKey(entry))
      if (!localTables.has(tableKey(entry)) && there) await host.createTable(there)
    }
    await forEachConcurrently(
      existing.filter(({ publish }) => publish),
      (entry) => starts.ensureStream(entry),
    )
    // Each page is about everything from its first table up to the first of the next one, whether we know it or not.
    const pages = entries.length > 0 ? toPages(entries) : [[]]
    for (const [index, page] of pages.entries()) {
      const next = pages[index + 1]?.[0]
      const request: PeerRequest = {
        operation: 'compare_node',
        entries: page.map((entry) =>
          toEntry(entry, localTables.get(tableKey(entry)) ?? remoteTables.get(tableKey(entry))),
        ),
        range: { from: index > 0 ? tableKey(page[0]!) : '', ...(next ? { to: tableKey(next) } : {}) },
      }
      const answer = readEntries(await peers.request(node, request, options))
      if (!answer) throw clusterError('peer_rejected', node, 'its comparison could not be read')
      await this.#mergeEntries(node, answer)
    }
  }

  #compareLater(node: string): void {
    if (this.#closed) return
    this.#retryTimers.get(node)?.()
    const wait = this.#retryDelays.get(node) ?? COMPARE_BACKOFF_MS.min
    this.#retryDelays.set(node, Math.min(2 * wait, COMPARE_BACKOFF_MS.max))
    this.#retryTimers.set(
      node,
      this.#options.timers.after(wait, () => void this.compare(node)),
    )
  }

  close(): void {
    this.#closed = true
    for (const cancel of this.#retryTimers.values()) cancel()
    this.#retryTimers.clear()
  }

  // --- answering --------------------------------------------------------------------------------------------------------

  /** What another node asks of us. Resolves with the message of success; rejects with the reason of the refusal. */
  async handleRequest(request: PeerRequest): Promise<unknown> {
    const { node: self, registers, timestamp, observe, nameFault } = this.#options
    const { operation, node_name: node, subscriptions = [], replace = false } = request
    // From a node that shows no revision the last request received wins.
    const { revision = timestamp() } = request
    if (!node) throw new Error("'node_name' is required")
    if (!isNodeName(node)) throw new Error("'node_name' invalid, must not contain ., * or >")
    const fault = nameFault(node)
    if (fault) throw new Error(`'node_name' invalid, ${fault}`)
    if (node === self) throw clusterError('peer_rejected', self, 'there are two nodes of this name')
    if (!observe(revision)) throw new Error('the request comes from too far in the future: are the clocks right?')
    if (operation === 'compare_node') return this.#handleCompare(node, request)
    if (operation === 'remove_node') {
      const removed = () => registers.forNode(node).map((each) => ({ ...removedRegister(each), revision }))
      await this.#commitWinning(node, removed, 'peer', true)
      return `Successfully removed '${node}' from manifest`
    }
    const named = subscriptions.map((each) => toRegisterChange(each, revision))
    if (this.#withinLimit(node, named).length < named.length)
      throw new Error('there are too many subscriptions already')
    await this.#prepareTables(subscriptions, await this.#localTables())
    const ended = () =>
      replace ? this.#unnamedRegisters(node, named).map((each) => ({ ...removedRegister(each), revision })) : []
    await this.#commitWinning(node, () => [...named, ...ended()], 'peer')
    return operation === 'add_node' ? `Successfully added '${node}' to manifest` : `Successfully updated '${node}'`
  }

  /** Takes what is newer, and answers with what is newer here or unknown there. */
  async #handleCompare(
    node: string,
    { entries = [], range: { from, to } = { from: '' } }: PeerRequest,
  ): Promise<unknown> {
    const { registers } = this.#options
    await this.#mergeEntries(node, entries)
    const remoteEntries = new Map(entries.map((entry) => [tableKey({ ...entry, database: entry.schema }), entry]))
    const tables = await this.#localTables()
    return registers
      .forNode(node)
      .filter((local) => {
        const key = tableKey(local)
        const known = remoteEntries.get(key)
        if (known) return local.revision > known.revision || !sameValue(local, toRegisterChange(known, known.revision))
        return key >= from && (to === undefined || key < to)
      })
      .map((local) => toEntry(local, tables.get(tableKey(local))))
  }

  // --- taking over ------------------------------------------------------------------------------------------------------

  /** Entries of the other node: those that win and can be taken over are. */
  async #mergeEntries(node: string, entries: readonly RegisterEntry[]): Promise<void> {
    const changes: RegisterChange[] = []
    const tables: TablesByKey = entries.length > 0 ? await this.#localTables() : new Map()
    const named = entries.map((entry) => ({ ...toRegisterChange(entry, entry.revision), entry }))
    for (const { entry, ...change } of this.#withinLimit(node, named)) {
      const accepted = this.#options.observe(entry.revision)
      if (accepted && this.#wins(node, change) && (change.removed || (await this.#canAccept(entry, tables))))
        changes.push(change)
    }
    await this.#commitWinning(node, () => changes, 'peer', true)
  }

  /** Those there is room for, the oldest removed ones making it; what is known needs none. */
  #withinLimit<T extends TableName>(node: string, subscriptions: readonly T[]): T[] {
    const { registers, logger } = this.#options
    const isKnown = (each: T) => registers.get(node, each) !== undefined
    const added = subscriptions.filter((each) => !isKnown(each)).length
    if (added === 0 || registers.reserve(added, MAX_REGISTERS)) return [...subscriptions]
    logger.warn(
      { node, added, held: registers.size },
      'there are too many subscriptions to take over more of this node',
    )
    return subscriptions.filter(isKnown)
  }

  /** Is it newer than what is held here? Of two values of one revision the larger name's wins, on both nodes. */
  #wins(node: string, change: RegisterChange): boolean {
    const mine = this.#options.registers.get(node, change)
    if (!mine || change.revision > mine.revision) return true
    return change.revision === mine.revision && !sameValue(change, mine) && node > this.#options.node
  }

  /**
   * The one way in: stores where each subscription begins, then commits what still wins. A start that was stored for what did
   * not come about is taken back. With `dropEmpty` a node without subscriptions goes.
   */
  async #commitWinning(
    node: string,
    changes: () => readonly RegisterChange[],
    cause: ChangeCause,
    dropEmpty = false,
  ): Promise<void> {
    const { starts, commit, manifest, timestamp, progress } = this.#options
    const winning = () => changes().filter((each) => this.#wins(node, each))
    const revisions = new Map<string, Timestamp>()
    const revisionOf = (_: string, table: TableName) => revisions.get(tableKey(table)) ?? timestamp()
    const started: TableName[] = []
    try {
      const subscribed = winning().filter(({ subscribe }) => subscribe)
      const setStart = async ({ database, table, startTime }: RegisterChange) => {
        started.push({ database, table })
        await starts.setStart({ node, database, table }, startTime)
      }
      await forEachConcurrently(subscribed, setStart, progress(node, 'start'))
      await commit(
        (current) => {
          const accepted = cause === 'peer' ? this.#withinLimit(node, winning()) : winning()
          for (const each of accepted) revisions.set(tableKey(each), each.revision)
          this.#adoptRevisions(node, accepted)
          return mergeSubscriptions(current, node, accepted, dropEmpty)
        },
        cause,
        revisionOf,
      )
    } finally {
      const existing = new Set(
        findNode(manifest(), node)
          ?.subscriptions.filter(({ subscribe }) => subscribe)
          .map(tableKey),
      )
      for (const { database, table } of started)
        if (!existing.has(tableKey({ database, table })))
          await starts.clearStart({ node, database, table }).catch(() => {})
    }
  }

  /** What has this value already only gets the newer revision: there is nothing to commit that would give it. */
  #adoptRevisions(node: string, changes: readonly RegisterChange[]): void {
    const { registers } = this.#options
    for (const { startTime: _, ...each } of changes) {
      const mine = registers.get(node, each)
      if (mine ? sameValue(mine, each) : each.removed) registers.set(node, each)
    }
  }

  /** What cannot be taken over (its table exists on neither node, or differs) stays pending, said in the log. */
  async #canAccept(entry: RegisterEntry, tables: TablesByKey): Promise<boolean> {
    try {
      await this.#prepareTables([entry], tables)
      return true
    } catch (error) {
      const { schema: database, table } = entry
      this.#options.logger.warn({ database, table, reason: reasonOf(error) }, 'a subscription cannot be taken over yet')
      return false
    }
  }

  async #localTables(): Promise<TablesByKey> {
    return byKey(await this.#options.host.describe())
  }

  /** The tables exist here, and so do their streams; those that are made join `here`. */
  async #prepareTables(subscriptions: readonly WireSubscription[], here: TablesByKey): Promise<void> {
    const { host, starts, nameFault } = this.#options
    for (const { schema: database, table, hash_attribute: primaryKey, attributes = [] } of subscriptions) {
      const fault = nameFault(database) ?? nameFault(table)
      if (fault) throw clusterError('name_not_replicable', `${database}.${table}`, fault)
      const local = here.get(tableKey({ database, table }))
      if (local && primaryKey && local.primaryKey !== primaryKey)
        throw new Error(`the primary key of '${database}.${table}' is '${local.primaryKey}' here, not '${primaryKey}'`)
      if (!local && !primaryKey) throw clusterError('table_not_found', table)
      if (!local && primaryKey) {
        const names = attributes.map((each) => (typeof each === 'string' ? each : each.attribute))
        const created = { database, table, primaryKey, attributes: names }
        // Requests that come together know nothing of each other's tables yet.
        if (here.size >= MAX_TABLES || this.#createdTables >= MAX_TABLES)
          throw new Error('there are too many tables already')
        this.#createdTables++
        await host.createTable(created)
        here.set(tableKey(created), created)
      }
    }
    await forEachConcurrently(subscriptions, ({ schema: database, table }) => starts.ensureStream({ database, table }))
  }
}

/** It never arrived, or was answered with a refusal: nothing of it was taken over. */
const wasRejected = (error: unknown): boolean =>
  error instanceof ClusterError &&
  (error.code === 'peer_rejected' || (error.cause instanceof MeshError && error.cause.code === 'no_responders'))

/** So many at once; rejects as the first that failed, when all that were begun have ended. */
async function forEachConcurrently<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
  report?: (done: number, total: number) => void,
): Promise<void> {
  for (let from = 0; from < items.length; from += MAX_CONCURRENT) {
    const results = await Promise.allSettled(items.slice(from, from + MAX_CONCURRENT).map(work))
    for (const result of results) if (result.status === 'rejected') throw result.reason
    report?.(Math.min(from + MAX_CONCURRENT, items.length), items.length)
  }
}

const byKey = (tables: readonly TableDescription[]): TablesByKey =>
  new Map(tables.map((table) => [tableKey(table), table]))

const toPages = <T>(items: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(items.length / PAGE_SIZE) }, (_, index) =>
    items.slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE),
  )

const removedRegister = ({ database, table }: TableName): Register => ({
  database,
  table,
  publish: false,
  subscribe: false,
  removed: true,
  revision: '',
})

/** What is `publish` here is `subscribe` there. */
const toMirror = (subscription: SubscriptionRequest, described?: TableDescription): WireSubscription => ({
  schema: subscription.database,
  table: subscription.table,
  publish: subscription.subscribe,
  subscribe: subscription.publish,
  ...(subscription.startTime ? { start_time: subscription.startTime } : {}),
  ...(described ? { hash_attribute: described.primaryKey, attributes: described.attributes } : {}),
})

const toEntry = (register: Register, described: TableDescription | undefined): RegisterEntry => ({
  ...toMirror(register, described),
  removed: register.removed,
  revision: register.revision,
})

const toRegisterChange = (
  { schema, table, publish, subscribe, start_time, removed = false }: WireSubscription & { removed?: boolean },
  revision: Timestamp,
): RegisterChange => ({
  database: schema,
  table,
  publish,
  subscribe,
  removed,
  revision,
  ...(start_time && !Number.isNaN(Date.parse(start_time)) ? { startTime: start_time } : {}),
})
