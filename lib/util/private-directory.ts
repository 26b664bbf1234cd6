// A folder that we keep secrets and state in: made when missing, and not believed when somebody else could change what is there.

import { access, chmod, constants, lstat, mkdir, stat } from 'node:fs/promises'
import { clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'

const OTHERS_WRITE_BIT = 0o002
const OTHERS_AND_GROUP_WRITE_BITS = 0o022

/**
 * Rejects directory_unusable when it cannot be made or written, is no folder, or belongs, itself or the link that leads there, to
 * a user who is neither ours nor root: they could put other files in the place of ours, or have us write where they want. Of
 * our own, nobody else may write it from now on.
 */
export async function ensurePrivateDirectory(path: string): Promise<void> {
  const self = process.getuid?.()
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw clusterErrorFrom(error, 'directory_unusable', path, reasonOf(error))
  }
  // Elsewhere files have no such owners.
  if (self === undefined) return
  const unusable = (reason: string) => clusterError('directory_unusable', path, reason)
  const stats = await Promise.all([stat(path), lstat(path)])
  for (const { uid } of stats)
    if (uid !== self && uid !== 0) throw unusable(`it belongs to another user (${uid}, this process runs as ${self})`)
  const [{ uid, mode }] = stats
  // A file system without modes of its own refuses, and says who may write by how it is mounted.
  if (uid === self && mode & OTHERS_AND_GROUP_WRITE_BITS)
    await chmod(path, mode & 0o7777 & ~OTHERS_AND_GROUP_WRITE_BITS).catch(() => {})
  else if (mode & OTHERS_WRITE_BIT) throw unusable('every user may write there')
}
