// Everything that runs only while clustering is enabled: builds the parts, connects them, starts them, ends them.
//
// Dependencies: publisher and replicator use the mesh and the host; peers use the mesh; the negotiator uses peers, registers
// and, through `SubscriptionStarts`, publisher and replicator. Three calls go the other way, through this object: peers pass
// requests and returning nodes on to the negotiator, and the replicator asks it for the tables of remote nodes.

import type { SlowHostCall } from '../host/host-calls.ts'
import { type HybridClock, makeTimestamp } from '../host/hybrid-clock.ts'
import { findNode } from '../manifest/manifest.ts'
import type { Commit, ManifestStore } from '../manifest/store.ts'
import type { Mesh, MeshListener, NameCheck, StreamLimits } from '../mesh/mesh.ts'
import { ProgressReport, type ProgressTask } from '../observe/progress.ts'
import type { Negotiator } from '../peers/negotiator.ts'
import { type PeerListener, Peers } from '../peers/peers.ts'
import type { Registers } from '../peers/registers.ts'
import type { Publisher } from '../replication/publish/publisher.ts'
import type { PendingChange } from '../replication/subscribe/ending-subscriptions.ts'
import type { Quarantine } from '../replication/subscribe/quarantine.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'
import { type EndStep, runSteps } from '../util/run-steps.ts'
import type { ClockControl } from './clock-control.ts'
import { createClockControl } from './create-clock-control.ts'
import { createNegotiator } from './create-negotiator.ts'
import { createPublisher } from './create-publisher.ts'
import { createReplicator } from './create-replicator.ts'
import { createRowExchange } from './create-row-exchange.ts'
import { createStandingDown } from './create-standing-down.ts'
import { type Foundation, openFoundation, type ServiceOptions } from './foundation.ts'
import { harperReaders, hasHarperReaders } from './harper-readers.ts'
import { NodeHealth } from './node-health.ts'
import { type OperationParts, operationParts } from './operation-parts.ts'
import type { CheckedOptions } from './options.ts'
import { Pauses } from './pauses.ts'
import { LinkReport } from './peer-links.ts'
import { type PeerState, PeerStates } from './peer-states.ts'
import { PositionExchange } from './position-exchange.ts'
import { Reconciler } from './reconcile.ts'
import { type Emit, peerReports } from './reports.ts'
import type { RowExchange } from './row-exchange.ts'
import { createSourceTables } from './source-tables.ts'
import { type StandingDown, SUPERSEDED } from './standing-down.ts'
import { effectiveLimits } from './stream-limits.ts'

/** A part that has not ended by then, usually for a call of the host, does not hold up the others. */
const CLOSE_TIMEOUT_MS = { part: 15_000, mesh: 60_000 }
/** Steps of `open` that `progress` reports. */
const OPEN_STEPS = 3

export class Service {
  readonly mesh: Mesh
  readonly publisher: Publisher
  readonly replicator: Replicator
  readonly peers: Peers
  readonly quarantine: Quarantine
  readonly clockControl: ClockControl
  readonly health: NodeHealth
  readonly rows: RowExchange
  readonly positions: PositionExchange
  readonly pauses: Pauses
  readonly #peerStates: PeerStates
  readonly #options: CheckedOptions
  readonly #store: ManifestStore
  readonly #clock: HybridClock
  readonly #emit: Emit
  readonly #reports: ReturnType<typeof peerReports>
  /** Why a node, database or table of that name cannot take part in the cluster. */
  readonly #nameFault: NameCheck
  readonly #negotiator: Negotiator
  readonly #registers: Registers
  /** Undefined until the manifest is in effect for the first time. */
  #reconciler: Reconciler | undefined
  /** Another process uses the name of this node and was there first. */
  readonly #standingDown: StandingDown

  /** Reads the stored state and builds the parts; nothing runs yet. Rejects as `openFoundation`. */
  static async create(options: ServiceOptions): Promise<Service> {
    options.emit('progress', { task: 'open', step: 'state', done: 0, total: OPEN_STEPS })
    const foundation = await openFoundation(options)
    options.options.host.setBaseTimestamp?.(makeTimestamp(0, 0, foundation.registers.firstNode))
    return new Service(options, foundation)
  }

  private constructor({ options, store, clock, emit }: ServiceOptions, foundation: Foundation) {
    this.#options = options
    this.#store = store
    this.#clock = clock
    this.#emit = emit
    this.#reports = peerReports(emit, options.logger)
    this.mesh = foundation.mesh
    this.quarantine = foundation.quarantine
    this.#nameFault = foundation.nameFault
    this.#registers = foundation.registers
    this.publisher = createPublisher(options, foundation, {
      ...{ node: store.manifest.nodeName, singleMessages: hasHarperReaders(store) },
      diverged: (divergence) => {
        emit('replication:diverged', divergence)
        this.replicator.onDatabaseRestored(divergence)
      },
    })
    this.clockControl = createClockControl({ options, store, clock, emit }, foundation, {
      publish: (transactions) => this.publisher.relay(transactions),
      negotiator: () => this.#negotiator,
    })
    this.#peerStates = new PeerStates({ manifest: () => store.manifest, parts: () => this })
    this.health = this.#createHealth()
    const tables = () => this.#negotiator.sourceTables
    this.rows = createRowExchange(options, { mesh: this.mesh, store, emit, parts: () => this, tables })
    this.replicator = createReplicator(options, foundation, {
      store,
      clock,
      emit,
      rows: this.rows.requests,
      aheadOf: (peer) => this.clockControl.aheadOf(peer),
      onCheckpoint: (source) => this.positions.onCheckpoint(source),
      sessionOf: (node) => this.peers.sessionOf(node),
      isSilent: (node) => this.peers.isHarper(node) || !this.peers.wasHeard(node),
      onCompared: (source, session) => this.positions.onCompared(source, session),
      relay: (transactions) => this.publisher.relay(transactions),
      sourceTables: createSourceTables(tables),
      progress: (task) => this.#progress(task),
    })
    this.peers = this.#createPeers()
    this.positions = this.#createPositions(foundation)
    const { positions, replicator } = this
    this.pauses = new Pauses({ registers: foundation.registers, replicator, positions })
    this.#negotiator = this.#createNegotiator()
    this.#standingDown = createStandingDown({ options, store, emit }, this, {
      // Logged; `close` tries the parts again.
      stop: () => this.#runSteps(this.#endSteps()).catch(() => {}),
      resume: () => this.#takePart(() => {}),
      rejected: this.#reports.rejected,
    })
    this.#registers.subscribe(
      this.#store,
      (node, tables) => this.#negotiator.scheduleCompare(node, tables),
      (source) => this.replicator.onStartRequested(source),
    )
  }

  /** Resolves when this node can write its streams and answers requests. Rejects as `Mesh.open`. */
  async start(): Promise<void> {
    this.#store.listen({
      committed: (commit) => this.#onCommit(commit),
      limitsChanged: ({ streams }) => this.#onLimitsChanged(streams),
      rejected: () => {},
      missing: () => {},
    })
    await this.#takePart((step, done) => this.#emit('progress', { task: 'open', step, done, total: OPEN_STEPS }))
    this.health.start()
  }

  /** Starts everything that `#endSteps` ends. */
  async #takePart(step: (step: string, done: number) => void): Promise<void> {
    const { mesh, replicator, peers } = this
    const { settings, manifest } = this.#store
    this.clockControl.start()
    step('servers', 1)
    // HarperDB copies no rows: what it has not read must stay.
    const servesRows = this.#options.host.readRows !== undefined && !hasHarperReaders(this.#store)
    await mesh.setLimits(effectiveLimits(settings.streams, servesRows))
    const parts = { store: this.#store, registers: this.#registers, negotiator: this.#negotiator }
    if (hasHarperReaders(this.#store)) mesh.admitReaders?.(harperReaders({ ...parts, publisher: this.publisher }))
    await mesh.open(manifest.nodeName, manifest.routes, this.#meshListener())
    step('subscriptions', 2)
    this.#negotiator.reopen()
    replicator.reopen()
    peers.start()
    this.positions.start()
    const started = this.#store.manifest
    await replicator.reconcile(started)
    this.#reconciler = new Reconciler({
      mesh,
      // Not awaited: a database that does not answer must not delay other steps.
      replicator: { reconcile: async (manifest) => void replicator.reconcile(manifest) },
      store: this.#store,
      logger: this.#options.logger,
      servesRows,
      inEffect: { routes: manifest.routes, nodes: started.nodes, limits: settings.streams },
    })
    // The file may have been edited while the servers started.
    this.#reconciler.reconcile()
    step('subscriptions', 3)
  }

  /** Why this node takes no part now: another process used its name first. */
  get superseded(): string | undefined {
    return this.#standingDown.reason
  }

  /** See PeerStates.all. */
  peerStates(): PeerState[] {
    return this.#peerStates.all()
  }

  /** Resolves when everything committed so far was tried once. Never rejects. */
  async reconciled(): Promise<void> {
    await this.#reconciler?.idle()
    await this.replicator.idle()
  }

  /** Subscriptions that were removed and have not ended, with the reason. */
  pending(): PendingChange[] {
    return this.replicator.pending()
  }

  /** The database has not answered a call: subscriptions of its table are stalled. */
  onHostSlow(call: SlowHostCall): void {
    this.replicator.onHostSlow(call)
  }

  /** The parts that operations use. */
  operationParts(): OperationParts {
    return operationParts(this, this.#negotiator, this.#nameFault)
  }

  /** One entry per remote table. */
  subscriptions(): SubscriptionStatus[] {
    return this.replicator.status().map((status) => {
      const disagreement = this.#negotiator.disagreement(status.source.node, status.source)
      return disagreement ? { ...status, disagreement } : status
    })
  }

  /** Waits for transactions in flight, then ends both servers. Transactions without an acknowledgement stay in the outbox. */
  async close(): Promise<void> {
    await this.#runSteps([
      ['closing the health check', () => this.health.close(), CLOSE_TIMEOUT_MS.part],
      ['ending the attempts to take part', () => this.#standingDown.close(), CLOSE_TIMEOUT_MS.mesh],
      ['closing the publisher', () => this.publisher.close(), CLOSE_TIMEOUT_MS.part],
      ...this.#endSteps(),
      ['saving the revisions', () => this.#registers.flush(), CLOSE_TIMEOUT_MS.part],
      ['ending the reconciler', () => this.#reconciler?.idle(), CLOSE_TIMEOUT_MS.part],
    ])
  }

  #endSteps(): EndStep[] {
    return [
      ['closing the clock control', () => this.clockControl.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the negotiator', () => this.#negotiator.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the positions', () => this.positions.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the peers', () => this.peers.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the reconciler', () => this.#reconciler?.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the subscriptions', () => this.replicator.close(), CLOSE_TIMEOUT_MS.part],
      ['closing the mesh', () => this.mesh.close(), CLOSE_TIMEOUT_MS.mesh],
    ]
  }

  #runSteps(steps: readonly EndStep[]): Promise<void> {
    return runSteps(steps, (step, error) =>
      this.#options.logger.error({ step, reason: error.message }, 'closing failed in part'),
    )
  }

  // --- the parts --------------------------------------------------------------------------------------------------------

  #createHealth(): NodeHealth {
    return new NodeHealth({
      mesh: this.mesh,
      peers: () => this.#peerStates.expected(),
      facts: () => ({
        superseded: this.superseded,
        pending: this.replicator.summaries.pending(),
        subscriptions: this.replicator.summaries.troubled(),
        refusals: this.#negotiator.refusals(),
        clockAhead: this.clockControl.problem,
      }),
      emit: this.#emit,
      logger: this.#options.logger,
    })
  }

  #createPositions({ registers }: Foundation): PositionExchange {
    const { mesh, publisher, replicator } = this
    const { host, logger, requestTimeout } = this.#options
    const store = this.#store
    return new PositionExchange({
      ...{ node: store.manifest.nodeName, mesh, store, publisher, replicator, logger, requestTimeout },
      servesRows: host.readRows !== undefined,
      statuses: this.rows.requests.statuses,
      peers: () => this.peers,
      isPaused: (source) => registers.paused.has(source),
    })
  }

  #createPeers(): Peers {
    const { host, logger, requestTimeout } = this.#options
    const { manifest, settings } = this.#store
    const links = new LinkReport({
      timers: this.mesh.timers,
      manifest: () => this.#store.manifest,
      peers: () => this.#peerStates.all(),
      subscriptions: () => this.replicator.status(),
      appliedIndex: (source) => this.replicator.checkpointOf(source)?.index ?? 0,
      replica: (subscriber) => this.positions.replica(subscriber),
    })
    return new Peers({
      mesh: this.mesh,
      host,
      node: manifest.nodeName,
      logger,
      requestTimeout,
      clusteringPort: settings.ports.cluster,
      operationsApiPort: settings.operationsApiPort,
      negotiate: (request) => this.#negotiator.handleRequest(request),
      answerRows: (node, request) => this.rows.answer(node, request),
      answerPositions: (request) => this.positions.answer(request),
      answerLinks: () => links.links(),
      positions: () => this.publisher.recentPositions(),
      listener: this.#peerListener(),
    })
  }

  #createNegotiator(): Negotiator {
    const { mesh, publisher, replicator, peers } = this
    return createNegotiator(this.#options, {
      ...{ mesh, publisher, replicator, peers, emit: this.#emit, nameFault: this.#nameFault },
      ...{ store: this.#store, registers: this.#registers, clock: this.#clock },
      checkClock: () => this.clockControl.check(),
      askedInVain: () => this.#reconciler?.reviewReaders(),
      progress: (task) => this.#progress(task),
    })
  }

  #progress(task: ProgressTask): (done: number, total?: number) => void {
    const report = new ProgressReport(this.mesh.timers, (progress) => this.#emit('progress', progress), task)
    return (done, total) => report.update(done, total)
  }

  // --- what the mesh, the peers and the store report ----------------------------------------------------------------------

  #meshListener(): MeshListener {
    const { publisher, replicator, peers } = this
    return {
      state: (state, reason) => {
        this.health.onMesh(state, reason)
        if (state !== 'connected') return
        // The first time too: the outbox may hold transactions that were committed before this process started.
        publisher.resume()
        replicator.restart()
        peers.sendHeartbeat()
        this.positions.onLinked()
      },
      linked: () => {
        peers.sendHeartbeat()
        this.positions.onLinked()
      },
      rejected: (peer, reason) => this.#reports.rejected(peer, reason),
      certificatesChanged: (reason) =>
        reason ? this.#emit('certificates:rejected', { reason }) : this.#emit('certificates:replaced', {}),
    }
  }

  #peerListener(): PeerListener {
    return {
      up: (node) => {
        if (!findNode(this.#store.manifest, node)) return
        this.#reports.up(node)
        this.health.onPeers()
      },
      down: (node) => {
        this.clockControl.onPeerDown(node)
        if (!findNode(this.#store.manifest, node)) return
        this.#reports.down(node, 'no heartbeat')
        this.health.onPeers()
      },
      time: (node, time) => this.clockControl.onPeerTime(node, time),
      returned: (node, restarted, silence) => {
        this.replicator.onPeerReturned(node, { restarted, silence })
        this.#negotiator.onPeerUp(node)
        this.positions.onLinked(node)
      },
      rejected: (node, reason) => this.#reports.rejected(node, reason),
      superseded: () => this.#standingDown.begin(SUPERSEDED),
      streams: (node, positions) => this.replicator.onPeerPositions(node, positions),
    }
  }

  #onCommit({ changes }: Commit): void {
    if (this.superseded) return
    this.#reconciler?.reconcile()
    for (const change of changes) {
      if (change.type === 'node:added' && this.peers.isUp(change.node.name)) this.#reports.up(change.node.name)
    }
    this.health.onPeers()
  }

  /** Limits are not part of the manifest, so no event; subscribers report deleted messages as gaps. */
  #onLimitsChanged(limits: StreamLimits): void {
    this.#options.logger.info({ ...limits }, 'stream limits changed')
    if (!this.superseded) this.#reconciler?.reconcile()
  }
}
