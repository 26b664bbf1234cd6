// Ports for servers that tests start.

import { createServer, type Server } from 'node:net'

// Below what the system gives to outgoing connections (from 32768 on Linux, 49152 elsewhere): whoever dials a server that is
// down would sooner or later be given the very port that the server wants back. Each process has a block of its own, and
// holds its first port for as long as it lives.
const FIRST_PORT = 10_000
const BLOCK_SIZE = 200
const BLOCK_COUNT = 110
let reservedBlock: Promise<number> | undefined
let portsAssigned = 0

const listening = (server: Server, port: number) =>
  new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => resolve(true))
  })

async function reserveBlock(): Promise<number> {
  for (let number = process.pid; number < process.pid + BLOCK_COUNT; number++) {
    const first = FIRST_PORT + (number % BLOCK_COUNT) * BLOCK_SIZE
    const guard = createServer().unref()
    if (await listening(guard, first)) return first
  }
  throw new Error(`no free block of ports from ${FIRST_PORT} on`)
}

/** Ports of 127.0.0.1 that nobody listens on, all different, and given to no other process that asks in this way. */
export async function freePorts(count: number): Promise<number[]> {
  reservedBlock ??= reserveBlock()
  const first = await reservedBlock
  const ports: number[] = []
  for (let tried = 0; ports.length < count; tried++) {
    if (tried > 10 * BLOCK_SIZE) throw new Error(`${count} free ports could not be found from ${first} on`)
    const port = first + 1 + (portsAssigned++ % (BLOCK_SIZE - 1))
    const server = createServer()
    if (!(await listening(server, port))) continue
    await new Promise((resolve) => server.close(resolve))
    ports.push(port)
  }
  return ports
}
