// Announces to the subscribers of a table that rows of one source were copied into it, when no more are copied for now.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from '../subscribe/applier.ts'

export type ChangeAnnouncerContext = { timers: Timers; logger: Logger }

export type ChangeAnnouncerOptions = {
  source: RemoteTable
  applier: Pick<Applier, 'checkpointOf' | 'announceChanges'>
  /** Rows are being copied: `check` is called when that ends. */
  isCopying(): boolean
}

/** ms without further rows. */
const DELAY_MS = 300
const RETRY_BACKOFF = { first: 500, max: 10_000 }

export class ChangeAnnouncer {
  readonly #context: ChangeAnnouncerContext
  readonly #options: ChangeAnnouncerOptions
  readonly #backoff = new Backoff(RETRY_BACKOFF)
  #cancel: (() => void) | undefined
  #running: Promise<void> | undefined
  #isStopped = false

  constructor(context: ChangeAnnouncerContext, options: ChangeAnnouncerOptions) {
    this.#context = context
    this.#options = options
  }

  /** The checkpoint may say that rows are not announced. */
  check(): void {
    if (this.#cancel || this.#running || this.#isStopped || !this.#isDue) return
    this.#schedule(DELAY_MS)
  }

  /** Resolves when nothing is stored any more. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancel?.()
    await this.#running
  }

  get #isDue(): boolean {
    const { source, applier, isCopying } = this.#options
    return applier.checkpointOf(source)?.unannounced === true && !isCopying()
  }

  #schedule(ms: number): void {
    this.#cancel = this.#context.timers.after(ms, () => {
      this.#cancel = undefined
      if (this.#isDue) this.#running = this.#announce()
    })
  }

  async #announce(): Promise<void> {
    const { source, applier } = this.#options
    try {
      await applier.announceChanges(source)
      this.#backoff.reset()
    } catch (error) {
      const { node: peer, database, table } = source
      this.#context.logger.warn(
        { peer, database, table, reason: reasonOf(error) },
        'copied rows not announced, retrying',
      )
      if (!this.#isStopped) this.#schedule(this.#backoff.next())
    } finally {
      this.#running = undefined
    }
  }
}
