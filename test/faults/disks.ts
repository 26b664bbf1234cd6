// A small disk for each leaf's store, in memory, that can be filled to the brim. Needs root, on Linux.

import { constants } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from './command.ts'

const MEGABYTE_BYTES = 1024 * 1024
/** What is given out at least; less than that does not help anybody else. */
const PAGE_BYTES = 4096

export class Disks {
  readonly #mounted: string[] = []

  /** Rejects when the system does not let us. */
  async mount(directory: string, megabytes: number): Promise<void> {
    await mkdir(directory, { recursive: true })
    await command('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0700`, 'enmesh', directory)
    this.#mounted.push(directory)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    // Somebody who is just ending may still have a file open: then it goes with them.
    for (const directory of this.#mounted.splice(0))
      await command('umount', directory).catch(() => command('umount', '-l', directory))
  }
}

const ballast = (directory: string) => join(directory, '.ballast')

/** Until nothing more fits. */
export async function fill(directory: string): Promise<void> {
  const file = await open(ballast(directory), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
  try {
    for (let size = MEGABYTE_BYTES; size >= PAGE_BYTES; )
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
