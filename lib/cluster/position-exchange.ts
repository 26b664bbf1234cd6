// Positions between nodes, connected with the other parts of the service: tells sources how far their tables are applied here, takes the
// reports of subscribers, and waits for positions, here and there.

import type { RemoteTable, TableName, Transaction } from '../host/host.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { Peers } from '../peers/peers.ts'
import { type PositionsPeerRequest, readRefusedTables } from '../peers/protocol.ts'
import type { TableStatuses } from '../replication/copy/table-replacement.ts'
import { type AppliedPosition, positionOfCheckpoint } from '../replication/positions/applied-state.ts'
import { toReport } from '../replication/positions/position-report.ts'
import { PositionReporter } from '../replication/positions/position-reporter.ts'
import { type Replica, ReplicaPositions } from '../replication/positions/replica-positions.ts'
import { ReplicationWaits } from '../replication/positions/replication-waits.ts'
import { StreamTrimmer } from '../replication/positions/stream-trimmer.ts'
import { TableIndex } from '../replication/positions/table-index.ts'
import { decodeToken, encodeToken } from '../replication/positions/token.ts'
import { TokenWaits } from '../replication/positions/token-waits.ts'
import { Watches } from '../replication/positions/watches.ts'
import type { Publisher } from '../replication/publish/publisher.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import { sourceKey } from '../replication/subscribe/sources.ts'
import { effectiveTrimAfter } from './stream-limits.ts'
import {
  type CaughtUpOptions,
  checkReplicatedOptions,
  checkTimeout,
  type ReplicatedOptions,
} from './waiting-options.ts'

export type PositionExchangeOptions = {
  node: string
  mesh: Mesh
  store: Pick<ManifestStore, 'manifest' | 'settings' | 'listen'>
  logger: Logger
  /** The host has `readRows`. */
  servesRows: boolean
  requestTimeout: number
  publisher: Publisher
  replicator: Replicator
  statuses: TableStatuses
  /** The operator has paused this subscription. */
  isPaused(source: RemoteTable): boolean
  /** Built later. */
  peers(): Pick<Peers, 'request' | 'isUp' | 'sessionOf'>
}

export class PositionExchange {
  readonly #options: PositionExchangeOptions
  readonly #index: TableIndex
  readonly #reporter: PositionReporter
  readonly #watches: Watches
  readonly #replicas: ReplicaPositions
  readonly #waits: ReplicationWaits
  readonly #tokens: TokenWaits
  readonly #trimmer: StreamTrimmer
  /** By `sourceKey`: the session of the source's servers in which the position was compared with the stream. */
  readonly #comparedIn = new Map<string, string>()

  constructor(options: PositionExchangeOptions) {
    this.#options = options
    const { mesh, store, replicator, publisher, peers, statuses } = options
    const { timers } = mesh
    const isUp = (node: string) => peers().isUp(node)
    this.#index = new TableIndex(() => store.manifest)
    this.#reporter = new PositionReporter({
      timers,
      isUp,
      sources: () => replicator.sources,
      report: (source) => this.#report(source),
      send: async (node, positions) => {
        const answer = await this.#request(node, { operation: 'report_positions', positions })
        return readRefusedTables(answer) ?? []
      },
    })
    this.#watches = new Watches({
      timers,
      isUp,
      send: async (node, tables) =>
        void (await this.#request(node, { operation: 'watch_positions', tables: [...tables] })),
    })
    const index = this.#index
    this.#replicas = new ReplicaPositions({
      timers,
      index,
      publisher,
      session: () => mesh.session,
      storedAt: async (table, sequence) => {
        const { node, requestTimeout: timeout } = options
        return (await mesh.messageAt({ node, ...table }, sequence, { timeout }))?.time
      },
      reported: (source, report, previous) => this.#waits.onReport(source, report, previous),
    })
    const replicas = this.#replicas
    this.#waits = new ReplicationWaits({ timers, index, publisher, replicas, watches: this.#watches })
    this.#tokens = new TokenWaits({
      ...options,
      index,
      position: (source) => this.#comparedPosition(source),
      checkpoint: (source) => replicator.checkpointOf(source),
      statusOf: (source, asking) => statuses.there(source, asking),
    })
    this.#trimmer = new StreamTrimmer({
      ...options,
      index,
      replicas,
      trimAfter: () => effectiveTrimAfter(store.settings.streams, options.servesRows),
    })
    store.listen({ committed: () => this.#onManifest(), limitsChanged: () => this.#onLimits() })
  }

  /** After `close`, it may be started again. */
  start(): void {
    this.#reporter.start()
    this.#replicas.start()
    this.#waits.start()
    this.#trimmer.start()
    this.#onLimits()
  }

  /** Rejects everything that waits. */
  close(): void {
    this.#reporter.close()
    this.#replicas.close()
    this.#waits.close()
    this.#trimmer.close()
    this.#tokens.close()
  }

  /** Answers a request of a remote node. */
  answer({ node, operation, positions, tables = [] }: PositionsPeerRequest): { refused: TableName[] } {
    if (operation === 'watch_positions') this.#reporter.watch(node, tables)
    return { refused: positions ? this.#replicas.accept(node, positions) : [] }
  }

  /** The checkpoint of a source was read, stored or dropped; or whether it is paused has changed. */
  onCheckpoint(source: RemoteTable): void {
    if (!this.#options.replicator.checkpointOf(source)) this.#comparedIn.delete(sourceKey(source))
    this.#reporter.mark(source)
    this.#tokens.onChange(source)
  }

  /** The position was compared with the stream of this session of the source's servers; undefined: not known before its first heartbeat. */
  onCompared(source: RemoteTable, session: string | undefined): void {
    if (session === undefined || this.#comparedIn.get(sourceKey(source)) === session) return
    this.#comparedIn.set(sourceKey(source), session)
    this.onCheckpoint(source)
  }

  /** The process or the link of the node is a new one; without a name, the local link is. */
  onLinked(node?: string): void {
    this.#watches.forget(node)
    this.#reporter.resend(node)
    this.#waits.watchAll()
  }

  /** See ClusterManager.replicas. */
  replicas(table: TableName): Replica[] {
    return this.#replicas.replicas(table)
  }

  /** Of one node; undefined if it does not subscribe to the table. */
  replica(subscriber: RemoteTable): Replica | undefined {
    return this.#replicas.replica(subscriber)
  }

  /** See ClusterManager.replicated. */
  async replicated(transaction: Transaction, options: ReplicatedOptions = {}): Promise<void> {
    return this.#waits.wait(transaction, checkReplicatedOptions(options))
  }

  /** See ClusterManager.token. */
  async token(transaction: Transaction): Promise<string> {
    const parts = await this.#options.publisher.locate(transaction)
    return encodeToken({ node: this.#options.node, timestamp: transaction.timestamp, parts })
  }

  /** See ClusterManager.caughtUp. */
  async caughtUp(token: string, { timeout, signal }: CaughtUpOptions = {}): Promise<void> {
    return this.#tokens.wait(decodeToken(token), { timeout: checkTimeout(timeout), signal })
  }

  #onManifest(): void {
    this.#replicas.onManifest()
    this.#waits.onManifest()
    this.#tokens.onManifest()
  }

  #onLimits(): void {
    const { store, servesRows, logger } = this.#options
    if (store.settings.streams.trim === 'applied' && !servesRows)
      logger.warn(
        {},
        'streams are not trimmed: the database has no readRows, so a subscriber could not copy what it needs',
      )
    this.#trimmer.onSettings()
  }

  #request(node: string, request: Parameters<Peers['request']>[1]): Promise<unknown> {
    return this.#options.peers().request(node, request, { operation: request.operation })
  }

  #report(source: RemoteTable) {
    const position = this.#position(source)
    const session = this.#comparedIn.get(sourceKey(source))
    return position && toReport(source, position, { paused: this.#options.isPaused(source), session })
  }

  /** Undefined while the source is up and the position was not compared with its stream: it may be one of a future that is lost. */
  #comparedPosition(source: RemoteTable): AppliedPosition | undefined {
    const peers = this.#options.peers()
    const session = this.#comparedIn.get(sourceKey(source))
    return peers.isUp(source.node) && peers.sessionOf(source.node) !== session ? undefined : this.#position(source)
  }

  #position(source: RemoteTable): AppliedPosition | undefined {
    const { replicator } = this.#options
    const checkpoint = replicator.checkpointOf(source)
    if (!checkpoint) return undefined
    // A table that is being replaced has lost the rows of all sources.
    const isEmptied = this.#index
      .sourcesOf(source)
      .some((each) => replicator.checkpointOf(each)?.copy?.replace === 'emptied')
    return positionOfCheckpoint(source.node, checkpoint, isEmptied)
  }
}
