// The host's YAML file on disk: reads it, replaces it atomically, watches it for edits. config-text.ts parses its contents.

import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  unwatchFile,
  watchFile,
  writeSync,
} from 'node:fs'
import { chmod, type FileHandle, open as openFile, readdir, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import { clusterErrorFrom, reasonOf } from '../errors.ts'
import { type Logger, silentLogger } from '../observe/logger.ts'
import { isSyncDenied, syncFile } from '../util/atomic-file.ts'
import { clearTimeout, setTimeout } from '../util/timers.ts'
import { decodeBytes } from './config-bytes.ts'
import { errorCode, linkTarget } from './file-links.ts'

export type { Problem } from './config-text.ts'

/** From the last event of a file until it is read: a slow writer causes several events. */
const DEBOUNCE_MS = 75
/** Polling finds changes without events: a symbolic link in the path was replaced, or a network file system. */
const POLL_INTERVAL_MS = 1000
/** Fake timers of Jest also stop process.nextTick, and chokidar's event `ready` with it. Until the watcher is ready, polling notices changes. */
const READY_TIMEOUT_MS = 500

const temporaryPath = (target: string, id: string) => join(dirname(target), `.${basename(target)}.${id}.tmp`)
const isTemporaryPath = (target: string, name: string) =>
  name.startsWith(`.${basename(target)}.`) && /^\.[0-9a-f]{12}\.tmp$/.test(name.slice(basename(target).length + 1))

/** Not blocking: opening a pipe would wait for a writer. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)
/** Errors of a rename over a mount point, such as a single file that is mounted into a container. */
const MOUNT_POINT_CODES: readonly unknown[] = ['EBUSY', 'EXDEV']

const sameAccess = (one: Stats, { mode, uid, gid }: Stats) => one.mode === mode && one.uid === uid && one.gid === gid

/**
 * Copies the mode, unaffected by the umask, and the owner if permitted. Calls nothing that is not necessary: Node's permission model
 * denies changes of open files.
 */
async function keepAccess(path: string, handle: FileHandle, previous: Stats): Promise<void> {
  const created = await handle.stat()
  if (sameAccess(created, previous)) return
  if (created.uid !== previous.uid || created.gid !== previous.gid)
    await handle.chown(previous.uid, previous.gid).catch(() => {})
  // Also after a change of the owner, which may clear bits.
  await chmod(path, previous.mode & 0o7777)
}

async function writeNew(path: string, text: string, previous: Stats | undefined): Promise<void> {
  const handle = await openFile(path, 'wx', previous ? previous.mode & 0o777 : 0o644)
  try {
    if (previous) await keepAccess(path, handle, previous)
    await handle.writeFile(text)
    await syncFile(handle)
  } finally {
    await handle.close()
  }
}

/** False when `target` is a mount point. */
function renameOver(path: string, target: string): boolean {
  try {
    renameSync(path, target)
    return true
  } catch (error) {
    if (MOUNT_POINT_CODES.includes(errorCode(error))) return false
    throw error
  }
}

/** Overwrites the file itself, for one that cannot be replaced. Not atomic; after an error the previous contents are restored. */
function overwrite(path: string, text: string, previous: string): void {
  const file = openSync(path, constants.O_WRONLY)
  try {
    try {
      return writeWhole(file, text)
    } catch (error) {
      writeWhole(file, previous)
      throw error
    }
  } finally {
    closeSync(file)
  }
}

function writeWhole(file: number, text: string): void {
  const bytes = Buffer.from(text)
  let written = 0
  while (written < bytes.length) written += writeSync(file, bytes, written, bytes.length - written, written)
  ftruncateSync(file, bytes.length)
  try {
    fsyncSync(file)
  } catch (error) {
    if (!isSyncDenied(error)) throw error
  }
}

async function syncDirectory(directory: string): Promise<void> {
  // Some file systems cannot sync a directory; the file is in place nevertheless.
  const handle = await openFile(directory, 'r').catch(() => undefined)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

/** Throws for a directory, which the system reports less clearly, and for what has no end or blocks the reader. */
function checkType(stats: Stats): void {
  if (stats.isDirectory()) throw new Error('it is a directory')
  if (!stats.isFile()) throw new Error('it is not a regular file')
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

  /** The contents of the file, as `decodeBytes` reads them; undefined when it is missing. Rejects when it cannot be read. */
  async read(): Promise<string | undefined> {
    let handle: FileHandle
    try {
      handle = await openFile(this.path, READ_FLAGS)
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined
      throw error
    }
    try {
      checkType(await handle.stat())
      return decodeBytes(await handle.readFile())
    } finally {
      await handle.close()
    }
  }

  /**
   * Replaces the file with `text` if it still holds `expected` (undefined: is missing); otherwise changes nothing and returns
   * false. Mode and owner are kept, and a symbolic link stays one. A file that is a mount point is overwritten, which is not atomic.
   * Rejects config_unwritable; nothing changed then.
   */
  async replace(expected: string | undefined, text: string): Promise<boolean> {
    let temporary: string | undefined
    try {
      const target = await linkTarget(this.path)
      const previous = await stat(target).catch(() => undefined)
      // A mounted file cannot be replaced, and its directory may be read-only.
      const isMounted = previous !== undefined && previous.dev !== (await stat(dirname(target))).dev
      if (!isMounted) {
        temporary = temporaryPath(target, randomBytes(6).toString('hex'))
        await writeNew(temporary, text, previous)
      }
      // Read as late as possible, and synchronously, so that no edit gets lost between the read and the rename.
      if (this.#readNow() !== expected) return false
      if (temporary && renameOver(temporary, target)) temporary = undefined
      else overwrite(target, text, expected ?? '')
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
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, READY_TIMEOUT_MS)
      watcher.once('ready', () => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  async close(): Promise<void> {
    if (this.#onChange) unwatchFile(this.path, this.#onChange)
    await this.#watcher?.close()
    clearTimeout(this.#timer)
  }

  #readNow(): string | undefined {
    let file: number
    try {
      file = openSync(this.path, READ_FLAGS)
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined
      throw error
    }
    try {
      checkType(fstatSync(file))
      return decodeBytes(readFileSync(file))
    } finally {
      closeSync(file)
    }
  }
}
