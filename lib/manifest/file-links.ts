// Where the path of the configuration file leads: through links, also through one that leads to nothing yet.

import { readlink, realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

export const errorCode = (error: unknown): unknown => (error as { code?: unknown } | null)?.code

/** The path in its real folder, itself not followed; as it is when there is no such folder. */
export async function realEntry(path: string): Promise<string> {
  const directory = dirname(resolve(path))
  return join(await realpath(directory).catch(() => directory), basename(path))
}

/** Where a link leads in the end, whether or not there is a file; the path itself when it is no link. */
export async function linkTarget(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    // A link in a circle, or no permission.
    if (errorCode(error) !== 'ENOENT') throw error
  }
  const entry = await realEntry(path)
  const link = await readlink(entry).catch(() => undefined)
  return link === undefined ? entry : linkTarget(resolve(dirname(entry), link))
}
