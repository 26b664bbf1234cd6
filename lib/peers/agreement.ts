// How two nodes come to hold mirror images of one subscription: negotiated outside the commit queue, committed when both agree.

import { clusterError, reasonOf } from '../errors.ts'
import type { Host, Source, TableDescription } from '../host.ts'
import type { Logger } from '../logger.ts'
import {
  type Cause,
  findNode,
  type Manifest,
  type Node,
  removeNode,
  type Subscription,
  setSubscriptions,
  tableKey,
} from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Peers } from './peers.ts'
import type { Request, WireSubscription } from './protocol.ts'

/** A subscription as asked for; `startTime` in ISO 8601, UTC. */
export type Wanted = Subscription & { readonly startTime?: string }

/** What came of it: `skipped` tables exist on neither node, or differ in their primary key. */
export type Outcome = { readonly agreed: readonly Wanted[]; readonly skipped: readonly Wanted[] }

export type AgreeOptions = {
  /** Named in the texts of errors. */
  operation: string
  /** Subscriptions that are not named are ended (configure_cluster) instead of kept. */
  replace?: boolean
  /** The manifest holds it already (an edit of the file): it is negotiated, and not committed again. */
  committed?: boolean
  signal?: AbortSignal | undefined
}

/** What an agreement needs of the streams: ours exist before the other node is told, theirs are read from a stored start. */
export interface Streams {
  ensure(table: TableName): Promise<unknown>
  place(source: Source, startTime?: string): Promise<void>
  displace(source: Source): Promise<void>
}

export type AgreementOptions = {
  node: string
  host: Host
  peers: Pick<Peers, 'ask' | 'describe'>
  streams: Streams
  manifest(): Manifest
  commit(change: (current: Manifest) => Manifest, cause: Cause): Promise<unknown>
  isReplicable(table: TableName): boolean
  logger: Logger
}

/** ms after which a node that did not agree is asked again. */
const RENEW_AFTER = 10_000
/** Tables in one request to the other node; each request has its own time-out. */
const PAGE = 100

/** A subscription that can be agreed on, and the table as whichever node has it describes it. */
type Settled = { wanted: Wanted; table: TableDescription; missingHere: boolean }

export class Agreement {
  readonly #options: AgreementOptions
  /** Nodes that have not agreed to what the manifest says, and when they are asked again. */
  readonly #pending = new Map<string, NodeJS.Timeout>()

  constructor(options: AgreementOptions) {
    this.#options = options
  }

  // --- asking -----------------------------------------------------------------------------------------------------------

  /**
   * Describe, settle, tell, place, commit. Rejects node_not_listening, node_timeout, remote_refused, mesh_unavailable;
   * nothing has changed on this side then. Commits nothing when all are skipped.
   */
  async subscribe(node: string, wanted: readonly Wanted[], options: AgreeOptions): Promise<Outcome> {
    const { host, peers, streams, commit } = this.#options
    const [theirs, ours] = await Promise.all([peers.describe(node, options), host.describe()])
    const { settled, skipped } = this.#settle(node, wanted, ours, theirs)
    const agreed = settled.map((each) => each.wanted)
    if (settled.length === 0 && (wanted.length > 0 || !options.replace)) return { agreed, skipped }
    // A file that is bad refuses here, before the other node is told.
    if (!options.committed) await commit((current) => current, 'api')
    for (const { wanted: each } of settled) await streams.ensure(each)
    for (const request of this.#requests(node, settled, options)) await peers.ask(node, request, options)
    const missing = settled.filter((each) => each.missingHere)
    for (const { table } of missing) await host.createTable(table)
    await this.#place(node, agreed, async () => {
      if (options.committed) return
      const { replace = false } = options
      await commit((current) => setSubscriptions(current, node, agreed.map(plain), { replace }), 'api')
    })
    this.#settled(node)
    return { agreed, skipped }
  }

  /** Takes the node out of the manifest, whether or not it could be told. */
  async remove(node: string, options: AgreeOptions): Promise<{ reached: boolean }> {
    const reached = await this.dismiss(node, options)
    await this.#options.commit((current) => removeNode(current, node), 'api')
    return { reached }
  }

  /** Tells the node that it is no longer in our manifest. Never rejects. */
  async dismiss(node: string, options: AgreeOptions = { operation: 'remove_node' }): Promise<boolean> {
    this.#settled(node)
    try {
      await this.#options.peers.ask(node, { operation: 'remove_node' }, options)
      return true
    } catch (error) {
      this.#options.logger.warn({ node, reason: reasonOf(error) }, 'a removed node could not be told')
      return false
    }
  }

  /** Negotiates what the manifest holds already; when the node does not answer, again as soon as it is met. Never rejects. */
  async renew({ name, subscriptions }: Node): Promise<void> {
    this.postpone(name)
    const options = { operation: 'update_node', replace: true, committed: true }
    await this.subscribe(name, subscriptions, options).catch((error) => {
      this.#options.logger.warn({ node: name, reason: reasonOf(error) }, 'subscriptions are pending')
    })
  }

  /** What the manifest holds for this node is still to be agreed on: as soon as it is met, and now and then. */
  postpone(node: string): void {
    this.#settled(node)
    const timer = setTimeout(() => this.#renewPending(node), RENEW_AFTER)
    timer.unref()
    this.#pending.set(node, timer)
  }

  /** The node is there. */
  met(node: string): void {
    if (this.#pending.has(node)) this.#renewPending(node)
  }

  close(): void {
    for (const node of [...this.#pending.keys()]) this.#settled(node)
  }

  #renewPending(name: string): void {
    const node = findNode(this.#options.manifest(), name)
    if (node) void this.renew(node)
    else this.#settled(name)
  }

  #settled(node: string): void {
    clearTimeout(this.#pending.get(node))
    this.#pending.delete(node)
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
  #requests(node: string, settled: readonly Settled[], { replace }: AgreeOptions): Request[] {
    const known = this.#options.manifest().nodes.some(({ name }) => name === node)
    const pages = Array.from({ length: Math.ceil(settled.length / PAGE) }, (_, index) =>
      settled.slice(index * PAGE, (index + 1) * PAGE),
    )
    const requests: Request[] = pages.map((page, index) => ({
      operation: known || index > 0 ? 'update_node' : 'add_node',
      subscriptions: page.map(mirrored),
    }))
    if (!replace) return requests
    const all = settled.map((each) => {
      const { attributes: _, start_time: __, ...named } = mirrored(each)
      return named
    })
    return [...requests, { operation: 'update_node', subscriptions: all, replace: true }]
  }

  // --- answering --------------------------------------------------------------------------------------------------------

  /** What another node asks of us. Resolves with the message of success; rejects with the reason of the refusal. */
  async answer({ operation, node_name: node, subscriptions = [], replace = false }: Request): Promise<string> {
    const { commit, node: self } = this.#options
    if (!node) throw new Error("'node_name' is required")
    if (node === self) throw clusterError('remote_refused', self, 'there are two nodes of this name')
    if (operation === 'remove_node') {
      await commit((current) => removeNode(current, node), 'peer')
      return `Successfully removed '${node}' from manifest`
    }
    const wanted = subscriptions.map(toWanted)
    const refused = wanted.find((each) => !this.#options.isReplicable(each))
    if (refused) throw clusterError('name_not_replicable', `${refused.database}.${refused.table}`)
    await this.#createMissing(subscriptions)
    for (const each of wanted) await this.#options.streams.ensure(each)
    await this.#place(node, wanted, () =>
      commit((current) => setSubscriptions(current, node, wanted.map(plain), { replace }), 'peer'),
    )
    return operation === 'add_node' ? `Successfully added '${node}' to manifest` : `Successfully updated '${node}'`
  }

  async #createMissing(subscriptions: readonly WireSubscription[]): Promise<void> {
    const { host } = this.#options
    const here = new Map((await host.describe()).map((table) => [tableKey(table), table]))
    for (const { schema: database, table, hash_attribute: primaryKey, attributes = [] } of subscriptions) {
      const local = here.get(tableKey({ database, table }))
      if (local && primaryKey && local.primaryKey !== primaryKey)
        throw new Error(`the primary key of '${database}.${table}' is '${local.primaryKey}' here, not '${primaryKey}'`)
      if (local) continue
      if (!primaryKey) throw clusterError('table_not_found', table)
      const names = attributes.map((each) => (typeof each === 'string' ? each : each.attribute))
      await host.createTable({ database, table, primaryKey, attributes: names })
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

const plain = ({ database, table, publish, subscribe }: Wanted): Subscription => ({
  database,
  table,
  publish,
  subscribe,
})

/** What is `publish` here is `subscribe` there. */
const mirrored = ({ wanted, table }: Settled): WireSubscription => ({
  schema: wanted.database,
  table: wanted.table,
  hash_attribute: table.primaryKey,
  publish: wanted.subscribe,
  subscribe: wanted.publish,
  ...(wanted.startTime ? { start_time: wanted.startTime } : {}),
  attributes: table.attributes,
})

const toWanted = ({ schema, table, publish, subscribe, start_time }: WireSubscription): Wanted => ({
  database: schema,
  table,
  publish,
  subscribe,
  ...(start_time && !Number.isNaN(Date.parse(start_time)) ? { startTime: start_time } : {}),
})
