// A node whose name another process used first stands down: its servers end, the outbox keeps what is committed. Standing down is a
// lease: the node watches the network from time to time, and takes part again when the other process has been silent.

import { randomUUID } from 'node:crypto'
import { reasonOf } from '../errors.ts'
import type { Mesh, Routes } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { decodeHeartbeat } from '../peers/protocol.ts'
import { Backoff } from '../util/backoff.ts'
import type { Timers } from '../util/timers.ts'

export type StandingDownOptions = {
  timers: Timers
  logger: Logger
  /** Ends everything that takes part. */
  stop(): Promise<void>
  /** True while heartbeats of another process with the local name arrive. Gives up when the signal aborts. */
  isNameInUse(signal: AbortSignal): Promise<boolean>
  /** Starts everything again. When it rejects, `stop` is called. */
  resume(): Promise<void>
  /** The reason while standing down; undefined at its end. */
  changed(reason: string | undefined): void
}

/** Why a process stands down. */
export const SUPERSEDED = 'another process used this node name first: this process takes no part until that one is gone'

/**
 * ms between two attempts to take part again. Each attempt costs a start of both servers, and two processes of one name must not
 * replace each other all the time.
 */
const RETRY_BACKOFF_MS = { first: 5_000, max: 60_000 }
/** A node that took part for this long begins with the first wait again. */
const STABLE_AFTER_MS = 5 * RETRY_BACKOFF_MS.max

export class StandingDown {
  readonly #options: StandingDownOptions
  readonly #closing = new AbortController()
  readonly #backoff = new Backoff(RETRY_BACKOFF_MS)
  #reason: string | undefined
  #resumedAt = Number.NEGATIVE_INFINITY
  #running: Promise<void> | undefined

  constructor(options: StandingDownOptions) {
    this.#options = options
  }

  /** Why this node takes no part now. */
  get reason(): string | undefined {
    return this.#reason
  }

  /** No effect while standing down. */
  begin(reason: string): void {
    if (this.#running || this.#closing.signal.aborted) return
    if (this.#options.timers.elapsed() - this.#resumedAt > STABLE_AFTER_MS) this.#backoff.reset()
    this.#change(reason)
    this.#running = this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** Resolves when no attempt is in progress; there are no further ones. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { timers, stop } = this.#options
    const { signal } = this.#closing
    await stop()
    while (!signal.aborted) {
      await waitFor(timers, this.#backoff.next(), signal)
      if (!signal.aborted && (await this.#tryToResume(signal))) return this.#change(undefined)
    }
  }

  async #tryToResume(signal: AbortSignal): Promise<boolean> {
    const { timers, logger, stop, isNameInUse, resume } = this.#options
    try {
      if ((await isNameInUse(signal)) || signal.aborted) return false
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'cannot watch for other processes with the local node name, retrying')
      return false
    }
    try {
      await resume()
      this.#resumedAt = timers.elapsed()
      return true
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'cannot take part in the cluster again, retrying')
      await stop()
      return false
    }
  }

  #change(reason: string | undefined): void {
    this.#reason = reason
    this.#options.changed(reason)
  }
}

/** Four heartbeats, and the time in which hubs connect. */
const WATCH_MS = 6_000

export type NameWatch = {
  /** Not open yet; it is closed at the end. */
  mesh: Mesh
  /** Name of the local node. */
  node: string
  /** The heartbeats of the local process. */
  instance: string
  routes: Routes
}

/** Watches under another name: servers with the name of a node that takes part would disturb it. */
export async function isNameInUse({ mesh, node, instance, routes }: NameWatch, signal: AbortSignal): Promise<boolean> {
  const seen = new AbortController()
  try {
    await mesh.open(`standby-${randomUUID()}`, routes, { state() {}, rejected() {}, linked() {} })
    mesh.listen((data) => {
      const { head, heartbeat } = decodeHeartbeat(data) ?? {}
      if (head?.node === node && heartbeat?.instance !== instance) seen.abort()
    })
    await waitFor(mesh.timers, WATCH_MS, AbortSignal.any([signal, seen.signal]))
    return seen.signal.aborted
  } finally {
    await mesh.close()
  }
}

function waitFor(timers: Timers, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const cancel = timers.after(ms, resolve)
    const abort = () => {
      cancel()
      resolve()
    }
    signal.addEventListener('abort', abort, { once: true })
  })
}
