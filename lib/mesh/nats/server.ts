// One nats-server process: started, watched, reloaded, restarted and stopped by us, for as long as we are open.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { writeFileAtomic } from '../../util/atomic-file.ts'
import type { Binary } from './binary.ts'
import { serverArguments, serversOf, waitForExit } from './processes.ts'
import { type Version, versionText } from './versions.ts'

export type ServerEvents = {
  /** A line of the server's log, without its prefix. */
  line(level: string, text: string): void
  /** The process ended, or is about to, and not because we were asked for that. */
  died(reason: string): void
  /** It could not be started again, and will be tried again. */
  failed(reason: string): void
  /** The process was started again and answers. */
  returned(): void
}

/** The text of a configuration file for a server of that version. */
export type Configuration = (version: Version) => string

export type ServerOptions = {
  /** `hub` or `leaf`, for texts. */
  kind: string
  /** Asked before each start: an upgrade may have replaced the binary. */
  findBinary(): Promise<Binary>
  configFile: string
  /** Variables for the process, beside PATH. */
  environment?: Readonly<Record<string, string>> | undefined
  /** What is to be done before it is started, with none running. */
  prepare?(): Promise<void>
  /** Resolves when the server does its work; rejects or hangs when not. */
  probe(signal: AbortSignal): Promise<void>
  /** The configuration key that set this port, for the error that says it is taken. */
  portKey(port: number): string
  events: ServerEvents
  logger: Logger
}

/** Every 2 s the server is asked; after three misses it is killed and started again. */
const HEALTH_INTERVAL_MS = 2_000
const MAX_MISSED_PROBES = 3
/**
 * ms that a server which starts may be silent, in its log too; twice as long each time that was too little: a large store
 * takes its time to be read.
 */
const READY_TIMEOUT_MS = { min: 15_000, max: 600_000 }
const STOP_TIMEOUT_MS = 3_000
const BACKOFF_MS = { min: 100, max: 5_000, resetAfter: 10_000 }

/** True when the process is gone; asked to end first, then made to. */
async function terminate(pid: number): Promise<boolean> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    try {
      process.kill(pid, signal)
    } catch {
      // It has just ended by itself, or is not ours to end.
    }
    if (await waitForExit(pid, STOP_TIMEOUT_MS)) return true
  }
  return false
}

// Servers that outlive a host which ends without closing would hold its ports and its store.
const running = new Set<ChildProcess>()
const terminateAll = () => {
  for (const child of running) child.kill('SIGTERM')
}

// Listens only while there are any: importing us changes nothing in the host's process.
function track(child: ChildProcess): void {
  if (running.size === 0) process.on('exit', terminateAll)
  running.add(child)
  const untrack = () => {
    if (running.delete(child) && running.size === 0) process.off('exit', terminateAll)
  }
  child.once('exit', untrack)
  child.once('error', untrack)
}

export class NatsServer {
  readonly #options: ServerOptions
  #configuration: Configuration = () => ''
  #version: Version | undefined
  #child: ChildProcess | undefined
  #stopping = false
  #lastError = ''
  #startedAt = 0
  #backoff = BACKOFF_MS.min
  #readyTimeout = READY_TIMEOUT_MS.min
  /** Started, and not known to have ended. */
  #serving = false
  #watching: Promise<void> | undefined
  readonly #stopSignal = new AbortController()
  /** Who waits for the process to be back. */
  readonly #returnCallbacks: (() => void)[] = []

  constructor(options: ServerOptions) {
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Of the process that was started last. */
  get version(): Version | undefined {
    return this.#version
  }

  /**
   * Replaces what a killed host left behind, starts the process and resolves when it does its work. Rejects port_taken,
   * server_failed, nats_server_missing.
   */
  async start(configuration: Configuration): Promise<void> {
    await this.#replaceOrphans()
    this.#configuration = configuration
    await this.#launch()
    this.#watching = this.#watch()
  }

  /** Writes the configuration and has the running process read it. Whether it did, only the server itself can say. */
  async reload(configuration: Configuration): Promise<void> {
    this.#configuration = configuration
    await this.#writeConfiguration()
    this.#child?.kill('SIGHUP')
  }

  /** Restarts the process with this configuration; resolves when it does its work again. */
  async restart(configuration: Configuration): Promise<void> {
    this.#configuration = configuration
    await this.#writeConfiguration()
    const child = this.#child
    if (!child || this.#stopping) return
    const returned = new Promise<void>((resolve) => this.#returnCallbacks.push(resolve))
    this.#backoff = 0
    child.kill('SIGTERM')
    const expiry = new AbortController()
    const timeout = delay(READY_TIMEOUT_MS.min, true, { signal: expiry.signal }).catch(() => false)
    const failed = await Promise.race([returned, timeout])
    expiry.abort()
    if (failed) throw this.#startError(this.#options.kind)
  }

  /** For the process that runs now; the next start finds out its version and writes it again. */
  async #writeConfiguration(): Promise<void> {
    if (this.#version) await writeFileAtomic(this.#options.configFile, this.#configuration(this.#version))
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#stopSignal.abort()
    const child = this.#child
    if (child?.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM')
      if (!(await this.#exited(child, STOP_TIMEOUT_MS))) {
        child.kill('SIGKILL')
        await this.#exited(child, STOP_TIMEOUT_MS)
      }
    }
    await this.#watching
    for (const resolve of this.#returnCallbacks.splice(0)) resolve()
  }

  /** It is not to be trusted any more: ended at once, before it writes down what it believes, and started again by the watch. */
  replace(reason: string): void {
    if (!this.#serving) return
    this.#serving = false
    this.#lastError = reason
    // Before the connection to it is lost, which would be told as the reason.
    this.#options.events.died(reason)
    this.#child?.kill('SIGKILL')
  }

  /** Two servers on one store would ruin it. */
  async #replaceOrphans(): Promise<void> {
    const { configFile, kind, logger } = this.#options
    for (const pid of await serversOf(configFile)) {
      logger.warn({ pid, server: kind }, 'replacing a server that an earlier process left running')
      if (!(await terminate(pid)))
        throw clusterError('server_failed', kind, `process ${pid} of an earlier run does not end`)
    }
  }

  /** One attempt: spawn, and wait until the probe passes. */
  async #launch(): Promise<void> {
    const { findBinary, configFile, probe, kind, logger, environment } = this.#options
    if (this.#child && !(await this.#exited(this.#child, STOP_TIMEOUT_MS)))
      throw clusterError('server_failed', kind, `process ${this.#child.pid} before it does not end`)
    await this.#options.prepare?.()
    const { path, version } = await findBinary()
    if (this.#version && versionText(version) !== versionText(this.#version))
      logger.info(
        { server: kind, from: versionText(this.#version), to: versionText(version) },
        'server version changed',
      )
    this.#version = version
    await this.#writeConfiguration()
    if (this.#stopping) throw clusterError('closed')
    this.#lastError = ''
    // A process group of its own: what ends the host from a terminal must leave it to us to end the servers in order.
    // Nor does it need to know what the host's environment holds.
    const env = { PATH: process.env.PATH, ...environment }
    const child = spawn(path, serverArguments(configFile), { stdio: ['ignore', 'ignore', 'pipe'], detached: true, env })
    this.#child = child
    track(child)
    child.once('error', (error) => {
      this.#lastError = reasonOf(error)
    })
    const failed = new AbortController()
    const deadline = setTimeout(() => {
      this.#lastError ||= `it did nothing for ${this.#readyTimeout} ms`
      this.#readyTimeout = Math.min(2 * this.#readyTimeout, READY_TIMEOUT_MS.max)
      failed.abort()
    }, this.#readyTimeout)
    child.once('close', () => failed.abort())
    const listening = new Promise<void>((resolve) => {
      let ready = false
      createInterface({ input: child.stderr! }).on('line', (line) => {
        if (!ready && !failed.signal.aborted) deadline.refresh()
        if (line.includes('Server is ready')) {
          ready = true
          resolve()
        }
        this.#log(line)
      })
    })
    try {
      // Somebody else may hold its port: nobody is asked before it has said that it listens itself.
      const ended = AbortSignal.any([failed.signal, this.#stopSignal.signal])
      await Promise.race([listening, ended.aborted || once(ended, 'abort')])
      while (!ended.aborted) {
        const ready = await probe(failed.signal).then(
          () => true,
          () => false,
        )
        if (ready && !failed.signal.aborted) {
          this.#startedAt = performance.now()
          this.#readyTimeout = READY_TIMEOUT_MS.min
          this.#lastError = ''
          this.#serving = true
          return
        }
        await delay(10)
      }
    } finally {
      clearTimeout(deadline)
    }
    child.kill('SIGKILL')
    throw this.#startError(kind)
  }

  #startError(kind: string): ClusterError {
    const taken = /:(\d+): bind: address already in use/.exec(this.#lastError)
    if (taken) return clusterError('port_taken', this.#options.portKey(Number(taken[1])), Number(taken[1]))
    return clusterError('server_failed', kind, this.#lastError || 'it ended without a word')
  }

  #log(line: string): void {
    const match = /^\[\d+\] \S+ \S+ \[(\w+)\] (.*)$/.exec(line)
    const [, level = 'INF', text = line] = match ?? []
    if (level === 'FTL' || level === 'ERR') this.#lastError = text
    // Not a log line: what the binary prints about a configuration it cannot read.
    if (!match && line.trim() !== '') this.#lastError = line
    this.#options.events.line(level, text)
  }

  /** Until stopped: waits for the end of the process or for its third miss, and starts it again with back-off, without limit. */
  async #watch(): Promise<void> {
    const { events, logger, kind } = this.#options
    while (!this.#stopping) {
      const reason = await this.#waitForEnd()
      this.#serving = false
      if (this.#stopping) return
      events.died(reason)
      logger.warn({ server: kind, reason }, 'server ended, starting it again')
      if (performance.now() - this.#startedAt > BACKOFF_MS.resetAfter)
        this.#backoff = Math.min(this.#backoff, BACKOFF_MS.min)
      for (let up = false; !up && !this.#stopping; ) {
        await delay(this.#backoff, undefined, { signal: this.#stopSignal.signal }).catch(() => {})
        this.#backoff = Math.min(Math.max(this.#backoff * 2, BACKOFF_MS.min), BACKOFF_MS.max)
        if (this.#stopping) return
        up = await this.#launch().then(
          () => true,
          (error) => {
            const reason = reasonOf(error)
            if (this.#stopping) return false
            logger.error({ server: kind, reason }, 'server could not be started, trying again')
            events.failed(reason)
            return false
          },
        )
      }
      if (!this.#stopping) {
        events.returned()
        for (const resolve of this.#returnCallbacks.splice(0)) resolve()
      }
    }
  }

  /** Resolves with the reason when the process has ended, having ended it ourselves when it no longer answers. */
  async #waitForEnd(): Promise<string> {
    const child = this.#child!
    let misses = 0
    let last = performance.now()
    const timer = setInterval(async () => {
      // When we were not running ourselves, an answer may have been there for long.
      const late = performance.now() - last > 1.5 * HEALTH_INTERVAL_MS
      last = performance.now()
      const healthy = await this.#options.probe(AbortSignal.timeout(HEALTH_INTERVAL_MS)).then(
        () => true,
        () => false,
      )
      if (healthy) misses = 0
      else if (!late && performance.now() - last <= 1.5 * HEALTH_INTERVAL_MS) misses++
      if (misses >= MAX_MISSED_PROBES) this.replace(`it did not answer ${misses} times in a row`)
    }, HEALTH_INTERVAL_MS)
    try {
      await this.#exited(child)
    } finally {
      clearInterval(timer)
    }
    return this.#lastError || `exit code ${child.exitCode ?? child.signalCode}`
  }

  /** True when the process has ended, false when it has not within `timeout` ms. */
  #exited(child: ChildProcess, timeout?: number): Promise<boolean> {
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return resolve(true)
      const timer = timeout === undefined ? undefined : setTimeout(() => resolve(false), timeout)
      child.once('exit', () => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }
}
