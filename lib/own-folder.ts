// A folder that we keep secrets and state in: made when missing, and not believed when somebody else could change what is there.

import { access, chmod, constants, lstat, mkdir, stat } from 'node:fs/promises'
import { clusterError, clusterErrorFrom, reasonOf } from './errors.ts'

const OTHERS_WRITE = 0o002
const OTHERS_AND_GROUP_WRITE = 0o022

/**
 * Rejects folder_unusable when it cannot be made or written, is no folder, or belongs, itself or the link that leads there, to
 * a user who is neither ours nor root: they could put other files in the place of ours, or have us write where they want. Of
 * our own, nobody else may write it from now on.
 */
export async function ownFolder(path: string): Promise<void> {
  const self = process.getuid?.()
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw clusterErrorFrom(error, 'folder_unusable', path, reasonOf(error))
  }
  // Elsewhere files have no such owners.
  if (self === undefined) return
  const refuse = (reason: string) => clusterError('folder_unusable', path, reason)
  const found = await Promise.all([stat(path), lstat(path)])
  for (const { uid } of found)
    if (uid !== self && uid !== 0) throw refuse(`it belongs to another user (${uid}, this process runs as ${self})`)
  const [{ uid, mode }] = found
  // A file system without modes of its own refuses, and says who may write by how it is mounted.
  if (uid === self && mode & OTHERS_AND_GROUP_WRITE)
    await chmod(path, mode & 0o7777 & ~OTHERS_AND_GROUP_WRITE).catch(() => {})
  else if (mode & OTHERS_WRITE) throw refuse('every user may write there')
}
