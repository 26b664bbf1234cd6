// Negotiation: an operation changes the subscriptions with one remote node. The remote node accepts the mirror image first; then the
// local node commits.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { TableDescription, Timestamp } from '../host/host.ts'
import type { HybridClock } from '../host/hybrid-clock.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { ManifestStore } from '../manifest/store.ts'
import { MeshError, type TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Agreements } from './agreements.ts'
import { publishFault } from './harper-peers.ts'
import type { Peers } from './peers.ts'
import type { PeerRequest } from './protocol.ts'
import { type Register, removedRegister } from './register.ts'
import type { Registers } from './registers.ts'
import { toClusterError } from './request-error.ts'
import { byKey, type Tables, type TablesByKey } from './tables.ts'
import type { Progress, Takeover } from './takeover.ts'
import { fromWire, type SubscriptionRequest, toPages, toRegister, toWire } from './wire-subscription.ts'

export type SkippedSubscription = SubscriptionRequest & { readonly reason: string }

/** `skipped` tables exist on neither node, or differ in their primary key. */
export type SubscribeResult = {
  readonly agreed: readonly SubscriptionRequest[]
  readonly skipped: readonly SkippedSubscription[]
}

export type NegotiateOptions = {
  /** Name of the operation in error texts. */
  operation: string
  /** Removes the subscriptions that are not named (configure_cluster). */
  replace?: boolean
  signal?: AbortSignal | undefined
  /** The caller whose operation this is. */
  user?: string | undefined
}

export type NegotiationOptions = {
  peers: Pick<Peers, 'request' | 'describeTables' | 'isHarper'>
  store: Pick<ManifestStore, 'manifest' | 'commit'>
  registers: Registers
  tables: Tables
  takeover: Takeover
  agreements: Agreements
  /** Nodes of HarperDB may read from this one. */
  harperReaders: boolean
  clock: Pick<HybridClock, 'timestamp'>
  logger: Logger
  /** Throws clock_ahead. */
  checkClock(): void
  /** Starts a comparison, which brings the remote node what it missed. */
  compare(node: string): Promise<void>
  progress(node: string, step: 'streams' | 'agreement'): Progress
  /** A node that was asked may have begun to read, and nothing was committed. */
  askedInVain?(): void
}

/** A subscription that both nodes can have, and the table as one of them describes it. */
type MatchedTable = { request: SubscriptionRequest; table: TableDescription; missingHere: boolean }

export class Negotiation {
  readonly #options: NegotiationOptions
  /** Subscriptions that nodes are being asked for, by node. */
  readonly #asked = new Map<string, readonly SubscriptionRequest[]>()

  constructor(options: NegotiationOptions) {
    this.#options = options
  }

  /**
   * Describes the tables, creates streams, requests the mirror image, stores the starts, commits. Rejects node_not_listening,
   * node_timeout, peer_rejected, mesh_unavailable, clock_ahead; nothing has changed on this side then. Commits nothing when all are skipped.
   */
  async subscribe(
    node: string,
    requests: readonly SubscriptionRequest[],
    options: NegotiateOptions,
  ): Promise<SubscribeResult> {
    const { peers, tables, takeover, clock, progress } = this.#options
    const [remote, local] = await Promise.all([peers.describeTables(node, options), tables.local(options)])
    const refused = peers.isHarper(node) ? publishFault(requests, this.#options.harperReaders) : undefined
    if (refused !== undefined) throw clusterError('peer_rejected', node, refused)
    const { matched, skipped } = this.#matchTables(node, requests, local, byKey(remote))
    const agreed = matched.map(({ request }) => request)
    for (const { request } of matched) tables.checkCopy(node, request, remote[0]?.servesRows)
    if (matched.length === 0 && (requests.length > 0 || !options.replace)) return { agreed, skipped }
    await this.#checkWritable()
    await tables.ensureStreams(agreed, progress(node, 'streams'))
    const revision = clock.timestamp()
    const removed = () => (options.replace ? this.#unnamedRegisters(node, agreed, revision) : [])
    const changes = () => [...agreed.map((each) => toRegister(each, revision)), ...removed()]
    const ended = () => this.#asked.delete(node)
    const failed = (error: unknown) => {
      ended()
      this.#options.askedInVain?.()
      throw error
    }
    this.#asked.set(node, agreed)
    await this.#withdrawOnFailure(node, { tables: changes, revision, ...options }, async (ask) => {
      let sent = 0
      const report = progress(node, 'agreement')
      for (const request of this.#requests(node, matched, revision, options)) {
        await ask(request)
        sent = Math.min(sent + (request.subscriptions?.length ?? 0), matched.length)
        report(sent, matched.length)
      }
      for (const { table, missingHere } of matched) if (missingHere) await tables.create(table, node, options)
      await takeover.commitWinning(node, changes, 'api', { user: options.user })
      this.#options.agreements.confirm(node, changes())
      tables.addAttributes(node, byKey(remote), local)
    }).then(ended, failed)
    return { agreed, skipped }
  }

  /** The subscriptions that this node is being asked for now. A HarperDB node begins to read before they are committed here. */
  askedOf(node: string): readonly SubscriptionRequest[] {
    return this.#asked.get(node) ?? []
  }

  /** Rejects before the remote node receives a request, when the configuration file is invalid or the clock is ahead. */
  async #checkWritable(): Promise<void> {
    this.#options.checkClock()
    await this.#options.store.commit((current) => current, 'api')
  }

  /**
   * Removes the node from the manifest even when it cannot be reached; a later comparison brings it the removal. Rejects aborted.
   */
  async remove(node: string, options: NegotiateOptions): Promise<{ reached: boolean }> {
    const { registers, takeover, agreements, clock, logger, compare } = this.#options
    await this.#checkWritable()
    const revision = clock.timestamp()
    const existing = () => registers.forNode(node)
    let reached = true
    await this.#withdrawOnFailure(node, { tables: existing, revision, ...options }, async (ask) => {
      await ask({ operation: 'remove_node', revision }).catch((error) => {
        if (error instanceof ClusterError && error.code === 'aborted') throw error
        reached = false
        logger.warn({ peer: node, reason: reasonOf(error) }, 'removed node not reached')
      })
      const removed = () => existing().map((each) => removedRegister(each, revision))
      await takeover.commitWinning(node, removed, 'api', { dropEmpty: true, user: options.user })
    })
    if (reached) agreements.confirm(node, existing())
    else {
      agreements.changed(node, existing())
      void compare(node)
    }
    return { reached }
  }

  /**
   * When `work` fails after the remote node may have accepted a request with this revision, the tables get a newer revision with
   * their present values, and a comparison brings the remote node back to those. Until then no comparison brings the request back.
   */
  async #withdrawOnFailure(
    node: string,
    {
      tables,
      revision: asked,
      ...options
    }: NegotiateOptions & { tables: () => readonly TableName[]; revision: Timestamp },
    work: (ask: (request: PeerRequest) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const { peers, registers, takeover, clock, compare } = this.#options
    let delivered = false
    const ended = takeover.ignoreOwn(node, asked)
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
        const revision = clock.timestamp()
        const concerned = tables()
        for (const table of concerned)
          registers.set(node, { ...(registers.get(node, table) ?? removedRegister(table)), revision })
        this.#options.agreements.changed(node, concerned)
        void compare(node)
      }
      // Setting a start asks the remote node's streams, which fails with a MeshError.
      throw error instanceof MeshError ? toClusterError(error, options.operation, node) : error
    } finally {
      ended()
    }
  }

  /** Removals of the registers of all tables that are not named. */
  #unnamedRegisters(node: string, named: readonly TableName[], revision: Timestamp): Register[] {
    const keys = new Set(named.map(tableKey))
    const unnamed = this.#options.registers.forNode(node).filter((each) => !keys.has(tableKey(each)))
    return unnamed.map((each) => removedRegister(each, revision))
  }

  #matchTables(node: string, requests: readonly SubscriptionRequest[], local: TablesByKey, remote: TablesByKey) {
    const matched: MatchedTable[] = []
    const skipped: SkippedSubscription[] = []
    for (const request of requests) {
      const [here, there] = [local.get(tableKey(request)), remote.get(tableKey(request))]
      const table = here ?? there
      const reason = !table
        ? 'the table exists on neither node'
        : here && there && here.primaryKey !== there.primaryKey
          ? `its primary key is '${here.primaryKey}' on the local node and '${there.primaryKey}' on the remote node`
          : undefined
      if (table && reason === undefined) matched.push({ request, table, missingHere: !here })
      else if (reason !== undefined) {
        skipped.push({ ...request, reason })
        const { database, table: name } = request
        this.#options.logger.warn({ peer: node, database, table: name, reason }, 'subscription skipped')
      }
    }
    return { matched, skipped }
  }

  /** The mirror image in pages. With `replace` and more than one page, a last request names all tables to keep. */
  #requests(
    node: string,
    matched: readonly MatchedTable[],
    revision: Timestamp,
    { replace }: NegotiateOptions,
  ): PeerRequest[] {
    const known = this.#options.store.manifest.nodes.some(({ name }) => name === node)
    const requests: PeerRequest[] = toPages(matched).map((page, index) => ({
      operation: known || index > 0 ? 'update_node' : 'add_node',
      revision,
      subscriptions: page.map(({ request, table }) => toWire(request, table)),
    }))
    if (!replace) return requests
    if (requests.length === 1) return [{ ...requests[0]!, replace }]
    const all = matched.map(({ request }) => toWire(request))
    return [...requests, { operation: 'update_node', revision, subscriptions: all, replace }]
  }

  /** Accepts the subscriptions that a remote node requests. Rejects with the reason of the refusal. */
  async accept(node: string, { subscriptions = [], replace = false }: PeerRequest, revision: Timestamp): Promise<void> {
    const { tables, takeover, agreements } = this.#options
    const named = subscriptions.map((each) => fromWire(each, revision))
    if (takeover.withinLimit(node, named).length < named.length)
      throw new Error('there are too many subscriptions already')
    await tables.prepare(node, subscriptions, await tables.local())
    const removed = () => (replace ? this.#unnamedRegisters(node, named, revision) : [])
    await takeover.commitWinning(node, () => [...named, ...removed()], 'peer')
    agreements.confirm(node, [...named, ...removed()])
  }

  /** Accepts that a remote node removes all of its subscriptions with this one. */
  async acceptRemoval(node: string, revision: Timestamp): Promise<void> {
    const { registers, takeover, agreements } = this.#options
    const removed = () => registers.forNode(node).map((each) => removedRegister(each, revision))
    await takeover.commitWinning(node, removed, 'peer', { dropEmpty: true })
    agreements.confirm(node, removed())
  }
}

/** The request did not arrive or was rejected: the remote node has changed nothing. */
const wasRejected = (error: unknown): boolean =>
  error instanceof ClusterError &&
  (error.code === 'peer_rejected' || (error.cause instanceof MeshError && error.cause.code === 'no_responders'))
