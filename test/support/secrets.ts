// The secrets that tests use, and whether anybody wrote them where others could read them.

import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'

/**
 * Another one for each run of a file, handed to its child processes: a port that one run gives back may be the next one's, and
 * their nodes must not take each other for their own.
 */
process.env.TEST_CLUSTER_PASSWORD ??= `cluster pass:word/${process.pid}`
export const clusterPassword = process.env.TEST_CLUSTER_PASSWORD

/** As it is, and as it stands in an address. */
const spellings = [clusterPassword, encodeURIComponent(clusterPassword)]
/** Put together, so that it does not stand in the program itself. */
const PRIVATE_KEY = ['PRIVATE', 'KEY-----'].join(' ')

/** Does this text tell one of them? */
export const isTelling = (text: string): boolean =>
  text.includes(PRIVATE_KEY) || spellings.some((spelling) => text.includes(spelling))

/** These the servers read: they are for us alone. */
const CONFIGURATION = /^(?:hub|leaf)\.json(?:\.new)?$/
/** What a test itself put there: keys, the configuration of a server of nobody's, users of the reference host. */
const OWN = /\.pem$|^server\.json$/
/** Bytes of the largest file that is looked into: streams of large messages are larger. */
const LARGEST = 16 * 1024 * 1024

async function isLeak(path: string): Promise<boolean> {
  const file = await stat(path).catch(() => undefined)
  if (!file?.isFile() || file.size > LARGEST || OWN.test(basename(path))) return false
  const text = await readFile(path, 'latin1').catch(() => '')
  // The host's own part of its file is the host's business.
  const ours = path.endsWith('.yaml') ? text.slice(text.search(/^clustering:/m)) : text
  return isTelling(ours) && !(CONFIGURATION.test(basename(path)) && (file.mode & 0o077) === 0)
}

/** Files below that tell a secret to whoever can read them, or that nobody should need. */
export async function leaksIn(directory: string): Promise<string[]> {
  // With types, so that links to folders elsewhere are not followed.
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  const found: string[] = []
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name)
    if (await isLeak(path)) found.push(relative(directory, path))
  }
  return found
}
