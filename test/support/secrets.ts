// The secrets that tests use, and checks that they do not leak into files, logs and events.

import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'

/**
 * Different for each test file, and inherited by its child processes: ports are reused, and nodes of different files must not
 * connect to each other.
 */
process.env.TEST_CLUSTER_PASSWORD ??= `cluster pass:word/${process.pid}`
export const clusterPassword = process.env.TEST_CLUSTER_PASSWORD

/** Plain and percent-encoded. */
const spellings = [clusterPassword, encodeURIComponent(clusterPassword)]
/** Joined, so that this source does not contain it. */
const PRIVATE_KEY = ['PRIVATE', 'KEY-----'].join(' ')

/** Whether the text contains a secret. */
export const containsSecret = (text: string): boolean =>
  text.includes(PRIVATE_KEY) || spellings.some((spelling) => text.includes(spelling))

/** Files that the servers read; they must not be readable by other users. */
const CONFIGURATION = /^(?:hub|leaf)\.json(?:\.new)?$/
/** Files that tests write: keys, and the configuration of a server outside the cluster. */
const OWN = /\.pem$|^server\.json$/
/** Larger files are skipped: streams of large messages. */
const MAX_FILE_BYTES = 16 * 1024 * 1024

async function isLeak(path: string): Promise<boolean> {
  const file = await stat(path).catch(() => undefined)
  if (!file?.isFile() || file.size > MAX_FILE_BYTES || OWN.test(basename(path))) return false
  const text = await readFile(path, 'latin1').catch(() => '')
  // The host's part of the file may contain its users' passwords.
  const clustering = path.endsWith('.yaml') ? text.slice(text.search(/^clustering:/m)) : text
  return containsSecret(clustering) && !(CONFIGURATION.test(basename(path)) && (file.mode & 0o077) === 0)
}

/** Files below `directory` that contain a secret, except server configurations that only this user can read. */
export async function leaksIn(directory: string): Promise<string[]> {
  // With file types, so that symbolic links to other directories are not followed.
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  const found: string[] = []
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name)
    if (await isLeak(path)) found.push(relative(directory, path))
  }
  return found
}
