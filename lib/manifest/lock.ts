// One process for one configuration file: a lock that the kernel takes back when its holder dies, however that happens.

import { createHash } from 'node:crypto'
import { realpath, unlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { platform, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { clusterError } from '../errors.ts'

/**
 * Listens on a local socket named after the file. On Linux that name is no file and ends with the process; elsewhere it is
 * a file, and one that nobody listens on is left over from a process that was killed. Resolves with the release; rejects
 * config_locked.
 */
export async function lock(configFile: string): Promise<() => Promise<void>> {
  const path = resolve(configFile)
  const real = await realpath(path).catch(() => path)
  const name = `enmesh-${createHash('sha256').update(real).digest('hex').slice(0, 32)}`
  const address = platform() === 'linux' ? `\0${name}` : join(tmpdir(), `${name}.sock`)
  for (let attempt = 0; attempt < 2; attempt++) {
    const release = await listen(address)
    if (release) return release
    if (platform() === 'linux' || (await answers(address))) break
    await unlink(address).catch(() => {})
  }
  throw clusterError('config_locked', path)
}

/** Undefined when the address is taken. */
function listen(address: string): Promise<(() => Promise<void>) | undefined> {
  return new Promise((done, failed) => {
    const server = createServer((socket) => socket.destroy())
    server.unref()
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? done(undefined) : failed(error),
    )
    server.listen(address, () => done(() => new Promise((closed) => server.close(() => closed()))))
  })
}

function answers(address: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(address)
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', () => done(false))
  })
}
