// Directories of test clusters. A process that was killed leaves its directory, and its servers run on: the next process that starts a
// cluster ends and removes them. A directory is locked while its cluster exists, and the kernel releases the lock of a killed process.

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serversOf, terminate } from '../mesh/nats/processes.ts'
import { type DirectoryLock, lockDirectory } from '../util/directory-lock.ts'

const PREFIX = 'enmesh-cluster-'
const STOP_TIMEOUT_MS = 3_000
const SERVERS = ['hub', 'leaf']
/** A file that is there from the moment at which the process has the lock. */
const MARKER = 'locked'

export type ClusterDirectory = {
  readonly path: string
  /** Idempotent. */
  remove(): Promise<void>
}

const removeAll = (path: string) => rm(path, { recursive: true, force: true, maxRetries: 5 })

/** Creates and locks a directory in `parent`, where leftovers of killed processes are removed before. */
export async function createClusterDirectory(parent = tmpdir()): Promise<ClusterDirectory> {
  await removeLeftovers(parent)
  const path = await mkdtemp(join(parent, PREFIX))
  const lock = await lockDirectory(path, { owner: `process ${process.pid}` })
  await writeFile(join(path, MARKER), '')
  return {
    path,
    remove: async () => {
      await lock.release()
      await removeAll(path)
    },
  }
}

async function removeLeftovers(parent: string): Promise<void> {
  const names = (await readdir(parent)).filter((name) => name.startsWith(PREFIX))
  await Promise.all(names.map((name) => removeLeftover(join(parent, name)).catch(() => {})))
}

/** Rejects when the directory is in use, or belongs to another user. */
async function removeLeftover(path: string): Promise<void> {
  // Its process may be about to lock it.
  if (!(await readdir(path)).includes(MARKER)) return
  const lock: DirectoryLock = await lockDirectory(path, { owner: `process ${process.pid}, removing leftovers` })
  try {
    const nodes = (await readdir(path, { withFileTypes: true })).filter((entry) => entry.isDirectory())
    // The leaf last: it is the one with data.
    for (const { name } of nodes)
      for (const server of SERVERS)
        for (const pid of await serversOf(join(path, name, 'clustering', `${server}.json`)))
          await terminate(pid, STOP_TIMEOUT_MS)
    await removeAll(path)
  } finally {
    await lock.release()
  }
}
