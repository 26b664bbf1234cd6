// Gives both servers a new password, one after the other, and tries again until both have it.

import { clusterErrorFrom, reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { RetriedTask } from '../../util/retried-task.ts'
import { systemTimers, type Timers } from '../../util/timers.ts'

export type ServerKind = 'hub' | 'leaf'

export type PasswordRotationOptions = {
  fetch(): Promise<string>
  /** The password in the configuration of the servers. */
  current(): string
  use(password: string): void
  /** Resolves when the server runs with the password in use. */
  restart(server: ServerKind): Promise<void>
  /** Runs changes of the servers' configuration one after the other. */
  exclusively(work: () => Promise<void>): Promise<void>
  stopped(): boolean
  logger: Logger
  /** Default: the system's. */
  timers?: Timers
}

const RETRY_BACKOFF_MS = { first: 1_000, max: 60_000 }

export class PasswordRotation {
  readonly #options: PasswordRotationOptions
  readonly #task: RetriedTask
  /** The servers that are not known to use the password in use. */
  readonly #outdated = new Set<ServerKind>()
  #latest: string | undefined

  constructor(options: PasswordRotationOptions) {
    this.#options = options
    const { logger, timers = systemTimers } = options
    this.#task = new RetriedTask({
      work: () => options.exclusively(() => this.#apply()),
      failed: (error, retryAfterMs) =>
        logger.error(
          { servers: [...this.#outdated], reason: reasonOf(error), retryAfterMs },
          'password rotation failed, retrying',
        ),
      backoff: RETRY_BACKOFF_MS,
      timers,
    })
  }

  /**
   * Fetches the password and resolves when both servers use it. Rejects as `fetch` does, and nothing changes then. Rejects
   * server_failed when a server does not run with it yet; it is tried again until both do, or until `close`.
   */
  async rotate(): Promise<void> {
    // Outside of the queue: a function that does not answer must not hold up other changes.
    this.#latest = await this.#options.fetch()
    try {
      await this.#task.run()
    } catch (error) {
      const reason = `it does not use the new password yet, retrying: ${reasonOf(error)}`
      throw clusterErrorFrom(error, 'server_failed', [...this.#outdated].join(' and '), reason)
    }
  }

  close(): void {
    this.#task.cancel()
  }

  async #apply(): Promise<void> {
    const { current, use, restart, stopped, logger } = this.#options
    if (stopped() || this.#latest === undefined) return
    if (this.#latest !== current()) {
      use(this.#latest)
      this.#outdated.add('hub').add('leaf')
    }
    if (this.#outdated.size === 0) return
    for (const server of [...this.#outdated]) {
      await restart(server)
      this.#outdated.delete(server)
    }
    logger.info({}, 'password rotated')
  }
}
