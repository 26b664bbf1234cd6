// The two local servers, hub and leaf: configuration, start, routes, certificates, password, version and end.

import { join } from 'node:path'
import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { ensurePrivateDirectory } from '../../util/private-directory.ts'
import { RetriedTask } from '../../util/retried-task.ts'
import { runSteps } from '../../util/run-steps.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import { delay, systemTimers } from '../../util/timers.ts'
import type { Member, RequestOptions, Route, Routes } from '../mesh.ts'
import { ExposureReport } from './advisories.ts'
import { findBinary } from './binary.ts'
import { Certificates } from './certificates.ts'
import {
  address,
  hubConfiguration,
  leafConfiguration,
  localHubRoute,
  type ServerSettings,
  type Tls,
} from './configuration.ts'
import { HubMonitor } from './hub-monitor.ts'
import { HubRoutes } from './hub-routes.ts'
import { LeafInterest } from './leaf-interest.ts'
import { LeafLink } from './leaf-link.ts'
import { Links } from './links.ts'
import { LocalConnections } from './local-connections.ts'
import { LogWatch } from './log-watch.ts'
import { members } from './members.ts'
import { PasswordRotation, type ServerKind } from './password-rotation.ts'
import { portKeyOf } from './port-keys.ts'
import { type Resolve, resolveBySystem } from './route-names.ts'
import { type Configuration, NatsServer, type ServerEvents } from './server.ts'
import type { LeafListener, ServerPairListener } from './server-pair-listener.ts'
import type { ServerFacts } from './server-problems.ts'
import { ignoredSettings, isAtLeast, versionText } from './versions.ts'

export type ServerPairOptions = Omit<ServerSettings, 'node' | 'storeDirectory' | 'password'> & {
  /** Holds the servers' configuration and, unless `storeDirectory` is set, the leaf's store. */
  directory: string
  storeDirectory?: string | undefined
  password(): Promise<string>
  natsServer?: string | undefined
  /** Variables for both servers, beside PATH. */
  serverEnvironment?: Readonly<Record<string, string>> | undefined
  /** Default: the resolver of the operating system. */
  resolve?: Resolve | undefined
}

/** ms that `start` waits for the leaf to connect to its hub; without that the node runs, isolated. */
const LINK_TIMEOUT_MS = 3_000
const RETRY_BACKOFF_MS = { first: 1_000, max: 60_000 }
/** ms for the clients, and for each server. */
const CLOSE_TIMEOUT_MS = { connections: 2_000, server: 15_000 }

export class ServerPair {
  readonly connections: LocalConnections
  readonly #options: ServerPairOptions
  readonly #logger: Logger
  readonly #hub: NatsServer
  readonly #leaf: NatsServer
  readonly #links: Links
  readonly #monitor: HubMonitor
  readonly #hubRoutes: HubRoutes
  readonly #leafLink: LeafLink
  readonly #log: LogWatch
  readonly #exposure: ExposureReport
  #settings: ServerSettings
  #certificates: Certificates | undefined
  #listener: ServerPairListener | undefined
  #onFirstLink = () => {}
  #leafRoutes: readonly Route[] = []
  /** The routes that the leaf is known to use; undefined after a change that failed. */
  #leafRoutesInEffect: string | undefined
  readonly #rotation: PasswordRotation
  readonly #alignment = this.#retried('restart of the server of the older version', () => this.#alignVersions())
  readonly #leafRestart = this.#retried('restart of the leaf server', () => this.#restart('leaf'))
  #hubFailure: string | undefined
  #closed = false
  /** Changes of the servers' configuration. */
  readonly #changes = new SerialQueue()

  private constructor(options: ServerPairOptions, settings: ServerSettings, logger: Logger) {
    this.#options = options
    this.#settings = settings
    this.#logger = logger
    this.#rotation = this.#createRotation()
    this.#exposure = new ExposureReport(logger)
    this.connections = new LocalConnections({
      settings: () => this.#settings,
      leafChanged: (up) => this.#listener?.leaf.connectionChanged(up),
    })
    this.#log = new LogWatch({
      rejected: (peer, reason) => this.#listener?.rejected(peer, reason),
      linked: () => void this.#leafLink.connected(),
      routeLost: () => this.#hubRoutes.linkLost(),
      logger,
    })
    this.#monitor = new HubMonitor(this.connections)
    this.#hub = this.#createServer('hub', {
      probe: (signal) => this.#probeHub(signal),
      died: () => {},
      failed: (reason) => this.#setHubFailure(`the hub server cannot be started: ${reason}`),
      returned: () => {
        this.#setHubFailure(undefined)
        this.#leafLink.schedule()
      },
    })
    this.#leaf = this.#createServer('leaf', {
      prepare: () => this.#leafListener.prepare(),
      probe: (signal) => this.#probeLeaf(signal),
      died: (reason) => this.#leafListener.died(reason),
      failed: (reason) => this.#leafListener.startFailed(reason),
      returned: () => this.#leafListener.returned(),
    })
    this.#links = new Links({
      node: settings.node,
      connection: () => this.connections.mesh,
      members: (options) => this.members(options),
      stopped: () => this.#closed,
      logger,
    })
    this.#hubRoutes = this.#createHubRoutes()
    this.#leafLink = this.#createLeafLink()
  }

  /** Checks binary, directories and certificates; starts nothing. Rejects nats_server_missing, directory_unusable, tls_invalid. */
  static async open(node: string, options: ServerPairOptions, logger: Logger): Promise<ServerPair> {
    const { version } = await findBinary(options.natsServer)
    for (const { key, since } of ignoredSettings(version, options))
      logger.warn(
        { key, version: versionText(version), since },
        'this version of nats-server ignores a configuration key',
      )
    const { directory, storeDirectory = join(directory, 'leaf'), tls } = options
    await ensurePrivateDirectory(directory)
    await ensurePrivateDirectory(storeDirectory)
    const settings = { ...options, node, storeDirectory, password: await options.password() }
    const pair = new ServerPair(options, settings, logger)
    if (tls) await pair.#openCertificates(tls)
    return pair
  }

  get storeDirectory(): string {
    return this.#settings.storeDirectory
  }

  /** Resolves when both servers run. Rejects port_taken, server_failed, nats_server_missing; call `close` then. */
  async start(routes: Routes, listener: ServerPairListener): Promise<void> {
    this.#listener = listener
    this.#leafRoutes = routes.leaf
    this.#leafRoutesInEffect = routes.leaf.map(address).join()
    const firstLink = new Promise<void>((resolve) => {
      this.#onFirstLink = resolve
    })
    // The hub first: a leaf that does not find its hub retries a second later.
    await this.#hub.start(await this.#hubRoutes.first(routes.hub))
    await this.#leaf.start(this.#leafConfiguration())
    await Promise.race([firstLink, delay(LINK_TIMEOUT_MS, undefined, { ref: false })])
    this.#links.serve()
    this.#hubRoutes.watch()
  }

  /** Ends both servers whatever fails on the way, and rejects then. */
  async close(): Promise<void> {
    this.#closed = true
    this.#certificates?.stop()
    for (const part of [this.#leafLink, this.#hubRoutes, this.#rotation]) part.close()
    for (const task of [this.#alignment, this.#leafRestart]) task.cancel()
    await runSteps(
      [
        ['closing the connections', () => this.connections.close(), CLOSE_TIMEOUT_MS.connections],
        // The leaf first: without its hub it would connect to a fallback.
        ['stopping the leaf server', () => this.#leaf.stop(), CLOSE_TIMEOUT_MS.server],
        ['stopping the hub server', () => this.#hub.stop(), CLOSE_TIMEOUT_MS.server],
        ['removing the copies of certificates', () => this.#certificates?.close(), CLOSE_TIMEOUT_MS.connections],
      ],
      (step, error) => this.#logger.error({ step, reason: reasonOf(error) }, 'closing failed in part'),
    )
  }

  /** Resolves when the new routes are in effect. After a rejection the caller sets them again, or others. */
  setRoutes({ hub, leaf }: Routes): Promise<void> {
    return this.#changes.run(async () => {
      this.#leafRoutes = leaf
      if (this.#closed) return
      await this.#hubRoutes.set(hub)
      const wanted = leaf.map(address).join()
      if (wanted === this.#leafRoutesInEffect) return
      this.#leafRoutesInEffect = undefined
      // A running leaf rejects new remotes.
      await this.#leaf.restart(this.#leafConfiguration())
      this.#leafRoutesInEffect = wanted
    })
  }

  /** Rejects as `PasswordRotation.rotate`. */
  rotatePassword(): Promise<void> {
    return this.#rotation.rotate()
  }

  /** Kills the leaf, whose state is not trusted, and starts it again. */
  replaceLeaf(reason: string): void {
    this.#leaf.replace(reason)
  }

  async members(options: RequestOptions): Promise<Member[]> {
    return members(this.connections.hub, this.#settings.node, options)
  }

  /** What `Mesh.problems` reports; the caller knows the disk. */
  get facts(): Omit<ServerFacts, 'lowDisk'> {
    return {
      hubFailure: this.#hubFailure,
      configuredRoutes: this.#hubRoutes.count,
      linkedRoutes: this.#monitor.routes,
      certificates: this.#certificates?.warnings ?? [],
      exposures: this.#exposure.warnings,
    }
  }

  /** Of the leaf server. */
  get version(): string | undefined {
    return this.#leaf.version && versionText(this.#leaf.version)
  }

  /** Process ids of the servers, for tests that kill them. */
  get pids(): { hub: number | undefined; leaf: number | undefined } {
    return { hub: this.#hub.pid, leaf: this.#leaf.pid }
  }

  get #leafListener(): LeafListener {
    return this.#listener!.leaf
  }

  #createServer(
    kind: ServerKind,
    {
      probe,
      prepare,
      died,
      failed,
      returned,
    }: Omit<ServerEvents, 'line'> & { probe(signal: AbortSignal): Promise<void>; prepare?(): Promise<void> },
  ): NatsServer {
    const { directory, ports, natsServer, serverEnvironment } = this.#options
    return new NatsServer({
      kind,
      probe,
      ...(prepare && { prepare }),
      findBinary: () => findBinary(natsServer),
      environment: serverEnvironment,
      configFile: join(directory, `${kind}.json`),
      portKey: (port) => portKeyOf(ports, port),
      logger: this.#logger,
      events: {
        line: (level, text) => {
          // While both are being stopped, one may log the lost connection to the other as an error.
          this.#log.line(kind, this.#closed ? 'INF' : level, text)
          if (kind === 'leaf') this.#leafListener.logLine(level, text)
        },
        died,
        failed,
        returned: () => {
          void this.#alignment.run().catch(() => {})
          returned()
        },
      },
    })
  }

  #createHubRoutes(): HubRoutes {
    const { listen, ports, tls } = this.#settings
    return new HubRoutes({
      hub: this.#hub,
      links: this.#links,
      configuration: (routes) => this.#hubConfiguration(routes),
      monitor: this.#monitor,
      names: {
        resolve: this.#options.resolve ?? resolveBySystem,
        local: { host: listen, port: ports.cluster },
        secure: tls !== undefined,
        timers: systemTimers,
      },
      exclusively: (work) => this.#changes.run(work),
      logger: this.#logger,
      stopped: () => this.#closed,
    })
  }

  #createLeafLink(): LeafLink {
    return new LeafLink({
      home: () => localHubRoute(this.#settings),
      remote: () => this.#log.leafRemote,
      interest: new LeafInterest(this.#settings.node, this.#monitor, () => this.#leaf.version),
      linked: () => {
        this.#onFirstLink()
        this.#listener?.linked()
      },
      isHubUp: () => this.#hubFailure === undefined,
      restart: () => this.#leafRestart.run().catch(() => {}),
      logger: this.#logger,
    })
  }

  #createRotation(): PasswordRotation {
    return new PasswordRotation({
      fetch: () => this.#options.password(),
      current: () => this.#settings.password,
      use: (password) => {
        this.#settings = { ...this.#settings, password }
      },
      restart: (kind) => this.#restart(kind),
      exclusively: (work) => this.#changes.run(work),
      stopped: () => this.#closed,
      logger: this.#logger,
    })
  }

  async #probeHub(signal: AbortSignal): Promise<void> {
    await this.connections.openHub()
    await this.#monitor.loadTime(signal)
  }

  async #probeLeaf(signal: AbortSignal): Promise<void> {
    await this.connections.openLeaf()
    await this.#leafListener.probe(signal)
  }

  #setHubFailure(reason: string | undefined): void {
    if (reason === this.#hubFailure) return
    this.#hubFailure = reason
    this.#listener?.hubFailed(reason)
  }

  #restart(kind: ServerKind): Promise<void> {
    return kind === 'hub' ? this.#hub.restart(this.#hubRoutes.current) : this.#leaf.restart(this.#leafConfiguration())
  }

  /** A change that is repeated until it succeeds. */
  #retried(task: string, work: () => Promise<void>): RetriedTask {
    return new RetriedTask({
      work: async () => {
        if (!this.#closed) await work()
      },
      failed: (error, retryAfterMs) =>
        this.#logger.error({ task, reason: reasonOf(error), retryAfterMs }, 'change of a server failed, retrying'),
      backoff: RETRY_BACKOFF_MS,
      timers: systemTimers,
    })
  }

  /** After an upgrade of the binary only the server that restarted has the new version: the other one is restarted too. */
  #alignVersions(): Promise<void> {
    return this.#changes.run(async () => {
      const [hub, leaf] = [this.#hub.version, this.#leaf.version]
      if (this.#closed || !hub || !leaf || versionText(hub) === versionText(leaf)) return
      this.#logger.info(
        { hub: versionText(hub), leaf: versionText(leaf) },
        'restarting the server of the older version',
      )
      await this.#restart(isAtLeast(hub, leaf) ? 'leaf' : 'hub')
    })
  }

  async #openCertificates(tls: Tls): Promise<void> {
    this.#certificates = await Certificates.open({
      tls,
      directory: this.#options.directory,
      localHost: localHubRoute(this.#settings).host,
      logger: this.#logger,
      reload: () => this.#reloadCertificates(),
      changed: (rejection) => this.#listener?.certificatesChanged(rejection),
    })
    this.#settings = { ...this.#settings, tls: { ...tls, ...this.#certificates.files } }
  }

  /** Both servers read new certificates while they run and use them for new connections. */
  #reloadCertificates(): Promise<void> {
    return this.#changes.run(async () => {
      if (this.#closed) return
      await this.#hubRoutes.reload()
      await this.#leaf.reload(this.#leafConfiguration())
    })
  }

  #hubConfiguration(routes: readonly Route[]): Configuration {
    const pidFile = join(this.#options.directory, 'hub.pid')
    return (version) => {
      this.#exposure.update(version, this.#settings)
      return hubConfiguration(this.#settings, routes, pidFile, version)
    }
  }

  #leafConfiguration(): Configuration {
    const [pidFile, routes] = [join(this.#options.directory, 'leaf.pid'), this.#leafRoutes]
    return (version) => leafConfiguration(this.#settings, routes, pidFile, version)
  }
}
