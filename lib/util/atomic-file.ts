// Files that are written whole or not at all, and outlive a power cut: a temporary one beside it, synced, renamed.

import { constants, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW = 0 } = constants
/** Never where a link leads that somebody put there. */
const REPLACE_FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW

/** Mode 0600: what we keep beside the database is nobody else's business. A truncated configuration would be parsed leniently by a server. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const file = await open(`${path}.new`, REPLACE_FLAGS, 0o600)
  try {
    await file.writeFile(data)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
  const directory = await open(dirname(path), 'r').catch(() => undefined)
  // Some file systems cannot sync a folder; the file is in place all the same.
  await directory?.sync().catch(() => {})
  await directory?.close()
}
