// Streams of the status page whose readers are slow or gone, and files that could not be read for a moment.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { cp, mkdtemp, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type StatusPageOptions, statusPage } from '../../lib/status-page.ts'
import { eventually } from '../../lib/testing.ts'
import { StatusView, type StatusViewOptions } from '../support/status-view.ts'

async function open(t: TestContext, options: StatusPageOptions = {}, viewOptions: StatusViewOptions = {}) {
  const source = new StatusView(viewOptions)
  const page = statusPage(source.view, options)
  const server = createServer((request, response) => page(request, response)).listen(0, '127.0.0.1')
  t.after(() => {
    page.close()
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return { source, page, server, port, url: `http://127.0.0.1:${port}` }
}

test('a reader that leaves while its rights are looked up does not count as an open stream', {
  timeout: 20_000,
}, async (t) => {
  let isHeld = true
  let waiting = 0
  let closed = 0
  let release = () => {}
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  const authorize: StatusPageOptions['authorize'] = async (_, response) => {
    if (!isHeld) return true
    response.once('close', () => closed++)
    waiting++
    await gate
    return true
  }
  const { url } = await open(t, { authorize })
  const leaving = new AbortController()
  const requests = Array.from({ length: 50 }, () => fetch(`${url}/events`, { signal: leaving.signal }).catch(() => {}))
  await eventually('all streams wait', () => waiting === 50)
  leaving.abort()
  await Promise.all(requests)
  await eventually('all streams are closed', () => closed === 50)
  isHeld = false
  release()
  await new Promise((resolve) => setImmediate(resolve))
  const response = await fetch(`${url}/events`, { signal: t.signal })
  assert.equal(response.status, 200)
})

test('a reader that reads nothing does not keep the server from closing', { timeout: 20_000 }, async (t) => {
  const tables = Array.from({ length: 5_000 }, (_, index) => `table${index}-${'x'.repeat(100)}`)
  const { page, server, port } = await open(t, {}, { peers: ['node2', 'node3', 'node4'], tables })
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  const [, response] = await new Promise<[unknown, import('node:http').ServerResponse]>((resolve) => {
    server.once('request', (...both) => resolve(both))
    socket.pause()
    socket.write('GET /events HTTP/1.1\r\nhost: x\r\n\r\n')
  })
  // What the sockets do not hold.
  await eventually('data waits for the reader', () => response.writableLength > 0, 30_000)
  const isClosed = once(server, 'close').then(() => true)
  server.close()
  page.close()
  const isLate = new Promise((resolve) => setTimeout(resolve, 15_000, false).unref())
  assert.equal(await Promise.race([isClosed, isLate]), true)
})

test('a file that could not be read is read again', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'status-page-'))
  t.after(() => rm(directory, { recursive: true }))
  await cp(fileURLToPath(new URL('../../lib/status-page/page', import.meta.url)), directory, { recursive: true })
  const { url } = await open(t, { directory })
  await rename(join(directory, 'main.mjs'), join(directory, 'away'))
  assert.equal((await fetch(`${url}/main.mjs`)).status, 500)
  await rename(join(directory, 'away'), join(directory, 'main.mjs'))
  assert.equal((await fetch(`${url}/main.mjs`)).status, 200)
})
