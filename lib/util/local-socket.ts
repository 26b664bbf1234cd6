// Local sockets as signs of life: the kernel ends them with their process, also after SIGKILL, and a connection tells whether one listens.

import { mkdtemp, open, rm, stat, symlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { clearTimeout, setTimeout } from './timers.ts'

/** Bytes of a socket's path, without the final null: 107 on Linux, 103 on macOS. Longer ones are cut off or rejected. */
const MAX_PATH_BYTES = 103
/** A process that is suspended accepts the connection but does not answer. */
const ANSWER_TIMEOUT_MS = 5_000

export type SocketServer = { close(): Promise<void> }

/** Listens and answers each connection with a text. Does not keep the process alive. Rejects with the system's error. */
export function listen(address: string, answer: () => string): Promise<SocketServer> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.end(answer(), () => socket.destroy())
    })
    server.unref()
    server.once('error', reject)
    // 'exclusive': otherwise the workers of a cluster of Node share one socket, and each of them listens.
    server.listen({ path: address, exclusive: true }, () => {
      server.off('error', reject)
      server.on('error', () => {})
      resolve({ close: () => new Promise((closed) => server.close(() => closed())) })
    })
  })
}

/** `refused`: no process listens. `silent`: a process listens, or may do so, but does not answer. */
export type Answer = { readonly text: string } | 'refused' | 'missing' | 'silent'

export function ask(address: string): Promise<Answer> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect(address)
    const finish = (answer: Answer) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => finish('silent'), ANSWER_TIMEOUT_MS)
    socket.setEncoding('utf8')
    socket.on('data', (part: string) => {
      text += part
    })
    socket.once('end', () => finish({ text }))
    socket.once('error', ({ code }: NodeJS.ErrnoException) =>
      finish(code === 'ECONNREFUSED' ? 'refused' : code === 'ENOENT' ? 'missing' : 'silent'),
    )
  })
}

/** A directory by a path that is short enough for sockets in it. */
export type ShortDirectory = { address(name: string): string; close(): Promise<void> }

/** `longestName`: bytes of the longest name of a socket in it. */
export async function shortDirectory(directory: string, longestName: number): Promise<ShortDirectory> {
  if (Buffer.byteLength(directory) + 1 + longestName <= MAX_PATH_BYTES)
    return { address: (name) => join(directory, name), close: async () => {} }
  const handle = await open(directory, 'r')
  const descriptor = `/proc/self/fd/${handle.fd}`
  if (await stat(descriptor).catch(() => undefined))
    return { address: (name) => `${descriptor}/${name}`, close: () => handle.close() }
  await handle.close()
  // Other systems than Linux.
  const temporary = await mkdtemp(join(tmpdir(), 'enmesh-'))
  const link = join(temporary, 'd')
  await symlink(directory, link)
  return { address: (name) => join(link, name), close: () => rm(temporary, { recursive: true, force: true }) }
}
