// Locks a directory for one process: by a socket in it, which namespaces of networks and processes do not hide.
//
// Each process has an entry of its own, which it publishes by a rename when its socket listens already. It then asks the other
// entries. So of two processes at least the later one sees the other. An entry that refuses the connection is a leftover for
// ever, because its name is never used again: anybody may remove it at any time.
//
// A socket of another machine, over a network file system, refuses as well. There the entry is a lease: its owner renews it, and it
// counts until it is too old. Where a directory cannot hold sockets, a file is the entry, and always a lease.

import { createHash, randomBytes } from 'node:crypto'
import { lstat, readdir, readFile, rename, unlink, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import { type Answer, ask, listen, type SocketServer, shortDirectory } from './local-socket.ts'
import { clearInterval, delay, setInterval, systemTimers } from './timers.ts'

export type DirectoryLockOptions = {
  /** What the holder is, for the error of the next process: the path of its configuration file. */
  owner: string
  /** The directory cannot hold sockets: the lock is a lease only. */
  onLeaseOnly?(reason: string): void
  /** The entry was removed while the lock was held, and is there again. */
  onEntryLost?(): void
  /** For tests. */
  listen?: typeof listen
  leaseMs?: number
}

export type DirectoryLock = {
  /** Idempotent. Never rejects. */
  release(): Promise<void>
}

/** An entry whose change time is older, by the clock of the file system, is a leftover. */
const LEASE_MS = 20_000
const RENEWALS_PER_LEASE = 4
/** Two processes that open at the same time see each other. */
const RETRY_MS = 50
const LEASE_POLL_MS = 500
/** Longer than a lease: a candidate may be waiting for one to end. */
const PATIENCE_LEASES = 2

const prefix = 'lock-'
/** No host name has it, so that no published entry ends with it. */
const unpublishedSuffix = '~new'
const entryPattern = /^lock-([0-9a-f]{8})-([0-9a-f]{12})-(\d+)-([\w.-]*)$/
const MAX_HOST_LENGTH = 30
const LONGEST_NAME = prefix.length + 8 + 1 + 12 + 1 + 10 + 1 + MAX_HOST_LENGTH + unpublishedSuffix.length

/** Sockets are seen by all processes of one kernel. Each boot has an id; elsewhere the name of the host stands for it. */
async function kernelId(): Promise<string> {
  const id = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(hostname)
  return createHash('sha256').update(id).digest('hex').slice(0, 8)
}

type Entry = {
  readonly name: string
  readonly kernel: string
  readonly id: string
  readonly pid: string
  readonly host: string
}
type State = 'opening' | 'held'
type Content = { readonly state: State; readonly owner?: string }

function parseContent(text: string): Content {
  try {
    return JSON.parse(text) as Content
  } catch {
    return { state: 'held' }
  }
}

const describe = ({ pid, host }: Entry, { owner }: Content) =>
  `process ${pid} on host ${host || '(unknown)'}${owner ? `, configuration file ${owner}` : ''}`

class Locker {
  readonly #directory: string
  readonly #options: DirectoryLockOptions
  readonly #kernel: string
  readonly #leaseMs: number
  #entry: Entry | undefined
  #server: SocketServer | undefined
  #state: State = 'opening'
  #renewal: NodeJS.Timeout | undefined

  constructor(directory: string, options: DirectoryLockOptions, kernel: string) {
    this.#directory = directory
    this.#options = options
    this.#kernel = kernel
    this.#leaseMs = options.leaseMs ?? LEASE_MS
  }

  async acquire(): Promise<void> {
    const end = systemTimers.elapsed() + PATIENCE_LEASES * this.#leaseMs
    for (;;) {
      if (!this.#entry) await this.#publish()
      const own = this.#entry!
      const live = await this.#liveEntries(own)
      if (live.length === 0) break
      const holder = live.find(({ content }) => content.state === 'held')
      if (holder || systemTimers.elapsed() > end) {
        const { entry, content } = holder ?? live[0]!
        throw clusterError('directory_in_use', this.#directory, describe(entry, content))
      }
      // Of those that open at the same time the one with the lowest id waits for the others to withdraw.
      if (live.some(({ entry }) => entry.id < own.id)) await this.#withdraw()
      await delay(RETRY_MS * (1 + Math.random()))
    }
    this.#state = 'held'
    if (!this.#server) await this.#writeContent(this.#entry!.name)
    this.#renewal = setInterval(() => void this.#renew(), this.#leaseMs / RENEWALS_PER_LEASE)
    this.#renewal.unref()
    await this.#removeUnpublished()
  }

  async release(): Promise<void> {
    clearInterval(this.#renewal)
    await this.#withdraw()
  }

  get #content(): string {
    return JSON.stringify({ state: this.#state, owner: this.#options.owner } satisfies Content)
  }

  #path(name: string): string {
    return join(this.#directory, name)
  }

  async #publish(): Promise<void> {
    for (;;) {
      const id = randomBytes(6).toString('hex')
      const host = hostname()
        .replaceAll(/[^\w.-]/g, '_')
        .slice(0, MAX_HOST_LENGTH)
      const name = `${prefix}${this.#kernel}-${id}-${process.pid}-${host}`
      const unpublished = `${name}${unpublishedSuffix}`
      try {
        this.#server = await this.#listen(unpublished)
      } catch (error) {
        await this.#writeContent(unpublished)
        this.#options.onLeaseOnly?.(reasonOf(error))
      }
      try {
        await rename(this.#path(unpublished), this.#path(name))
        this.#entry = { name, kernel: this.#kernel, id, pid: String(process.pid), host }
        return
      } catch (error) {
        await this.#withdraw()
        await unlink(this.#path(unpublished)).catch(() => {})
        // Another process took it for a leftover.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      }
    }
  }

  async #listen(name: string): Promise<SocketServer> {
    const short = await shortDirectory(this.#directory, LONGEST_NAME)
    try {
      return await (this.#options.listen ?? listen)(short.address(name), () => this.#content)
    } finally {
      await short.close()
    }
  }

  #writeContent(name: string): Promise<void> {
    return writeFile(this.#path(name), this.#content, { mode: 0o600 })
  }

  async #withdraw(): Promise<void> {
    const [entry, server] = [this.#entry, this.#server]
    this.#entry = undefined
    this.#server = undefined
    if (entry) await unlink(this.#path(entry.name)).catch(() => {})
    await server?.close()
  }

  /** The entries of others that count; removes leftovers. Waits for a lease that is neither renewed nor over. */
  async #liveEntries(own: Entry): Promise<{ entry: Entry; content: Content }[]> {
    const live: { entry: Entry; content: Content }[] = []
    for (const name of await readdir(this.#directory)) {
      const [, kernel, id, pid, host] = entryPattern.exec(name) ?? []
      if (kernel === undefined || id === undefined || pid === undefined || host === undefined || id === own.id) continue
      const entry = { name, kernel, id, pid, host }
      const content = await this.#inspect(entry, own)
      if (content) live.push({ entry, content })
      else await unlink(this.#path(name)).catch(() => {})
    }
    return live
  }

  /** Undefined for a leftover. */
  async #inspect(entry: Entry, own: Entry): Promise<Content | undefined> {
    const stats = await lstat(this.#path(entry.name)).catch(() => undefined)
    if (!stats) return undefined
    const answer: Answer = stats.isSocket() ? await this.#ask(entry.name) : 'refused'
    if (typeof answer === 'object') return parseContent(answer.text)
    if (answer === 'missing') return undefined
    if (answer === 'silent') return { state: 'held' }
    if (stats.isSocket() && entry.kernel === this.#kernel) return undefined
    const content = stats.isFile()
      ? parseContent(await readFile(this.#path(entry.name), 'utf8').catch(() => ''))
      : ({ state: 'held' } as const)
    return (await this.#isRenewed(entry, own, stats.ctimeMs)) ? content : undefined
  }

  async #ask(name: string): Promise<Answer> {
    const short = await shortDirectory(this.#directory, LONGEST_NAME)
    try {
      return await ask(short.address(name))
    } finally {
      await short.close()
    }
  }

  /** Both times are those of the file system, so that the clocks of the machines do not matter. */
  async #isRenewed(entry: Entry, own: Entry, firstSeen: number): Promise<boolean> {
    for (;;) {
      const now = await this.#touch(own.name)
      const stats = await lstat(this.#path(entry.name)).catch(() => undefined)
      if (!stats) return false
      if (now - stats.ctimeMs > this.#leaseMs) return false
      if (stats.ctimeMs !== firstSeen) return true
      await delay(Math.min(LEASE_POLL_MS, this.#leaseMs / RENEWALS_PER_LEASE))
    }
  }

  /** Renews an entry. Resolves with the change time, which the file system sets. */
  async #touch(name: string): Promise<number> {
    const now = new Date(systemTimers.now())
    await utimes(this.#path(name), now, now)
    return (await lstat(this.#path(name))).ctimeMs
  }

  async #renew(): Promise<void> {
    const entry = this.#entry
    if (!entry) return
    try {
      await this.#touch(entry.name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || this.#entry !== entry) return
      await this.#withdraw()
      await this.#publish().catch(() => {})
      this.#options.onEntryLost?.()
    }
  }

  /** Entries of processes that were killed before they published them. An owner that lives publishes another one. */
  async #removeUnpublished(): Promise<void> {
    for (const name of await readdir(this.#directory))
      if (name.endsWith(unpublishedSuffix) && entryPattern.test(name.slice(0, -unpublishedSuffix.length)))
        await unlink(this.#path(name)).catch(() => {})
  }
}

/**
 * Locks an existing, writable directory, which may be in use by other paths. Rejects directory_in_use when another manager has it, in this process or
 * in another one; directory_unusable when the lock cannot be written.
 */
export async function lockDirectory(directory: string, options: DirectoryLockOptions): Promise<DirectoryLock> {
  const locker = new Locker(directory, options, await kernelId())
  try {
    await locker.acquire()
    return { release: () => locker.release() }
  } catch (error) {
    await locker.release()
    if (error instanceof ClusterError) throw error
    throw clusterErrorFrom(error, 'directory_unusable', directory, reasonOf(error))
  }
}
