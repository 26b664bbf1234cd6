// The host's YAML file on disk: reads it, replaces it atomically, watches it for edits. config-text.ts parses its contents.

import { randomBytes } from 'node:crypto'
import { readFileSync, renameSync, unwatchFile, watchFile } from 'node:fs'
import { type FileHandle, open as openFile, readdir, readFile, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import { clusterErrorFrom, reasonOf } from '../errors.ts'
import { type Logger, silentLogger } from '../observe/logger.ts'
import { errorCode, linkTarget } from './file-links.ts'

export type { Problem } from './config-text.ts'

/** From the last event of a file until it is read: a slow writer causes several events. */
const DEBOUNCE_MS = 75
/** Polling finds changes without events: a symbolic link in the path was replaced, or a network file system. */
const POLL_INTERVAL_MS = 1000

const temporaryPath = (target: string, id: string) => join(dirname(target), `.${basename(target)}.${id}.tmp`)
const isTemporaryPath = (target: string, name: string) =>
  name.startsWith(`.${basename(target)}.`) && /^\.[0-9a-f]{12}\.tmp$/.test(name.slice(basename(target).length + 1))

/** Copies the mode, unaffected by the umask, and the owner if permitted. */
async function keepAccess(handle: FileHandle, previous: { mode: number; uid: number; gid: number }): Promise<void> {
  const { uid, gid } = await handle.stat()
  if (uid !== previous.uid || gid !== previous.gid) await handle.chown(previous.uid, previous.gid).catch(() => {})
  await handle.chmod(previous.mode & 0o7777)
}

async function syncDirectory(directory: string): Promise<void> {
  // Some file systems cannot sync a directory; the file is in place nevertheless.
  const handle = await openFile(directory, 'r').catch(() => undefined)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

export class ConfigFile {
  readonly path: string
  readonly #logger: Logger
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #onChange: (() => void) | undefined

  constructor(path: string, logger: Logger = silentLogger) {
    this.path = resolve(path)
    this.#logger = logger
  }

  /** The contents of the file; undefined when it is missing. Rejects when it cannot be read. */
  async read(): Promise<string | undefined> {
    try {
      return await readFile(this.path, 'utf8')
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /**
   * Replaces the file with `text` if it still holds `expected` (undefined: is missing); otherwise changes nothing and returns
   * false. Mode and owner are kept, and a link stays a link. Rejects config_unwritable; nothing changed then.
   */
  async replace(expected: string | undefined, text: string): Promise<boolean> {
    let temporary: string | undefined
    try {
      const target = await linkTarget(this.path)
      const previous = await stat(target).catch(() => undefined)
      temporary = temporaryPath(target, randomBytes(6).toString('hex'))
      const handle = await openFile(temporary, 'wx', previous ? previous.mode & 0o777 : 0o644)
      try {
        if (previous) await keepAccess(handle, previous)
        await handle.writeFile(text)
        await handle.sync()
      } finally {
        await handle.close()
      }
      // Read as late as possible, and synchronously, so that no edit gets lost between the read and the rename.
      if (this.#readNow() !== expected) return false
      renameSync(temporary, target)
      temporary = undefined
      await syncDirectory(dirname(target))
      return true
    } catch (error) {
      throw clusterErrorFrom(error, 'config_unwritable', this.path, reasonOf(error))
    } finally {
      if (temporary) await unlink(temporary).catch(() => {})
    }
  }

  /** Removes temporary files of killed processes. Only for the holder of the lock. */
  async clean(): Promise<void> {
    const target = await linkTarget(this.path).catch(() => this.path)
    const names = await readdir(dirname(target)).catch(() => [])
    for (const name of names)
      if (isTemporaryPath(target, name)) await unlink(join(dirname(target), name)).catch(() => {})
  }

  /** Calls `onChange` after the file was written, replaced, removed or created, by any process. */
  async watch(onChange: () => void): Promise<void> {
    // Watches the directory: this covers a file that is replaced or created later.
    const target = await linkTarget(this.path)
    const directories = new Set([dirname(this.path), dirname(target)])
    const files = new Set([this.path, target])
    const watcher = watch([...directories], {
      depth: 0,
      ignoreInitial: true,
      ignored: (path) => !directories.has(path) && !files.has(path),
    })
    this.#watcher = watcher
    this.#onChange = () => {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(onChange, DEBOUNCE_MS)
    }
    watcher.on('all', (_, path) => {
      if (files.has(path)) this.#onChange?.()
    })
    watchFile(this.path, { interval: POLL_INTERVAL_MS, persistent: false }, this.#onChange)
    watcher.on('error', (error) =>
      this.#logger.error({ file: this.path, reason: reasonOf(error) }, 'configuration file not watched'),
    )
    await new Promise<void>((ready) => watcher.once('ready', ready))
  }

  async close(): Promise<void> {
    if (this.#onChange) unwatchFile(this.path, this.#onChange)
    await this.#watcher?.close()
    clearTimeout(this.#timer)
  }

  #readNow(): string | undefined {
    try {
      return readFileSync(this.path, 'utf8')
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined
      throw error
    }
  }
}
