// Reconnects the leaf to the local hub after it connected to the hub of a remote node, as a fallback or because hubs advertise each
// other. The server does not return by itself.

import { lookup } from 'node:dns/promises'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import { clearTimeout, setTimeout } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { address } from './configuration.ts'

export type FailBackOptions = {
  /** Where the local hub listens for leafnodes. */
  home(): Route
  /** Address of the hub that the leaf is connected to, `address:port`, as the leaf logs it; undefined before the first. */
  remote(): string | undefined
  /** False while the local hub cannot be started, and after closing. */
  isHubUp(): boolean
  /** Restarts the leaf, which tries the local hub first. Never rejects. */
  restart(): Promise<void>
  logger: Logger
}

/** Time between a link and the check; doubled when a restart did not bring the leaf back. */
const GRACE_MS = { first: 3_000, max: 300_000 }

export class FailBack {
  readonly #options: FailBackOptions
  /** Without jitter: the leaf is the only client that waits. */
  readonly #backoff = new Backoff({ ...GRACE_MS, jitter: 0 })
  #grace = this.#backoff.next()
  #timer: NodeJS.Timeout | undefined

  constructor(options: FailBackOptions) {
    this.#options = options
  }

  /** Checks in a few seconds whether the leaf is connected to the local hub. Call it when one of them has started or linked. */
  schedule(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#check(), this.#grace)
    this.#timer.unref()
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  async #check(): Promise<void> {
    const { home, remote, isHubUp, restart, logger } = this.#options
    if (!isHubUp()) return
    const at = remote()
    if (!at || (await isAddressOf(at, home()))) {
      this.#backoff.reset()
      this.#grace = this.#backoff.next()
      return
    }
    this.#grace = this.#backoff.next()
    logger.info({ hub: at }, 'restarting the leaf server: it is connected to the hub of a remote node')
    await restart()
  }
}

/** True when `remote` (`address:port`) is an address of the route, whose host may be a name. */
async function isAddressOf(remote: string, { host, port }: Route): Promise<boolean> {
  if (remote === address({ host, port })) return true
  if (!remote.endsWith(`:${port}`)) return false
  const found = await lookup(host.replace(/^\[|\]$/g, ''), { all: true }).catch(() => [])
  return found.some((each) => remote === address({ host: each.address, port }))
}
