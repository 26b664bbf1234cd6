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
  /** The leaf has connected to a hub. The local hub knows its subscriptions by then. */
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
  /** Running number of the link: what was asked about an earlier one is void. */
  #link = 0
  /** Were missing before the last restart: what is missing after it was not lost. */
  #missing: ReadonlySet<string> = new Set()
  #isClosed = false

  constructor(options: LeafLinkOptions) {
    this.#options = options
  }

  /** Call it when the leaf has connected to a hub. */
  async connected(): Promise<void> {
    const { interest, linked } = this.#options
    const link = ++this.#link
    const isOver = () => this.#isClosed || link !== this.#link
    // Another hub cannot be asked.
    if ((await this.#isAtHome()) && !(await interest.sent(isOver))) return
    if (isOver()) return
    this.schedule()
    linked()
  }

  /** Checks the link in a few seconds. Call it when the hub has started. */
  schedule(): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    this.#timer = setTimeout(() => void this.#check(), this.#grace)
    this.#timer.unref()
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  async #check(): Promise<void> {
    const { isHubUp, restart } = this.#options
    const link = this.#link
    const timer = this.#timer
    if (!isHubUp()) return
    const isRight = await this.#isRight()
    if (this.#isClosed || link !== this.#link || timer !== this.#timer || !isHubUp()) return
    if (isRight) this.#backoff.reset()
    this.#grace = this.#backoff.next()
    if (isRight === undefined) this.schedule()
    else if (!isRight) await restart()
  }

  /** Undefined when it is not known. */
  async #isRight(): Promise<boolean | undefined> {
    const { remote, interest, logger } = this.#options
    if (!remote()) return true
    if (!(await this.#isAtHome())) {
      logger.info({ hub: remote() }, 'restarting the leaf server: it is connected to the hub of a remote node')
      return false
    }
    const missing = await interest.missing()
    if (!missing) return undefined
    const lost = missing.filter((subject) => !this.#missing.has(subject))
    const { length: count } = missing
    this.#missing = new Set(missing)
    if (count === 0) return true
    const details = { count, subject: lost[0] ?? missing[0] }
    if (lost.length > 0)
      logger.warn(details, 'restarting the leaf server: subscriptions between it and its hub are lost')
    else logger.warn(details, 'subscriptions between leaf and hub are missing after a restart of the leaf too')
    return lost.length === 0
  }

  /** True when the leaf is connected to the local hub, or nothing is known of its connection. */
  async #isAtHome(): Promise<boolean> {
    const { home, remote } = this.#options
    const at = remote()
    return at === undefined || isAddressOf(at, home())
  }
}

/** True when `remote` (`address:port`) is an address of the route, whose host may be a name. */
async function isAddressOf(remote: string, { host, port }: Route): Promise<boolean> {
  if (remote === address({ host, port })) return true
  if (!remote.endsWith(`:${port}`)) return false
  const found = await lookup(host.replace(/^\[|\]$/g, ''), { all: true }).catch(() => [])
  return found.some((each) => remote === address({ host: each.address, port }))
}
