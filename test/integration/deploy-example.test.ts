// The program of the example image on real servers: its hubs listen for other machines, and it closes on SIGTERM.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { eventually, freePorts } from '../../lib/testing.ts'
import { ensureConfigFile, readSettings } from '../examples/deploy/settings.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'

test('two containers replicate, and end in order', async (t) => {
  const ports = await freePorts(10)
  const route = `127.0.0.1:${ports[0]}`
  const start = async (name: string, [cluster, leafNodes, hub, leaf, port]: number[]) => {
    const [directory, remove] = await temporaryDirectory()
    const environment = {
      ...{ NODE_NAME: name, NODES: 'a b', ROUTES: route, PORT: String(port) },
      ...{ DATA_DIRECTORY: directory, CLUSTER_PASSWORD: 'of-the-cluster', API_TOKEN: 'of-the-api' },
    }
    const known = { cluster: cluster!, leafNodes: leafNodes!, hub: hub!, leaf: leaf! }
    await ensureConfigFile(readSettings(environment), known)
    const child = spawn(process.execPath, programArguments('examples/deploy/main.ts'), {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
    })
    const ended = once(child, 'close')
    child.stdout.resume()
    t.after(async () => {
      child.kill('SIGKILL')
      await ended
      await remove()
    })
    const ask = (path: string, init: RequestInit = {}) =>
      fetch(`http://127.0.0.1:${port}${path}`, { ...init, headers: { authorization: 'Bearer of-the-api' } })
    await eventually(`${name} is ready`, () =>
      ask('/readyz').then(
        ({ ok }) => ok,
        () => false,
      ),
    )
    return { child, ended, ask }
  }
  const [one, two] = await Promise.all([start('a', ports.slice(0, 5)), start('b', ports.slice(5))])
  assert.equal((await one.ask('/dev/dog/1', { method: 'PUT', body: '{"name":"Rex"}' })).status, 204)
  await eventually('the row arrives', async () => (await two.ask('/dev/dog/1')).status === 200)
  for (const { child } of [one, two]) child.kill('SIGTERM')
  for (const { ended } of [one, two]) assert.deepEqual(await ended, [0, null])
})
