// One run of nats-server: spawns the process, reads its log and ends it.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { reasonOf } from '../../errors.ts'
import { clearTimeout, delay, setTimeout } from '../../util/timers.ts'
import { LineReader } from './line-reader.ts'
import { serverArguments } from './processes.ts'

export type ServerProcessOptions = {
  path: string
  configFile: string
  /** Variables for the process, beside PATH. */
  environment?: Readonly<Record<string, string>> | undefined
  /** A line of the server's log, without its prefix. */
  line(level: string, text: string): void
}

export type ReadyOptions = {
  /** ms that the server may take without writing to its log. */
  timeout: number
  /** Resolves when the server works; rejects or hangs when not. */
  probe(signal: AbortSignal): Promise<void>
  signal: AbortSignal
}

const PROBE_INTERVAL_MS = 10

// Servers that outlive a host which exits without closing would hold its ports and its store.
const running = new Set<ChildProcess>()
const terminateAll = () => {
  for (const child of running) child.kill('SIGTERM')
}

// Listens only while servers run: importing the module changes nothing in the host's process.
function track(child: ChildProcess): void {
  if (running.size === 0) process.on('exit', terminateAll)
  running.add(child)
  const untrack = () => {
    if (running.delete(child) && running.size === 0) process.off('exit', terminateAll)
  }
  child.once('exit', untrack)
  child.once('error', untrack)
}

export class ServerProcess {
  readonly #child: ChildProcess
  readonly #options: ServerProcessOptions
  readonly #listening: Promise<void>
  #onLine: () => void = () => {}
  /** Why the process failed, as far as its log or the operating system says; empty if unknown. */
  lastError = ''

  constructor(options: ServerProcessOptions) {
    this.#options = options
    const { path, configFile, environment } = options
    // A process group of its own: a signal from the host's terminal reaches the host alone, which ends its servers in order.
    // The server gets no other variables of the host's environment: they may hold secrets.
    this.#child = spawn(path, serverArguments(configFile), {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
      env: { PATH: process.env.PATH, ...environment },
    })
    track(this.#child)
    this.#child.once('error', (error) => {
      this.lastError = reasonOf(error)
    })
    this.#listening = new Promise((resolve) => {
      const lines = new LineReader((line) => {
        this.#onLine()
        if (line.includes('Server is ready')) resolve()
        this.#read(line)
      })
      this.#child.stderr!.on('data', (chunk: Buffer) => lines.push(chunk))
      this.#child.stderr!.once('end', () => lines.end())
    })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** True also when the process could not be spawned. */
  get exited(): boolean {
    const { exitCode, signalCode, pid } = this.#child
    return exitCode !== null || signalCode !== null || pid === undefined
  }

  get endReason(): string {
    return this.lastError || `exit code ${this.#child.exitCode ?? this.#child.signalCode}`
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /**
   * `ready` when the server listens and the probe passes; otherwise `silent` when the time-out was too short, or `ended` when the
   * process exited or `signal` aborted.
   */
  async waitUntilReady({ timeout, probe, signal }: ReadyOptions): Promise<'ready' | 'silent' | 'ended'> {
    const failed = new AbortController()
    let silent = false
    const deadline = setTimeout(() => {
      silent = true
      this.lastError ||= `no log output for ${timeout} ms`
      failed.abort()
    }, timeout)
    this.#child.once('close', () => failed.abort())
    this.#onLine = () => {
      if (!failed.signal.aborted) deadline.refresh()
    }
    try {
      const ended = AbortSignal.any([failed.signal, signal])
      // Another process may hold its port: the probe waits until the server's log says that it listens.
      await Promise.race([this.#listening, ended.aborted || once(ended, 'abort')])
      this.#onLine = () => {}
      while (!ended.aborted) {
        const passed = await probe(failed.signal).then(
          () => true,
          () => false,
        )
        if (passed && !failed.signal.aborted) {
          this.lastError = ''
          return 'ready'
        }
        await delay(PROBE_INTERVAL_MS)
      }
      return silent ? 'silent' : 'ended'
    } finally {
      this.#onLine = () => {}
      clearTimeout(deadline)
    }
  }

  /** True when the process has ended, false when it has not within `timeout` ms. */
  waitForExit(timeout?: number): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.exited) return resolve(true)
      const timer = timeout === undefined ? undefined : setTimeout(() => resolve(false), timeout)
      this.#child.once('exit', () => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }

  #read(line: string): void {
    const match = /^\[\d+\] \S+ \S+ \[(\w+)\] (.*)$/.exec(line)
    const [, level = 'INF', text = line] = match ?? []
    if (level === 'FTL' || level === 'ERR') this.lastError = text
    // The server prints errors in its configuration without the prefix of log lines.
    if (!match && line.trim() !== '') this.lastError = line
    this.#options.line(level, text)
  }
}
