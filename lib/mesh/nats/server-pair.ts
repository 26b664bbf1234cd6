// The two local servers, hub and leaf: configuration, start, routes, certificates, password, version and end.

import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { ensurePrivateDirectory } from '../../util/private-directory.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import type { Member, RequestOptions, Route, Routes } from '../mesh.ts'
import { ExposureReport } from './advisories.ts'
import { findBinary } from './binary.ts'
import { Certificates } from './certificates.ts'
import { address, hubConfiguration, leafConfiguration, localHubRoute, type ServerSettings } from './configuration.ts'
import { parseJson } from './connection.ts'
import { FailBack } from './fail-back.ts'
import { HubRoutes } from './hub-routes.ts'
import { Links } from './links.ts'
import { LocalConnections } from './local-connections.ts'
import { LogWatch } from './log-watch.ts'
import { members } from './members.ts'
import { type Configuration, NatsServer, type ServerEvents } from './server.ts'
import { ignoredSettings, isAtLeast, versionText } from './versions.ts'

export type ServerPairOptions = Omit<ServerSettings, 'node' | 'storeDirectory' | 'password'> & {
  /** Holds the servers' configuration and, unless `storeDirectory` is set, the leaf's store. */
  directory: string
  storeDirectory?: string | undefined
  password(): Promise<string>
  natsServer?: string | undefined
  /** Variables for both servers, beside PATH. */
  serverEnvironment?: Readonly<Record<string, string>> | undefined
}

/** What happens to the leaf. */
export type LeafListener = {
  /** Called before each start, while no leaf runs. */
  prepare(): Promise<void>
  /** Rejects when the leaf, which is connected, does not work. */
  probe(signal: AbortSignal): Promise<void>
  /** A client connection to the leaf was lost, or is back. */
  connectionChanged(up: boolean): void
  logLine(level: string, text: string): void
  died(reason: string): void
  /** A restart failed; the next attempt follows. */
  startFailed(reason: string): void
  returned(): void
}

export type ServerPairListener = {
  leaf: LeafListener
  /** The leaf connected to a hub: remote nodes have no state of earlier connections any more. */
  linked(): void
  rejected(peer: string, reason: string): void
  /** Why the hub cannot be started; undefined when it runs again. Called when that changes. */
  hubFailed(reason: string | undefined): void
}

/** ms that `start` waits for the leaf to connect to its hub; without that the node runs, isolated. */
const LINK_TIMEOUT_MS = 3_000
const PROBE_TIMEOUT_MS = 2_000
const portKeys = {
  cluster: 'clustering.hubServer.cluster.network.port',
  leafNodes: 'clustering.hubServer.leafNodes.network.port',
  hub: 'clustering.hubServer.network.port',
  leaf: 'clustering.leafServer.network.port',
} as const

const isSame = (some: readonly Route[], others: readonly Route[]) =>
  some.map(address).join() === others.map(address).join()

export class ServerPair {
  readonly connections: LocalConnections
  readonly #options: ServerPairOptions
  readonly #logger: Logger
  readonly #hub: NatsServer
  readonly #leaf: NatsServer
  readonly #links: Links
  readonly #hubRoutes: HubRoutes
  readonly #failBack: FailBack
  readonly #log: LogWatch
  readonly #exposure: ExposureReport
  #settings: ServerSettings
  #certificates: Certificates | undefined
  #listener: ServerPairListener | undefined
  #onFirstLink = () => {}
  #routes: Routes = { hub: [], leaf: [] }
  /** What the running servers are known to use: a change that failed is made again. */
  #routesInEffect = this.#routes
  #hubFailure: string | undefined
  #closed = false
  /** Changes of the servers' configuration. */
  readonly #changes = new SerialQueue()

  private constructor(options: ServerPairOptions, settings: ServerSettings, logger: Logger) {
    this.#options = options
    this.#settings = settings
    this.#logger = logger
    this.#exposure = new ExposureReport(logger)
    this.connections = new LocalConnections({
      settings: () => this.#settings,
      leafChanged: (up) => this.#listener?.leaf.connectionChanged(up),
    })
    this.#log = new LogWatch({
      rejected: (peer, reason) => this.#listener?.rejected(peer, reason),
      linked: () => this.#onLinked(),
      logger,
    })
    this.#hub = this.#createServer('hub', {
      probe: (signal) => this.#probeHub(signal),
      died: () => {},
      failed: (reason) => this.#setHubFailure(`the hub server cannot be started: ${reason}`),
      returned: () => {
        this.#setHubFailure(undefined)
        this.#failBack.schedule()
      },
    })
    this.#leaf = this.#createServer('leaf', {
      prepare: () => this.#leafListener.prepare(),
      probe: (signal) => this.#probeLeaf(signal),
      died: (reason) => this.#leafListener.died(reason),
      failed: (reason) => this.#leafListener.startFailed(reason),
      returned: () => this.#leafListener.returned(),
    })
    const stopped = () => this.#closed
    this.#links = new Links({
      node: settings.node,
      connection: () => this.connections.mesh,
      members: (options) => this.members(options),
      stopped,
      logger,
    })
    this.#hubRoutes = new HubRoutes({
      hub: this.#hub,
      links: this.#links,
      configuration: (routes) => this.#hubConfiguration(routes),
      loadTime: (signal) => this.#hubLoadTime(signal),
      logger,
      stopped,
    })
    this.#failBack = new FailBack({
      home: () => localHubRoute(this.#settings),
      remote: () => this.#log.leafRemote,
      isHubUp: () => !this.#closed && this.#hubFailure === undefined,
      restart: () => this.#restartLeaf(),
      logger,
    })
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
    if (tls) pair.#certificates = await Certificates.open({ tls, logger, replaced: () => pair.#reloadCertificates() })
    return pair
  }

  get storeDirectory(): string {
    return this.#settings.storeDirectory
  }

  /** Resolves when both servers run. Rejects port_taken, server_failed, nats_server_missing; call `close` then. */
  async start(routes: Routes, listener: ServerPairListener): Promise<void> {
    this.#routes = routes
    this.#routesInEffect = routes
    this.#listener = listener
    const firstLink = new Promise<void>((resolve) => {
      this.#onFirstLink = resolve
    })
    // The hub first: a leaf that does not find its hub retries a second later.
    await this.#hub.start(this.#hubConfiguration(routes.hub))
    await this.#leaf.start(this.#leafConfiguration())
    await Promise.race([firstLink, delay(LINK_TIMEOUT_MS, undefined, { ref: false })])
    this.#links.serve()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#failBack.close()
    this.#certificates?.close()
    await this.connections.close()
    // The leaf first: without its hub it would connect to a fallback.
    await this.#leaf.stop()
    await this.#hub.stop()
  }

  /** Resolves when the new routes are in effect. */
  setRoutes(routes: Routes): Promise<void> {
    return this.#changes.run(async () => {
      this.#routes = routes
      if (this.#closed) return
      const { hub, leaf } = this.#routesInEffect
      if (!isSame(hub, routes.hub)) await this.#hubRoutes.change(hub, routes.hub)
      this.#routesInEffect = { hub: routes.hub, leaf }
      // A running leaf rejects new remotes.
      if (!isSame(leaf, routes.leaf)) await this.#leaf.restart(this.#leafConfiguration())
      this.#routesInEffect = routes
    })
  }

  /** Reads the password again and, if it changed, restarts one server after the other with it. */
  rotatePassword(): Promise<void> {
    return this.#changes.run(async () => {
      const password = await this.#options.password()
      if (this.#closed || password === this.#settings.password) return
      this.#settings = { ...this.#settings, password }
      await this.#hub.restart(this.#hubConfiguration(this.#routes.hub))
      await this.#leaf.restart(this.#leafConfiguration())
      this.#logger.info({}, 'password rotated')
    })
  }

  /** Kills the leaf, whose state is not trusted, and starts it again. */
  replaceLeaf(reason: string): void {
    this.#leaf.replace(reason)
  }

  async members(options: RequestOptions): Promise<Member[]> {
    return members(this.connections.hub, this.#settings.node, options)
  }

  /** Known security holes of the nats-server in use that this configuration exposes, one sentence each. */
  get warnings(): readonly string[] {
    return this.#exposure.warnings
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
    kind: 'hub' | 'leaf',
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
      portKey: (port) =>
        Object.entries(portKeys).find(([name]) => ports[name as keyof typeof ports] === port)?.[1] ?? 'unknown',
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
          this.#alignVersions()
          returned()
        },
      },
    })
  }

  async #probeHub(signal: AbortSignal): Promise<void> {
    await this.connections.openHub()
    await this.#hubLoadTime(signal)
  }

  async #probeLeaf(signal: AbortSignal): Promise<void> {
    await this.connections.openLeaf()
    await this.#leafListener.probe(signal)
  }

  #onLinked(): void {
    this.#onFirstLink()
    this.#failBack.schedule()
    this.#listener?.linked()
  }

  #setHubFailure(reason: string | undefined): void {
    if (reason === this.#hubFailure) return
    this.#hubFailure = reason
    this.#listener?.hubFailed(reason)
  }

  async #restartLeaf(): Promise<void> {
    await this.#leaf.restart(this.#leafConfiguration()).catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'leaf server restart failed')
    })
  }

  /** After an upgrade of the binary only the server that restarted has the new version: the other one is restarted too. */
  #alignVersions(): void {
    const alignment = this.#changes.run(async () => {
      const [hub, leaf] = [this.#hub.version, this.#leaf.version]
      if (this.#closed || !hub || !leaf || versionText(hub) === versionText(leaf)) return
      this.#logger.info(
        { hub: versionText(hub), leaf: versionText(leaf) },
        'restarting the server of the older version',
      )
      if (isAtLeast(hub, leaf)) await this.#restartLeaf()
      else await this.#hub.restart(this.#hubConfiguration(this.#routes.hub))
    })
    alignment.catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'hub server restart failed')
    })
  }

  /** Both servers read new certificates while they run and use them for new connections. */
  async #reloadCertificates(): Promise<void> {
    const reload = this.#changes.run(async () => {
      if (this.#closed) return
      const { hub } = this.#routes
      await this.#hubRoutes.change(hub, hub)
      await this.#leaf.reload(this.#leafConfiguration())
    })
    await reload.catch((error) => {
      this.#logger.warn({ reason: reasonOf(error) }, 'certificate reload not confirmed')
    })
  }

  /** The time at which the hub last read its configuration, as the hub reports it. */
  async #hubLoadTime(signal: AbortSignal): Promise<string> {
    const connection = this.connections.hub
    const subject = `$SYS.REQ.SERVER.${connection.serverId}.VARZ`
    const answer = await connection.request(subject, '', { timeout: PROBE_TIMEOUT_MS, signal })
    return parseJson<{ data: { config_load_time: string } }>(answer).data.config_load_time
  }

  #hubConfiguration(routes: readonly Route[]): Configuration {
    const pidFile = join(this.#options.directory, 'hub.pid')
    return (version) => {
      this.#exposure.update(version, this.#settings)
      return hubConfiguration(this.#settings, routes, pidFile, version)
    }
  }

  #leafConfiguration(): Configuration {
    const pidFile = join(this.#options.directory, 'leaf.pid')
    const { leaf } = this.#routes
    return (version) => leafConfiguration(this.#settings, leaf, pidFile, version)
  }
}
