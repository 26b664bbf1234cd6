// How two nodes come to hold mirror images of each subscription. It is one register with two holders: whoever changes it
// gives it a revision, the newer one wins on both, and whenever the two meet they compare.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { Host, Source, Stamp, TableDescription } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Cause, type Manifest, mergeSubscriptions, type Subscription, tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Peers } from './peers.ts'
import type { Request, WireSubscription } from './protocol.ts'
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
  peers: Pick<Peers, 'ask' | 'describe'>
  streams: Streams
  registers: Registers
  stamp(): Stamp
  /** From now on `stamp` gives higher ones. */
  witness(revision: Stamp): void
  manifest(): Manifest
  commit(change: (current: Manifest) => Manifest, cause: Cause, revisionOf?: RevisionOf): Promise<unknown>
  isReplicable(table: TableName): boolean
  logger: Logger
}

/** ms after which a node that could not be compared with is asked again. */
const COMPARE_AFTER = 10_000
/** Tables in one request to the other node; each request has its own time-out. */
const PAGE = 100

/** A subscription that can be agreed on, and the table as whichever node has it describes it. */
type Settled = { wanted: Wanted; table: TableDescription; missingHere: boolean }

export class Agreement {
  readonly #options: AgreementOptions
  /** Nodes to be compared with when they are met, and when they are asked again. */
  readonly #due = new Map<string, NodeJS.Timeout>()
  readonly #comparing = new Map<string, Promise<void>>()
  /** Nodes of which something changed while they were being compared with. */
  readonly #again = new Set<string>()
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
    const { host, peers, streams, stamp } = this.#options
    const [theirs, ours] = await Promise.all([peers.describe(node, options), host.describe()])
    const { settled, skipped } = this.#settle(node, wanted, ours, theirs)
    const agreed = settled.map((each) => each.wanted)
    if (settled.length === 0 && (wanted.length > 0 || !options.replace)) return { agreed, skipped }
    await this.#checkWritable()
    for (const { wanted: each } of settled) await streams.ensure(each)
    const revision = stamp()
    await this.#tell(node, settled, revision, options)
    for (const { table } of settled.filter((each) => each.missingHere)) await host.createTable(table)
    await this.#take(node, agreed, revision, options.replace ?? false, 'api')
    return { agreed, skipped }
  }

  /** A file that is bad refuses here, before the other node is told. */
  async #checkWritable(): Promise<void> {
    await this.#options.commit((current) => current, 'api')
  }

  /** Takes the node out of the manifest, whether or not it could be told; it learns of it when it is met. */
  async remove(node: string, options: AgreeOptions): Promise<{ reached: boolean }> {
    const { commit, peers, stamp, logger } = this.#options
    await this.#checkWritable()
    const revision = stamp()
    const reached = await peers.ask(node, { operation: 'remove_node', revision }, options).then(
      () => true,
      (error) => {
        logger.warn({ node, reason: reasonOf(error) }, 'a removed node could not be told yet')
        return false
      },
    )
    const removals = this.#options.registers.of(node).map(removed)
    await commit(
      (current) => mergeSubscriptions(current, node, removals, true),
      'api',
      () => revision,
    )
    if (!reached) this.#compareLater(node)
    return { reached }
  }

  /** What was told and not answered may have been taken: it is withdrawn by something newer. */
  async #tell(node: string, settled: readonly Settled[], revision: Stamp, options: AgreeOptions): Promise<void> {
    let told = false
    try {
      for (const request of this.#requests(node, settled, revision, options)) {
        await this.#options.peers.ask(node, request, options)
        told = true
      }
    } catch (error) {
      const unknown = error instanceof ClusterError && (error.code === 'node_timeout' || error.code === 'aborted')
      if (told || unknown) this.#withdraw(node, settled)
      throw error
    }
  }

  #withdraw(node: string, settled: readonly Settled[]): void {
    const { registers, stamp } = this.#options
    const revision = stamp()
    for (const { wanted } of settled) {
      const { database, table } = wanted
      const known = registers.get(node, wanted)
      registers.set(node, { ...(known ?? removed({ database, table })), revision })
    }
    this.#compareLater(node)
  }

  /** What exists on one of the two nodes, and does not differ in its primary key. */
  #settle(node: string, wanted: readonly Wanted[], ours: TableDescription[], theirs: TableDescription[]) {
    const here = new Map(ours.map((table) => [tableKey(table), table]))
    const there = new Map(theirs.map((table) => [tableKey(table), table]))
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

  /** The mirror image, in pages; then, if these are all there are to be, the names of all. */
  #requests(node: string, settled: readonly Settled[], revision: Stamp, { replace }: AgreeOptions): Request[] {
    const known = this.#options.manifest().nodes.some(({ name }) => name === node)
    const pages = Array.from({ length: Math.ceil(settled.length / PAGE) }, (_, index) =>
      settled.slice(index * PAGE, (index + 1) * PAGE),
    )
    const requests: Request[] = pages.map((page, index) => ({
      operation: known || index > 0 ? 'update_node' : 'add_node',
      revision,
      subscriptions: page.map(({ wanted, table }) => mirrored(wanted, table)),
    }))
    if (!replace) return requests
    const all = settled.map(({ wanted }) => mirrored(wanted))
    return [...requests, { operation: 'update_node', revision, subscriptions: all, replace: true }]
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
    clearTimeout(this.#due.get(node))
    this.#due.delete(node)
    const work = this.#compare(node)
      .catch((error) => {
        this.#options.logger.info({ node, reason: reasonOf(error) }, 'subscriptions could not be compared')
        // A node that refuses knows nothing of revisions, or never will take this; one that is silent is asked again.
        if (!(error instanceof ClusterError && error.code === 'remote_refused')) this.#compareLater(node)
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
    const theirs = new Map((await peers.describe(node, options)).map((table) => [tableKey(table), table]))
    const ours = new Map((await host.describe()).map((table) => [tableKey(table), table]))
    const entries = registers.of(node)
    for (const entry of entries.filter(({ removed }) => !removed)) {
      const there = theirs.get(tableKey(entry))
      if (!ours.has(tableKey(entry)) && there) await host.createTable(there)
      if (entry.publish) await streams.ensure(entry)
    }
    const request: Request = {
      operation: 'compare_node',
      entries: entries.map((entry) => ({
        ...mirrored(entry, ours.get(tableKey(entry)) ?? theirs.get(tableKey(entry))),
        removed: entry.removed,
        revision: entry.revision,
      })),
    }
    const answer = readEntries(await peers.ask(node, request, options))
    if (!answer) throw clusterError('remote_refused', node, 'its comparison could not be read')
    await this.#merge(node, answer.map(toRegister), answer)
  }

  #compareLater(node: string): void {
    if (this.#closed) return
    clearTimeout(this.#due.get(node))
    const timer = setTimeout(() => void this.compare(node), COMPARE_AFTER)
    timer.unref()
    this.#due.set(node, timer)
  }

  close(): void {
    this.#closed = true
    for (const timer of this.#due.values()) clearTimeout(timer)
    this.#due.clear()
  }

  // --- answering --------------------------------------------------------------------------------------------------------

  /** What another node asks of us. Resolves with the message of success; rejects with the reason of the refusal. */
  async answer(request: Request): Promise<unknown> {
    const { commit, node: self, registers, stamp } = this.#options
    const { operation, node_name: node, subscriptions = [], entries = [], replace = false } = request
    // From a node that shows no revision the last request received wins.
    const { revision = stamp() } = request
    this.#options.witness(revision)
    if (!node) throw new Error("'node_name' is required")
    if (node === self) throw clusterError('remote_refused', self, 'there are two nodes of this name')
    if (operation === 'compare_node') return this.#compared(node, entries)
    if (operation === 'remove_node') {
      const older = () => registers.of(node).filter((register) => register.revision < revision)
      await commit(
        (current) => mergeSubscriptions(current, node, older().map(removed), true),
        'peer',
        () => revision,
      )
      return `Successfully removed '${node}' from manifest`
    }
    await this.#prepare(subscriptions)
    await this.#take(node, subscriptions.map(toWanted), revision, replace, 'peer')
    return operation === 'add_node' ? `Successfully added '${node}' to manifest` : `Successfully updated '${node}'`
  }

  /** Takes what is newer, and answers with what is newer here or unknown there. */
  async #compared(node: string, entries: NonNullable<Request['entries']>): Promise<unknown> {
    const { registers, host } = this.#options
    const theirs = new Map(entries.map((entry) => [tableKey({ ...entry, database: entry.schema }), toRegister(entry)]))
    await this.#merge(node, [...theirs.values()], entries)
    const tables = new Map((await host.describe()).map((table) => [tableKey(table), table]))
    return registers
      .of(node)
      .filter((mine) => {
        const known = theirs.get(tableKey(mine))
        return !known || mine.revision > known.revision || !sameValue(mine, known)
      })
      .map((mine) => ({
        ...mirrored(mine, tables.get(tableKey(mine))),
        removed: mine.removed,
        revision: mine.revision,
      }))
  }

  // --- taking over ------------------------------------------------------------------------------------------------------

  /** Subscriptions of one revision: those that are newer here stay; with `replace` those not named end. */
  async #take(node: string, wanted: readonly Wanted[], revision: Stamp, replace: boolean, cause: Cause): Promise<void> {
    const { registers, commit } = this.#options
    const named = new Set(wanted.map(tableKey))
    await this.#place(node, wanted, () =>
      commit(
        (current) => {
          const isOlder = (table: TableName) => (registers.get(node, table)?.revision ?? '') < revision
          const ended = replace ? registers.of(node).filter((each) => !named.has(tableKey(each))) : []
          const changes = [...wanted.map((each) => register(each, revision)), ...ended.map(removed)].filter(isOlder)
          this.#confirm(node, changes, () => revision)
          return mergeSubscriptions(current, node, changes)
        },
        cause,
        () => revision,
      ),
    )
  }

  /** Registers of the other node, as we see them: each that is newer than ours replaces it. */
  async #merge(node: string, theirs: readonly Register[], entries: readonly WireSubscription[]): Promise<void> {
    const { registers, commit, node: self } = this.#options
    const wins = (each: Register): boolean => {
      const mine = registers.get(node, each)
      if (!mine || each.revision > mine.revision) return true
      return each.revision === mine.revision && !sameValue(each, mine) && node > self
    }
    for (const each of theirs) this.#options.witness(each.revision)
    const takeable = await this.#takeable(entries.filter((_, index) => wins(theirs[index]!) && !theirs[index]!.removed))
    const newer = theirs.filter((each) => wins(each) && (each.removed || takeable.has(tableKey(each))))
    const revisions = new Map(newer.map((each) => [tableKey(each), each.revision]))
    const revisionOf = (_: string, table: TableName) => revisions.get(tableKey(table)) ?? this.#options.stamp()
    await this.#place(node, newer, () =>
      commit(
        (current) => {
          const changes = newer.filter(wins)
          this.#confirm(node, changes, revisionOf)
          return mergeSubscriptions(current, node, changes, true)
        },
        'peer',
        revisionOf,
      ),
    )
  }

  /** What has this value already only gets the newer revision: there is nothing to commit that would give it. */
  #confirm(node: string, changes: readonly Register[], revisionOf: RevisionOf): void {
    const { registers } = this.#options
    for (const each of changes) {
      const mine = registers.get(node, each)
      if (mine ? sameValue(mine, each) : each.removed)
        registers.set(node, { ...each, revision: revisionOf(node, each) })
    }
  }

  /** Prepares what can be; what cannot (its table exists on neither node, or differs) stays pending, said in the log. */
  async #takeable(entries: readonly WireSubscription[]): Promise<Set<string>> {
    const keys = new Set<string>()
    for (const entry of entries) {
      try {
        await this.#prepare([entry])
        keys.add(tableKey({ database: entry.schema, table: entry.table }))
      } catch (error) {
        const { schema: database, table } = entry
        this.#options.logger.warn(
          { database, table, reason: reasonOf(error) },
          'a subscription cannot be taken over yet',
        )
      }
    }
    return keys
  }

  /** The tables exist here, and so do their streams. */
  async #prepare(subscriptions: readonly WireSubscription[]): Promise<void> {
    const { host, streams, isReplicable } = this.#options
    const here = new Map((await host.describe()).map((table) => [tableKey(table), table]))
    for (const { schema: database, table, hash_attribute: primaryKey, attributes = [] } of subscriptions) {
      if (!isReplicable({ database, table })) throw clusterError('name_not_replicable', `${database}.${table}`)
      const local = here.get(tableKey({ database, table }))
      if (local && primaryKey && local.primaryKey !== primaryKey)
        throw new Error(`the primary key of '${database}.${table}' is '${local.primaryKey}' here, not '${primaryKey}'`)
      if (!local && !primaryKey) throw clusterError('table_not_found', table)
      const names = attributes.map((each) => (typeof each === 'string' ? each : each.attribute))
      if (!local && primaryKey) await host.createTable({ database, table, primaryKey, attributes: names })
      await streams.ensure({ database, table })
    }
  }

  /** Stores every start, then commits; a commit that fails takes the starts back that were not there before. */
  async #place(node: string, wanted: readonly Wanted[], commit: () => Promise<unknown>): Promise<void> {
    const { streams } = this.#options
    const placed: Source[] = []
    try {
      for (const { database, table, subscribe, startTime } of wanted) {
        if (!subscribe) continue
        const source = { node, database, table }
        placed.push(source)
        await streams.place(source, startTime)
      }
      await commit()
    } catch (error) {
      for (const source of placed) await streams.displace(source).catch(() => {})
      throw error
    }
  }
}

const register = ({ database, table, publish, subscribe }: Subscription, revision: Stamp): Register => ({
  database,
  table,
  publish,
  subscribe,
  removed: false,
  revision,
})

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

const toWanted = ({ schema, table, publish, subscribe, start_time }: WireSubscription): Wanted => ({
  database: schema,
  table,
  publish,
  subscribe,
  ...(start_time && !Number.isNaN(Date.parse(start_time)) ? { startTime: start_time } : {}),
})

const toRegister = (entry: NonNullable<Request['entries']>[number]): Register => ({
  database: entry.schema,
  table: entry.table,
  publish: entry.publish,
  subscribe: entry.subscribe,
  removed: entry.removed,
  revision: entry.revision,
})
