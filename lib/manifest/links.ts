// Where the path of the configuration file leads: through links, also through one that leads to nothing yet.

import { readlink, realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

export const codeOf = (error: unknown): unknown => (error as { code?: unknown } | null)?.code

/** The path in its real folder, itself not followed; as it is when there is no such folder. */
export async function entryOf(path: string): Promise<string> {
  const folder = dirname(resolve(path))
  return join(await realpath(folder).catch(() => folder), basename(path))
}

/** Where a link leads in the end, whether or not there is a file; the path itself when it is no link. */
export async function targetOf(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    // A link in a circle, or no permission.
    if (codeOf(error) !== 'ENOENT') throw error
  }
  const entry = await entryOf(path)
  const link = await readlink(entry).catch(() => undefined)
  return link === undefined ? entry : targetOf(resolve(dirname(entry), link))
}
