// Keeps the subscriptions of two nodes mirror images of each other. A subscription is a register that both nodes hold: each
// change gives it a revision, the higher revision wins on both, and the nodes compare their registers whenever they meet.

import { clusterError } from '../errors.ts'
import type { Host } from '../host/host.ts'
import type { HybridClock } from '../host/hybrid-clock.ts'
import { isNodeName } from '../manifest/names.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { NameCheck, TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Timers } from '../util/timers.ts'
import { Agreements, type AgreementsOptions, type Disagreement, type Refusal } from './agreements.ts'
import { Comparison } from './comparison.ts'
import { checkHarperRequest } from './harper-peers.ts'
import { type NegotiateOptions, Negotiation, type SkippedSubscription, type SubscribeResult } from './negotiation.ts'
import type { Peers } from './peers.ts'
import type { PeerRequest } from './protocol.ts'
import type { Registers } from './registers.ts'
import { type LocalStreams, Tables } from './tables.ts'
import { type Progress, type SubscriptionStarts, Takeover } from './takeover.ts'
import type { SubscriptionRequest } from './wire-subscription.ts'

export type { NegotiateOptions, SkippedSubscription, SubscribeResult, SubscriptionRequest, SubscriptionStarts }

export type NegotiatorOptions = {
  /** Name of the local node. */
  node: string
  host: Host
  peers: Pick<Peers, 'request' | 'describeTables' | 'isUp' | 'isHarper'>
  streams: LocalStreams
  starts: SubscriptionStarts
  store: Pick<ManifestStore, 'manifest' | 'commit'>
  registers: Registers
  clock: Pick<HybridClock, 'timestamp' | 'merge'>
  /** Nodes of HarperDB may read from this one. Default: false. */
  harperReaders?: boolean
  /** Throws clock_ahead while the revisions that this node issues are too far in the future. */
  checkClock(): void
  /** Why a node, database or table of that name cannot take part in the cluster. */
  nameFault: NameCheck
  logger: Logger
  timers: Timers
  /** A local table was created as `node` describes it. */
  tableCreated(table: TableName, node: string): void
  /** The primary keys of a node's tables are known. */
  sourceKeysKnown(node: string): void
  /** The table of `node` has attributes that the local one did not have. */
  attributesAdded(table: TableName, node: string, attributes: string[]): void
  /** A remote node cannot accept a subscription; called once for each change of the reason. */
  refused: AgreementsOptions['refused']
  /** See NegotiationOptions. */
  askedInVain?(): void
  /** Returns a function that reports how many tables are done; a step that ends at once is not reported. */
  progress(node: string, step: 'streams' | 'agreement' | 'start'): Progress
}

export class Negotiator {
  readonly #options: NegotiatorOptions
  readonly #tables: Tables
  readonly #takeover: Takeover
  readonly #agreements: Agreements
  readonly #comparison: Comparison
  readonly #negotiation: Negotiation

  constructor(options: NegotiatorOptions) {
    this.#options = options
    this.#tables = new Tables(options)
    this.#takeover = new Takeover({ ...options, tables: this.#tables })
    this.#agreements = new Agreements(options)
    for (const [node, tables] of options.registers.changedWhileDown) this.#agreements.changed(node, tables)
    const { harperReaders = false } = options
    const parts = { tables: this.#tables, takeover: this.#takeover, agreements: this.#agreements, harperReaders }
    this.#comparison = new Comparison({ ...options, ...parts })
    this.#negotiation = new Negotiation({ ...options, ...parts, compare: (node) => this.#comparison.compare(node) })
  }

  /** See Negotiation.subscribe. */
  subscribe(
    node: string,
    requests: readonly SubscriptionRequest[],
    options: NegotiateOptions,
  ): Promise<SubscribeResult> {
    return this.#negotiation.subscribe(node, requests, options)
  }

  /** See Negotiation.askedOf. */
  askedOf(node: string): readonly SubscriptionRequest[] {
    return this.#negotiation.askedOf(node)
  }

  /** See Negotiation.remove. */
  remove(node: string, options: NegotiateOptions): Promise<{ reached: boolean }> {
    return this.#negotiation.remove(node, options)
  }

  /** What subscriptions need to know of remote tables. */
  get sourceTables(): Pick<Tables, 'primaryKeyOf' | 'refresh' | 'createFor' | 'servesRows' | 'attributesFound'> {
    return this.#tables
  }

  /** Compares with a node that is reachable again, if it shares subscriptions with the local node. */
  onPeerUp(node: string): void {
    if (this.#options.registers.forNode(node).length > 0) void this.compare(node)
  }

  /** What the remote node has not agreed to, and why. */
  disagreement(node: string, table: TableName): Disagreement | undefined {
    return this.#agreements.get(node, table)
  }

  /** The subscriptions that remote nodes cannot accept. */
  refusals(): Refusal[] {
    return this.#agreements.refusals()
  }

  /** The manifest holds changes that the node has not agreed to: compares with it now, and retries until it is reached. */
  scheduleCompare(node: string, tables: readonly TableName[] = []): void {
    this.#agreements.changed(node, tables)
    void this.compare(node)
  }

  /**
   * Runs `commit`, which sets these subscriptions of nodes that do not answer now. Their `copy` and `start_time` take effect when the
   * nodes agree. Rejects as `commit`.
   */
  async commitPending(
    pending: readonly { node: string; subscriptions: readonly SubscriptionRequest[] }[],
    commit: () => Promise<unknown>,
  ): Promise<void> {
    const requests = pending.flatMap(({ node, subscriptions }) => subscriptions.map((each) => ({ ...each, node })))
    await this.#options.registers.withRequests(requests, commit)
    for (const { node } of pending) this.scheduleCompare(node)
  }

  /** See Comparison.compare. */
  compare(node: string): Promise<void> {
    return this.#comparison.compare(node)
  }

  /** After `close`. */
  reopen(): void {
    this.#comparison.reopen()
    this.#tables.reopen()
  }

  close(): void {
    this.#comparison.close()
    this.#tables.close()
  }

  /** Answers a request of a remote node. Resolves with the message of success; rejects with the reason of the refusal. */
  async handleRequest(request: PeerRequest): Promise<unknown> {
    const { node: self, clock, nameFault } = this.#options
    // A request without a revision (HarperDB) counts as the newest one.
    const { operation, node_name: node, revision = clock.timestamp() } = request
    const isHarper = request.v === undefined && request.revision === undefined
    if (!node) throw new Error("'node_name' is required")
    if (!isNodeName(node)) throw new Error("'node_name' invalid, must not contain ., * or >")
    const fault = nameFault(node)
    if (fault) throw new Error(`'node_name' invalid, ${fault}`)
    if (node === self) throw clusterError('peer_rejected', self, 'there are two nodes of this name')
    if (isHarper) checkHarperRequest(self, request, this.#options.harperReaders === true)
    if (!this.#takeover.observe(revision))
      throw new Error(
        `the revision of the request lies too far in the future: correct the clock of the node that is wrong; if it was '${node}', call cluster.restamp() there`,
      )
    // Its own revisions of the future would win over the request.
    if (operation !== 'compare_node') this.#options.checkClock()
    // HarperDB's own texts.
    switch (operation) {
      case 'compare_node':
        return this.#comparison.answer(node, request)
      case 'remove_node':
        await this.#negotiation.acceptRemoval(node, revision)
        return `Successfully removed '${node}' from manifest`
      case 'add_node':
        await this.#negotiation.accept(node, request, revision)
        return `Successfully added '${node}' to manifest`
      default:
        await this.#negotiation.accept(node, request, revision)
        return `Successfully updated '${node}'`
    }
  }
}
