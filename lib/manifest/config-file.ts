// The host's YAML file on disk: read, replaced in one step, and watched for edits. What stands in it is config-text.ts's.

import { randomBytes } from 'node:crypto'
import { open as openFile, readFile, realpath, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import { clusterErrorFrom, reasonOf } from '../errors.ts'
import { type Logger, silent } from '../logger.ts'

export type { Problem } from './config-text.ts'

/** Milliseconds from the last event of a file until it is read: a slow writer gives several. */
const DEBOUNCE = 75

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | null)?.code

async function syncFolder(folder: string): Promise<void> {
  // Some file systems cannot sync a folder; the file is in place all the same.
  const handle = await openFile(folder, 'r').catch(() => undefined)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

export class ConfigFile {
  readonly path: string
  readonly #logger: Logger
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(path: string, logger: Logger = silent) {
    this.path = resolve(path)
    this.#logger = logger
  }

  /** What the file holds, undefined when there is none. Rejects when it cannot be read. */
  async read(): Promise<string | undefined> {
    try {
      return await readFile(this.path, 'utf8')
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /**
   * Puts `text` in place of the file if it still holds `expected` (undefined: is missing); false, and nothing done, when it
   * holds something else. The mode is kept, and a link stays a link. Rejects with config_unwritable; nothing changed then.
   */
  async replace(expected: string | undefined, text: string): Promise<boolean> {
    let temporary: string | undefined
    try {
      const target = await this.#target()
      const mode = (await stat(target).catch(() => undefined))?.mode
      const folder = dirname(target)
      temporary = join(folder, `.${basename(target)}.${randomBytes(6).toString('hex')}.tmp`)
      const handle = await openFile(temporary, 'wx', mode === undefined ? 0o644 : mode & 0o7777)
      try {
        // Not narrowed by the umask of this process.
        if (mode !== undefined) await handle.chmod(mode & 0o7777)
        await handle.writeFile(text)
        await handle.sync()
      } finally {
        await handle.close()
      }
      // As late as can be, so that an edit made since is not lost.
      if ((await this.read()) !== expected) return false
      await rename(temporary, target)
      temporary = undefined
      await syncFolder(folder)
      return true
    } catch (error) {
      throw clusterErrorFrom(error, 'config_unwritable', this.path, reasonOf(error))
    } finally {
      if (temporary) await unlink(temporary).catch(() => {})
    }
  }

  /** Calls `changed` some milliseconds after the file was written, replaced, removed or created, by whomever. */
  async watch(changed: () => void): Promise<void> {
    // The folder is watched, not the file: a file that is replaced or comes later is seen as well.
    const target = await this.#target()
    const folders = new Set([dirname(this.path), dirname(target)])
    const files = new Set([this.path, target])
    const watcher = watch([...folders], {
      depth: 0,
      ignoreInitial: true,
      ignored: (path) => !folders.has(path) && !files.has(path),
    })
    this.#watcher = watcher
    watcher.on('all', (_, path) => {
      if (!files.has(path)) return
      clearTimeout(this.#timer)
      this.#timer = setTimeout(changed, DEBOUNCE)
    })
    watcher.on('error', (error) =>
      this.#logger.error({ file: this.path, reason: reasonOf(error) }, 'The configuration file cannot be watched'),
    )
    await new Promise<void>((ready) => watcher.once('ready', ready))
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#watcher?.close()
    clearTimeout(this.#timer)
  }

  /** Where a link leads; the path itself when there is no such file. */
  async #target(): Promise<string> {
    try {
      return await realpath(this.path)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      return this.path
    }
  }
}
