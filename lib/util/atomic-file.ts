// Atomic, durable writes: a temporary file in the same directory, synced, then renamed.

import { constants, type FileHandle, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW = 0 } = constants
/** Never follows a symbolic link that another user may have placed there. */
const REPLACE_FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW

/** Mode 0600, because the files may contain secrets. Atomic, because nats-server would accept a truncated configuration. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const file = await open(`${path}.new`, REPLACE_FLAGS, 0o600)
  try {
    await file.writeFile(data)
    await syncFile(file)
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
  const directory = await open(dirname(path), 'r').catch(() => undefined)
  // Some file systems cannot sync a directory; the rename has happened anyway.
  await directory?.sync().catch(() => {})
  await directory?.close()
}

/** From Node 26 on the permission model denies fsync: a write is then as durable as the file system makes it. */
export const isSyncDenied = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ERR_ACCESS_DENIED'

/** Resolves when the contents are on disk. Rejects as the file system does. */
export async function syncFile(file: FileHandle): Promise<void> {
  await file.sync().catch((error) => {
    if (!isSyncDenied(error)) throw error
  })
}
