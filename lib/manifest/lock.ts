// Locks a configuration file for one process. The kernel releases the lock when the process ends, even by SIGKILL.

import { createHash } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { platform, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { clusterError } from '../errors.ts'
import { linkTarget, realEntry } from './file-links.ts'

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
 * Listens on a local socket named after the file. On Linux the socket is abstract and ends with the process. Elsewhere it is a
 * file, which a killed process leaves behind without a listener. Undefined when another process listens.
 */
async function acquire(file: string): Promise<Release | undefined> {
  const name = `enmesh-${createHash('sha256').update(file).digest('hex').slice(0, 32)}`
  const isAbstract = platform() === 'linux'
  const address = isAbstract ? `\0${name}` : join(tmpdir(), `${name}.sock`)
  const release = await listen(address)
  if (release || isAbstract || (await isAnswered(address))) return release
  await unlink(address).catch(() => {})
  return listen(address)
}

/** Undefined when the address is taken. */
function listen(address: string): Promise<Release | undefined> {
  return new Promise((done, failed) => {
    const server = createServer((socket) => socket.destroy())
    server.unref()
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? done(undefined) : failed(error),
    )
    server.listen(address, () => done(() => new Promise((closed) => server.close(() => closed()))))
  })
}

function isAnswered(address: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(address)
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })
}
