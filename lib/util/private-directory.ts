// A directory for secrets and state that no other user may be able to change.

import { access, chmod, constants, lstat, mkdir, stat } from 'node:fs/promises'
import { clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'

const OTHERS_WRITE_BIT = 0o002
const OTHERS_AND_GROUP_WRITE_BITS = 0o022

/**
 * Creates the directory when it is missing, and removes the write permission of group and others from a directory of this user. Rejects
 * directory_unusable when it cannot be created or written, is no directory, or when it or the link to it belongs to another user
 * than this one and root: that user could replace files in it, or redirect writes.
 */
export async function ensurePrivateDirectory(path: string): Promise<void> {
  const self = process.getuid?.()
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw clusterErrorFrom(error, 'directory_unusable', path, reasonOf(error))
  }
  // Windows has no such owners.
  if (self === undefined) return
  const unusable = (reason: string) => clusterError('directory_unusable', path, reason)
  const stats = await Promise.all([stat(path), lstat(path)])
  for (const { uid } of stats)
    if (uid !== self && uid !== 0) throw unusable(`it belongs to another user (${uid}, this process runs as ${self})`)
  const [{ uid, mode }] = stats
  // A file system without modes rejects chmod; its mount options decide who may write.
  if (uid === self && mode & OTHERS_AND_GROUP_WRITE_BITS)
    await chmod(path, mode & 0o7777 & ~OTHERS_AND_GROUP_WRITE_BITS).catch(() => {})
  else if (mode & OTHERS_WRITE_BIT) throw unusable('every user may write to it')
}
