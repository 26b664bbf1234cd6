// Ports for servers that tests start.

import { createServer, type Server } from 'node:net'

// Below the ephemeral ports of the system (from 32768 on Linux, 49152 elsewhere): otherwise a client that reconnects to a stopped
// server may be assigned the port of that server. Each process reserves one block by listening on its first port.
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
  throw new Error(`no free block of ports at or above ${FIRST_PORT}`)
}

/** Different free ports of 127.0.0.1. No other process that calls this function gets the same ports. */
export async function freePorts(count: number): Promise<number[]> {
  reservedBlock ??= reserveBlock()
  const first = await reservedBlock
  const ports: number[] = []
  for (let tried = 0; ports.length < count; tried++) {
    if (tried > 10 * BLOCK_SIZE) throw new Error(`no ${count} free ports at or above ${first}`)
    const port = first + 1 + (portsAssigned++ % (BLOCK_SIZE - 1))
    const server = createServer()
    if (!(await listening(server, port))) continue
    await new Promise((resolve) => server.close(resolve))
    ports.push(port)
  }
  return ports
}
