// A small disk in memory for the store of each leaf, which can be filled completely. Requires root on Linux.

import { constants } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.ts'

const MEGABYTE = 1024 * 1024
/** Minimum size of an allocation, in bytes. */
const PAGE = 4096

export class Disks {
  readonly #mounted: string[] = []

  /** Rejects without the permission to mount. */
  async mount(directory: string, megabytes: number): Promise<void> {
    await mkdir(directory, { recursive: true })
    await command('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0700`, 'enmesh', directory)
    this.#mounted.push(directory)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    // A process that is exiting may still have a file open: a lazy unmount waits for it.
    for (const directory of this.#mounted.splice(0))
      await command('umount', directory).catch(() => command('umount', '-l', directory))
  }
}

const ballast = (directory: string) => join(directory, '.ballast')

/** Resolves when the disk is full. */
export async function fill(directory: string): Promise<void> {
  const file = await open(ballast(directory), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
  try {
    for (let size = MEGABYTE; size >= PAGE; )
      try {
        const { bytesWritten } = await file.write(Buffer.alloc(size))
        if (bytesWritten < size) size = Math.trunc(size / 2)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        size = Math.trunc(size / 2)
      }
  } finally {
    await file.close()
  }
}

export const relieve = (directory: string): Promise<void> => rm(ballast(directory), { force: true })
