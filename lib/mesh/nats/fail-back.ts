// Brings the leaf back to the local hub after it connected to the hub of another node, as a fallback or because hubs
// advertise each other: the server itself stays where it is.

import { lookup } from 'node:dns/promises'
import type { Logger } from '../../observe/logger.ts'
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

/** The leaf may stay away this long while the local hub is up; doubled each time that a restart did not bring it back. */
const GRACE_MS = { first: 3_000, max: 300_000 }

export class FailBack {
  readonly #options: FailBackOptions
  #grace = GRACE_MS.first
  #timer: NodeJS.Timeout | undefined

  constructor(options: FailBackOptions) {
    this.#options = options
  }

  /** Checks, some seconds from now, whether the leaf is connected to the local hub. Call it when either of them is back. */
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
      this.#grace = GRACE_MS.first
      return
    }
    this.#grace = Math.min(2 * this.#grace, GRACE_MS.max)
    logger.info({ hub: at }, 'restarting the leaf server: it is connected to the hub of another node')
    await restart()
  }
}

/** Does `remote` (`address:port`) belong to this route, whose host may be a name? */
async function isAddressOf(remote: string, { host, port }: Route): Promise<boolean> {
  if (remote === address({ host, port })) return true
  if (!remote.endsWith(`:${port}`)) return false
  const found = await lookup(host.replace(/^\[|\]$/g, ''), { all: true }).catch(() => [])
  return found.some((each) => remote === address({ host: each.address, port }))
}
