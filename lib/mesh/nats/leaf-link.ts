// The link between the leaf and a hub. The leaf is restarted when that is not as it must be: after it connected to the hub of a remote node, as
// a fallback or because hubs advertise each other, it does not return by itself; and it may lack what its hub knows.

import { lookup } from 'node:dns/promises'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import { clearTimeout, setTimeout } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { address } from './configuration.ts'
import type { LeafInterest } from './leaf-interest.ts'

export type LeafLinkOptions = {
  /** Where the local hub listens for leafnodes. */
  home(): Route
  /** Address of the hub that the leaf is connected to, `address:port`, as the leaf logs it; undefined before the first. */
  remote(): string | undefined
  interest: Pick<LeafInterest, 'sent' | 'missing'>
  /** The leaf has connected to a hub, which knows its subscriptions. */
  linked(): void
  /** False while the local hub cannot be started. */
  isHubUp(): boolean
  /** Restarts the leaf, which tries the local hub first. Never rejects. */
  restart(): Promise<void>
  logger: Logger
}

/** Time between a link and the check; doubled when a restart did not help. */
const GRACE_MS = { first: 3_000, max: 300_000 }

export class LeafLink {
  readonly #options: LeafLinkOptions
  /** Without jitter: the leaf is the only client that waits. */
  readonly #backoff = new Backoff({ ...GRACE_MS, jitter: 0 })
  #grace = this.#backoff.next()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: LeafLinkOptions) {
    this.#options = options
  }

  /** Call it when the leaf has connected to a hub. */
  async connected(): Promise<void> {
    const { interest, linked } = this.#options
    if (!(await interest.sent()) || this.#isClosed) return
    this.schedule()
    linked()
  }

  /** Checks the link in a few seconds. Call it when the hub has started. */
  schedule(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#check(), this.#grace)
    this.#timer.unref()
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  async #check(): Promise<void> {
    const { isHubUp, restart } = this.#options
    if (this.#isClosed || !isHubUp()) return
    const isRight = await this.#isRight()
    if (isRight) this.#backoff.reset()
    this.#grace = this.#backoff.next()
    if (!isRight && !this.#isClosed && isHubUp()) await restart()
  }

  async #isRight(): Promise<boolean> {
    const { home, remote, interest, logger } = this.#options
    const at = remote()
    if (!at) return true
    if (!(await isAddressOf(at, home()))) {
      logger.info({ hub: at }, 'restarting the leaf server: it is connected to the hub of a remote node')
      return false
    }
    const subjects = await interest.missing()
    if (subjects.length === 0) return true
    const { length: count } = subjects
    logger.warn({ count, subject: subjects[0] }, 'restarting the leaf server: it does not know what remote nodes serve')
    return false
  }
}

/** True when `remote` (`address:port`) is an address of the route, whose host may be a name. */
async function isAddressOf(remote: string, { host, port }: Route): Promise<boolean> {
  if (remote === address({ host, port })) return true
  if (!remote.endsWith(`:${port}`)) return false
  const found = await lookup(host.replace(/^\[|\]$/g, ''), { all: true }).catch(() => [])
  return found.some((each) => remote === address({ host: each.address, port }))
}
