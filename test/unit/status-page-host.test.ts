// The status page in the reference host: for super users only, and an open page does not hold up the end of the server.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statusPage } from '../../lib/status-page.ts'
import { createServer, type ServerOptions } from '../host/server.ts'
import { Users } from '../host/users.ts'
import { StatusView } from '../support/status-view.ts'

const basic = (user: string) => ({ authorization: `Basic ${Buffer.from(`${user}:secret`).toString('base64')}` })

test('the status page is for super users, and its streams end with the server', async (t) => {
  const server = createServer({
    users: new Users([
      { username: 'admin', password: 'secret', role: 'super_user' },
      { username: 'anna', password: 'secret', role: 'reader' },
    ]),
    logger: { debug() {}, info() {}, warn() {}, error() {} },
    statusPage: statusPage(new StatusView().view, { path: '/status' }),
  } as unknown as ServerOptions)
  t.after(() => server.close())
  const url = await server.listen({ host: '127.0.0.1', port: 0 })
  const get = (path: string, headers = {}) => fetch(url + path, { headers })
  assert.equal((await get('/status/')).status, 401)
  assert.equal((await get('/status/', basic('anna'))).status, 403)
  const page = await get('/status', basic('admin'))
  assert.deepEqual([page.status, page.url], [200, `${url}/status/`])
  assert.match(await page.text(), /Cluster status/)
  assert.equal((await get('/status/main.mjs', basic('admin'))).status, 200)
  assert.equal((await get('/status/nothing', basic('admin'))).status, 404)
  const stream = await get('/status/events', basic('admin'))
  await server.close()
  assert.match(await stream.text(), /event: snapshot/)
})
