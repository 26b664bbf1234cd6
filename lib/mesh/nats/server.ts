// Keeps one nats-server running while the mesh is open: starts, probes, reloads, restarts and stops it.

import { type ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { writeFileAtomic } from '../../util/atomic-file.ts'
import { Backoff } from '../../util/backoff.ts'
import { clearInterval, delay, setInterval, systemTimers } from '../../util/timers.ts'
import type { Binary } from './binary.ts'
import { serversOf, terminate } from './processes.ts'
import { ServerProcess } from './server-process.ts'
import { type Version, versionText } from './versions.ts'

export type ServerEvents = {
  /** A line of the server's log, without its prefix. */
  line(level: string, text: string): void
  /** The process ended, or is about to, and the caller did not ask for that. */
  died(reason: string): void
  /** A restart failed; the next attempt follows. */
  failed(reason: string): void
  /** The process runs again and passes its probe. */
  returned(): void
}

/** The text of a configuration file for a server of that version. */
export type Configuration = (version: Version) => string

export type ServerOptions = {
  /** `hub` or `leaf`, for texts. */
  kind: string
  /** Called before each start: an upgrade may have replaced the binary. */
  findBinary(): Promise<Binary>
  configFile: string
  /** Variables for the process, beside PATH. */
  environment?: Readonly<Record<string, string>> | undefined
  /** Called before each start, while no process runs. */
  prepare?(): Promise<void>
  /** Resolves when the server works; rejects or hangs when not. */
  probe(signal: AbortSignal): Promise<void>
  /** The configuration key that set this port, for the error `port_taken`. */
  portKey(port: number): string
  events: ServerEvents
  logger: Logger
}

const HEALTH_INTERVAL_MS = 2_000
/** After this many missed probes the server is killed and started again. */
const MAX_MISSED_PROBES = 3
/** ms without log output that a starting server may take; doubled each time that it was too short, since a large store loads slowly. */
const READY_TIMEOUT_MS = { min: 15_000, max: 600_000 }
const STOP_TIMEOUT_MS = 3_000
const BACKOFF_MS = { first: 100, max: 5_000 }
/** A server that ran for longer than this begins with the shortest back-off. */
const STABLE_AFTER_MS = 10_000

export class NatsServer {
  readonly #options: ServerOptions
  #configuration: Configuration = () => ''
  #version: Version | undefined
  #process: ServerProcess | undefined
  #stopping = false
  #startedAt = 0
  readonly #backoff = new Backoff(BACKOFF_MS)
  /** The next start follows without back-off. */
  #restarting = false
  #readyTimeout = READY_TIMEOUT_MS.min
  /** Started, and not known to have ended. */
  #serving = false
  #watching: Promise<void> | undefined
  readonly #stopSignal = new AbortController()
  readonly #returnCallbacks: (() => void)[] = []

  constructor(options: ServerOptions) {
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#process?.pid
  }

  /** Version of the latest process. */
  get version(): Version | undefined {
    return this.#version
  }

  /**
   * Replaces what a killed host left behind, starts the process and resolves when it passes its probe. Rejects port_taken,
   * server_failed, nats_server_missing.
   */
  async start(configuration: Configuration): Promise<void> {
    await this.#replaceOrphans()
    this.#configuration = configuration
    await this.#launch()
    this.#watching = this.#watch()
  }

  /** Writes the configuration and signals the process to read it. Only the server itself can confirm that it did. */
  async reload(configuration: Configuration): Promise<void> {
    this.#configuration = configuration
    await this.#writeConfiguration()
    this.#process?.kill('SIGHUP')
  }

  /** Restarts the process with this configuration; resolves when it passes its probe again. */
  async restart(configuration: Configuration): Promise<void> {
    this.#configuration = configuration
    await this.#writeConfiguration()
    if (!this.#process || this.#stopping) return
    const returned = new Promise<void>((resolve) => this.#returnCallbacks.push(resolve))
    this.#backoff.reset()
    this.#restarting = true
    this.#process.kill('SIGTERM')
    const expiry = new AbortController()
    const timeout = delay(READY_TIMEOUT_MS.min, true, { signal: expiry.signal }).catch(() => false)
    const expired = await Promise.race([returned, timeout])
    expiry.abort()
    if (expired) throw this.#startError()
  }

  /** For the version that runs now; the next start writes it again for the version that it finds. */
  async #writeConfiguration(): Promise<void> {
    if (this.#version) await writeFileAtomic(this.#options.configFile, this.#configuration(this.#version))
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#stopSignal.abort()
    const process = this.#process
    if (process && !process.exited) {
      process.kill('SIGTERM')
      if (!(await process.waitForExit(STOP_TIMEOUT_MS))) {
        process.kill('SIGKILL')
        await process.waitForExit(STOP_TIMEOUT_MS)
      }
    }
    await this.#watching
    this.#resolveRestarts()
  }

  /** Kills a server whose state is not trusted; it is started again. SIGKILL, because on SIGTERM it would save that state. */
  replace(reason: string): void {
    if (!this.#serving || !this.#process) return
    this.#serving = false
    this.#process.lastError = reason
    // Before the connection to it is lost, which would be reported as the reason.
    this.#options.events.died(reason)
    this.#process.kill('SIGKILL')
  }

  /** Two servers on one store would corrupt it. */
  async #replaceOrphans(): Promise<void> {
    const { configFile, kind, logger } = this.#options
    for (const pid of await serversOf(configFile)) {
      logger.warn({ pid, server: kind }, 'replacing a server that an earlier process left running')
      if (!(await terminate(pid, STOP_TIMEOUT_MS)))
        throw clusterError('server_failed', kind, `process ${pid} of an earlier run does not end`)
    }
  }

  /** One attempt: spawns the process and waits until it passes its probe. */
  async #launch(): Promise<void> {
    const { findBinary, configFile, probe, kind, logger, environment, prepare, events } = this.#options
    if (this.#process && !(await this.#process.waitForExit(STOP_TIMEOUT_MS)))
      throw clusterError('server_failed', kind, `the previous process ${this.#process.pid} does not end`)
    await prepare?.()
    const { path, version } = await findBinary()
    if (this.#version && versionText(version) !== versionText(this.#version))
      logger.info(
        { server: kind, from: versionText(this.#version), to: versionText(version) },
        'server version changed',
      )
    this.#version = version
    await this.#writeConfiguration()
    if (this.#stopping) throw clusterError('closed')
    const process = new ServerProcess({
      path,
      configFile,
      environment,
      line: (level, text) => events.line(level, text),
    })
    this.#process = process
    const result = await process.waitUntilReady({ timeout: this.#readyTimeout, probe, signal: this.#stopSignal.signal })
    if (result === 'ready') {
      this.#startedAt = systemTimers.elapsed()
      this.#readyTimeout = READY_TIMEOUT_MS.min
      this.#serving = true
      return
    }
    if (result === 'silent') this.#readyTimeout = Math.min(2 * this.#readyTimeout, READY_TIMEOUT_MS.max)
    process.kill('SIGKILL')
    throw this.#startError()
  }

  #startError(): ClusterError {
    const reason = this.#process?.lastError ?? ''
    const [, port] = /:(\d+): bind: address already in use/.exec(reason) ?? []
    if (port) return clusterError('port_taken', this.#options.portKey(Number(port)), Number(port))
    return clusterError('server_failed', this.#options.kind, reason || 'exited without output')
  }

  /** Until stopped: starts the process again whenever it ended, with back-off and without limit. */
  async #watch(): Promise<void> {
    const { events, logger, kind } = this.#options
    while (!this.#stopping) {
      const reason = await this.#waitForEnd()
      this.#serving = false
      if (this.#stopping) return
      events.died(reason)
      logger.warn({ server: kind, reason }, 'server ended, restarting')
      if (systemTimers.elapsed() - this.#startedAt > STABLE_AFTER_MS) this.#backoff.reset()
      while (!this.#stopping && !(await this.#relaunch()));
      if (this.#stopping) return
      events.returned()
      this.#resolveRestarts()
    }
  }

  /** One attempt after a back-off; true when the process runs. */
  async #relaunch(): Promise<boolean> {
    const { events, logger, kind } = this.#options
    if (!this.#restarting)
      await delay(this.#backoff.next(), undefined, { signal: this.#stopSignal.signal }).catch(() => {})
    this.#restarting = false
    if (this.#stopping) return false
    try {
      await this.#launch()
      return true
    } catch (error) {
      if (this.#stopping) return false
      const reason = reasonOf(error)
      logger.error({ server: kind, reason }, 'server start failed, retrying')
      events.failed(reason)
      return false
    }
  }

  #resolveRestarts(): void {
    for (const resolve of this.#returnCallbacks.splice(0)) resolve()
  }

  /** Resolves with the reason when the process has ended; kills it after too many missed probes. */
  async #waitForEnd(): Promise<string> {
    const process = this.#process!
    let misses = 0
    let last = systemTimers.elapsed()
    const isLate = () => systemTimers.elapsed() - last > 1.5 * HEALTH_INTERVAL_MS
    const timer = setInterval(async () => {
      // A late timer means that the host itself was suspended: the missing answer may be waiting in the socket.
      const late = isLate()
      last = systemTimers.elapsed()
      const healthy = await this.#options.probe(AbortSignal.timeout(HEALTH_INTERVAL_MS)).then(
        () => true,
        () => false,
      )
      if (healthy) misses = 0
      else if (!late && !isLate()) misses++
      if (misses >= MAX_MISSED_PROBES) this.replace(`${misses} health probes in a row failed`)
    }, HEALTH_INTERVAL_MS)
    try {
      await process.waitForExit()
    } finally {
      clearInterval(timer)
    }
    return process.endReason
  }
}
