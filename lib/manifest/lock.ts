// Locks a configuration file for one process. The kernel releases the lock when the process ends, even by SIGKILL.

import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { platform, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { ClusterError, clusterError } from '../errors.ts'
import { lockDirectory } from '../util/directory-lock.ts'
import { listen } from '../util/local-socket.ts'
import { errorCode, linkTarget, realEntry } from './file-links.ts'

type Release = () => Promise<void>

/**
 * Locks the target of the path, existing or not, and the path itself, because the target of a link may change. Resolves with the
 * release function; rejects config_locked.
 */
export async function lock(configFile: string): Promise<Release> {
  const path = resolve(configFile)
  const entry = await realEntry(path)
  const acquired: Release[] = []
  const release = async () => {
    for (const each of acquired.splice(0)) await each()
  }
  try {
    for (const name of new Set([await linkTarget(path).catch(() => entry), entry])) {
      const one = await acquire(name)
      if (!one) throw clusterError('config_locked', path)
      acquired.push(one)
    }
    return release
  } catch (error) {
    await release()
    throw error
  }
}

/**
 * On Linux a socket without a file, named after the configuration file: it needs no writable directory. Elsewhere a lock in a directory of
 * that name. Undefined when another process has it.
 */
async function acquire(file: string): Promise<Release | undefined> {
  const name = `enmesh-${createHash('sha256').update(file).digest('hex').slice(0, 32)}`
  if (platform() === 'linux') {
    const server = await listen(`\0${name}`, () => '').catch((error) => {
      if (errorCode(error) === 'EADDRINUSE') return undefined
      throw error
    })
    return server && (() => server.close())
  }
  const directory = join(tmpdir(), name)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  try {
    const { release } = await lockDirectory(directory, { owner: file })
    return release
  } catch (error) {
    if (error instanceof ClusterError && error.code === 'directory_in_use') return undefined
    throw error
  }
}
