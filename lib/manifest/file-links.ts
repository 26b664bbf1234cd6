// Resolves the path of the configuration file through symbolic links, including links to a missing file.

import { readlink, realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

export const errorCode = (error: unknown): unknown => (error as { code?: unknown } | null)?.code

/** The path with its directory resolved, but not the last part; unchanged when the directory is missing. */
export async function realEntry(path: string): Promise<string> {
  const directory = dirname(resolve(path))
  return join(await realpath(directory).catch(() => directory), basename(path))
}

/** The final target of a link, existing or not; the path itself when it is not a link. */
export async function linkTarget(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    // A cycle of links, or no permission.
    if (errorCode(error) !== 'ENOENT') throw error
  }
  const entry = await realEntry(path)
  const link = await readlink(entry).catch(() => undefined)
  return link === undefined ? entry : linkTarget(resolve(dirname(entry), link))
}
