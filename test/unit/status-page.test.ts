// The request handler of the status page over HTTP: files, data, server-sent events, and who may see them.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { ClusterManager } from '../../lib/index.ts'
import { type Snapshot, type StatusPageOptions, statusPage } from '../../lib/status-page.ts'
import { freePorts } from '../../lib/testing.ts'
import { serveStatusPage } from '../examples/status-page.ts'
import { StatusView, type StatusViewOptions } from '../support/status-view.ts'

/** Ends with the test. */
async function listen(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function open(t: TestContext, options: StatusPageOptions = {}, viewOptions: StatusViewOptions = {}) {
  const source = new StatusView(viewOptions)
  const page = statusPage(source.view, options)
  t.after(() => page.close())
  return { source, page, url: await listen(t, (request, response) => page(request, response)) }
}

const get = (url: string, options: RequestInit = {}) => fetch(url, { redirect: 'manual', ...options })

test('the files of the page are served with their types, and with a policy that forbids everything from elsewhere', async (t) => {
  const { url } = await open(t)
  const files = readdirSync(new URL('../../lib/status-page/page', import.meta.url)).filter(
    (name) => name !== 'tsconfig.json',
  )
  const types = { html: 'text/html', css: 'text/css', mjs: 'text/javascript', svg: 'image/svg+xml' } as Record<
    string,
    string
  >
  for (const name of files) {
    const response = await get(`${url}/${name}`)
    assert.equal(response.status, 200, name)
    assert.ok(response.headers.get('content-type')?.startsWith(types[name.split('.').at(-1)!]!), name)
    assert.match(response.headers.get('content-security-policy')!, /default-src 'none'.*script-src 'self'/)
    assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
  }
  assert.equal(await (await get(`${url}/`)).text(), await (await get(`${url}/index.html`)).text())
})

test('a file that the browser has is not sent again', async (t) => {
  const { url } = await open(t)
  const etag = (await get(`${url}/main.mjs`)).headers.get('etag')!
  const again = await get(`${url}/main.mjs`, { headers: { 'if-none-match': etag } })
  assert.deepEqual([again.status, await again.text()], [304, ''])
})

test('only names of the page are found, and nothing can be changed', async (t) => {
  const { url } = await open(t)
  for (const path of [
    '/handler.ts',
    '/..%2fhandler.ts',
    '/%2e%2e/handler.ts',
    '/tsconfig.json',
    '/constructor',
    '/x/main.mjs',
  ])
    assert.equal((await get(url + path)).status, 404, path)
  const posted = await get(`${url}/snapshot.json`, { method: 'POST', body: '{}' })
  assert.deepEqual([posted.status, posted.headers.get('allow')], [405, 'GET, HEAD'])
  const head = await get(`${url}/snapshot.json`, { method: 'HEAD' })
  assert.deepEqual([head.status, await head.text()], [200, ''])
  const stream = await get(`${url}/events`, { method: 'HEAD' })
  assert.deepEqual([stream.status, await stream.text()], [200, ''])
})

test('below a path, the address without a slash leads to the one with it', async (t) => {
  const { url } = await open(t, { path: '/admin/status' })
  const redirect = await get(`${url}/admin/status`)
  assert.deepEqual([redirect.status, redirect.headers.get('location')], [308, 'status/'])
  assert.equal((await get(`${url}/admin/status/`)).status, 200)
  assert.equal((await get(`${url}/admin/statusx`)).status, 404)
  assert.equal((await get(`${url}/`)).status, 404)
})

test('as middleware below a mount point, it redirects to the whole address and leaves other addresses to the next one', async (t) => {
  const page = statusPage(new StatusView().view, { path: '' })
  t.after(() => page.close())
  const url = await listen(t, (request, response) => {
    // What Express and Connect do.
    const original = request.url!
    Object.assign(request, { originalUrl: original, url: original.replace(/^\/mounted/, '') })
    page(request, response, () => response.writeHead(418).end())
  })
  assert.equal((await get(`${url}/mounted`)).headers.get('location'), 'mounted/')
  assert.equal((await get(`${url}/mounted/style.css`)).status, 200)
  assert.equal((await get(`${url}/mounted/other`)).status, 418)
})

test('authorize decides about page and data, may answer by itself, and probes do without it', async (t) => {
  const { url, source } = await open(t, {
    authorize: async ({ headers }, response) => {
      if (headers.cookie === 'broken') throw new Error('no such session')
      if (headers.cookie === 'admin') return true
      if (headers.cookie === undefined) response.writeHead(401, { 'www-authenticate': 'Basic' }).end()
      return false
    },
  })
  const status = async (path: string, cookie?: string) =>
    (await get(url + path, cookie === undefined ? {} : { headers: { cookie } })).status
  for (const path of ['/', '/main.mjs', '/snapshot.json', '/history.json', '/events']) {
    assert.equal(await status(path), 401, path)
    assert.equal(await status(path, 'reader'), 403, path)
    assert.equal(await status(path, 'broken'), 500, path)
  }
  assert.equal(await status('/snapshot.json', 'admin'), 200)
  assert.deepEqual([await status('/healthz'), await status('/readyz')], [200, 200])
  source.ready = false
  assert.deepEqual([await status('/healthz'), await status('/readyz')], [200, 503])
  assert.deepEqual(await (await get(`${url}/readyz`)).json(), { ready: false })
})

test('the snapshot has the peers, the tables in both directions, and what is wrong with what to do', async (t) => {
  const { url, source } = await open(t)
  const [status] = source.statuses
  Object.assign(status!, {
    state: 'stalled',
    lag: 7,
    lagSeconds: 7.12345,
    error: 'disk full',
    unrepairedGaps: 1,
    gaps: 1,
    lost: 4,
  })
  source.down.add('node3')
  source.degraded = [{ code: 'peer_down', node: 'node3', message: 'no heartbeat of node3' }]
  const snapshot = (await (await get(`${url}/snapshot.json`)).json()) as Snapshot
  assert.deepEqual(
    snapshot.peers.map(({ node, up, state, tables }) => [node, up, state, tables]),
    [
      ['node2', true, 'stalled', 1],
      ['node3', false, 'down', 1],
    ],
  )
  const [table] = snapshot.tables
  assert.deepEqual([table!.node, table!.database, table!.table], ['node2', 'dev', 'dog'])
  assert.deepEqual(
    [table!.received!.state, table!.received!.lag, table!.received!.lagSeconds, table!.received!.error],
    ['stalled', 7, 7.12, 'disk full'],
  )
  assert.equal(table!.sent!.lag, 0)
  assert.match(snapshot.conditions[0]!.advice, /node/)
  assert.deepEqual([snapshot.ready, snapshot.conditionCount, snapshot.node], [true, 1, 'node1'])
})

/** The events of a stream as they arrive. */
async function* readEvents(url: string, signal: AbortSignal) {
  const response = await fetch(`${url}/events`, { signal })
  assert.match(response.headers.get('content-type')!, /^text\/event-stream/)
  let unread = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body!) {
    unread += decoder.decode(chunk as Uint8Array, { stream: true })
    const parts = unread.split('\n\n')
    unread = parts.pop()!
    for (const part of parts) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(part) ?? []
      if (name) yield { name, data: JSON.parse(data!) }
    }
  }
}

test('a stream begins with the history and a snapshot, brings another one soon after an event, and ends with the page', async (t) => {
  const { url, source, page } = await open(t)
  const events = readEvents(url, t.signal)
  const next = async () => (await events.next()).value!
  assert.equal((await next()).name, 'history')
  assert.equal((await next()).name, 'snapshot')
  source.emit('peer:down', { node: 'node2' })
  const { data } = await next()
  assert.deepEqual([data.events[0].event, data.events[0].node], ['peer:down', 'node2'])
  page.close()
  assert.equal((await events.next()).done, true)
})

test('a page of a closed manager shows its last state, and its streams end', async (t) => {
  const { url, source, page } = await open(t)
  source.state = 'closed'
  page.close()
  const names: string[] = []
  for await (const { name } of readEvents(url, t.signal)) names.push(name)
  assert.deepEqual(names, ['history', 'snapshot'])
  assert.equal(((await (await get(`${url}/snapshot.json`)).json()) as Snapshot).state, 'closed')
})

test('the number of streams is bounded, and streams that ended do not count', async (t) => {
  const page = statusPage(new StatusView().view)
  t.after(() => page.close())
  const responses: ServerResponse[] = []
  const url = await listen(t, (request, response) => {
    responses.push(response)
    page(request, response)
  })
  // An answer that nobody refers to is ended by the garbage collector.
  const kept: Response[] = []
  const stream = async (signal = t.signal) => {
    const response = await fetch(`${url}/events`, { signal })
    kept.push(response)
    return response.status
  }
  const first = new AbortController()
  assert.equal(await stream(first.signal), 200)
  for (let index = 1; index < 50; index++) assert.equal(await stream(), 200)
  assert.equal(await stream(), 503)
  const ended = once(responses[0]!, 'close')
  first.abort()
  await ended
  assert.deepEqual([await stream(), await stream(), kept.length], [200, 503, 53])
})

test('the history of a table is asked for by its names', async (t) => {
  const { url } = await open(t)
  const history = await (await get(`${url}/history.json?node=node2&database=dev&table=dog`)).json()
  assert.deepEqual(Object.keys(history as object), ['times', 'values'])
  assert.equal((await get(`${url}/history.json?node=node2&database=dev&table=cat`)).status, 404)
  assert.equal((await get(`${url}/history.json?node=node2`)).status, 400)
  assert.equal((await get(`${url}/history.json`)).status, 200)
})

test('invalid options are refused', () => {
  const { view } = new StatusView()
  for (const path of ['status', '/status/', '/', 7])
    assert.throws(() => statusPage(view, { path: path as string }), TypeError)
  assert.throws(() => statusPage(view, { authorize: true as never }), TypeError)
  assert.throws(() => statusPage(view, { directory: 1 as never }), TypeError)
})

test('files can be in another directory, for bundles, and one that is missing is an error of the server', async (t) => {
  const { url } = await open(t, { directory: new URL('../../lib/status-page/page', import.meta.url).pathname })
  assert.equal((await get(`${url}/style.css`)).status, 200)
  const empty = await open(t, { directory: '/nonexistent' })
  assert.equal((await get(`${empty.url}/style.css`)).status, 500)
})

test('the example of the README asks for credentials', async (t) => {
  const { view } = new StatusView()
  const [port] = await freePorts(1)
  const server = serveStatusPage({ view } as ClusterManager, port!, async (header) => header === 'let me in')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  const url = `http://127.0.0.1:${port}/status/`
  const refused = await get(url)
  assert.deepEqual([refused.status, refused.headers.get('www-authenticate')], [401, 'Basic realm="status"'])
  assert.equal((await get(url, { headers: { authorization: 'let me in' } })).status, 200)
})
