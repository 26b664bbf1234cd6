// What one node alone may use: its configuration file, the directory of its state, and that of its streams.

import { realpath } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { lock } from '../manifest/lock.ts'
import type { Settings } from '../manifest/settings.ts'
import { lockDirectory } from '../util/directory-lock.ts'
import { ensurePrivateDirectory } from '../util/private-directory.ts'
import { type EndStep, runSteps } from '../util/run-steps.ts'
import type { CheckedOptions } from './options.ts'

type LockOptions = Pick<CheckedOptions, 'configFile' | 'logger' | 'mesh'>

/** Servers, quarantine and revisions. */
export const stateDirectory = (configFile: string, { rootPath }: Settings): string =>
  join(resolve(dirname(configFile), rootPath ?? '.'), 'clustering')

/** The store of the leaf server. */
export const storeDirectory = (configFile: string, settings: Settings): string =>
  settings.streams.path === undefined
    ? join(stateDirectory(configFile, settings), 'leaf')
    : resolve(dirname(configFile), settings.streams.path)

export class Locks {
  readonly #options: LockOptions
  readonly #held: (() => Promise<void>)[] = []

  private constructor(options: LockOptions) {
    this.#options = options
  }

  /** Locks the configuration file. Rejects config_locked. */
  static async open(options: LockOptions): Promise<Locks> {
    const locks = new Locks(options)
    locks.#held.push(await lock(options.configFile))
    return locks
  }

  /** Creates and locks the directories of an enabled node. Rejects directory_in_use, directory_unusable; call `release` then. */
  async lockDirectories(settings: Settings): Promise<void> {
    const { configFile, mesh } = this.#options
    // A mesh other than NATS has no store.
    const paths = [stateDirectory(configFile, settings), ...(mesh ? [] : [storeDirectory(configFile, settings)])]
    const locked = new Set<string>()
    for (const path of paths) {
      await ensurePrivateDirectory(path)
      const directory = await realpath(path)
      if (locked.has(directory)) continue
      locked.add(directory)
      this.#held.push(await this.#lockDirectory(directory))
    }
  }

  async #lockDirectory(directory: string): Promise<() => Promise<void>> {
    const { configFile, logger } = this.#options
    const { release } = await lockDirectory(directory, {
      owner: resolve(configFile),
      onLeaseOnly: (reason) =>
        logger.warn({ directory, reason }, 'directory cannot hold sockets, so its lock is a file that is renewed'),
      onEntryLost: () => logger.error({ directory }, 'the lock of a directory was removed while it was in use'),
    })
    return release
  }

  /** Releases every lock, also when one of them fails. Idempotent. */
  release(): Promise<void> {
    const steps = this.#held.splice(0).toReversed()
    return runSteps(steps.map((release): EndStep => ['releasing a lock', release]))
  }
}
