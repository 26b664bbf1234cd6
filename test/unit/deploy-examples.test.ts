// The examples of deployment: names of metrics in alerts and dashboard, ports and probes, and the program of the image.

import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments } from 'yaml'
import { ClusterManager, metricDefinitions } from '../../lib/index.ts'
import { eventually, MemoryHost, MemoryNetwork } from '../../lib/testing.ts'
import { startNode } from '../examples/deploy/server.ts'
import { defaultPorts, ensureConfigFile, readSettings } from '../examples/deploy/settings.ts'
import { prometheusName } from '../support/prometheus-name.ts'
import { temporaryDirectory } from './store-fixture.ts'

const directory = fileURLToPath(new URL('../examples/deploy', import.meta.url))
const read = (name: string) => readFile(join(directory, name), 'utf8')

const LABELS = ['enmesh_node', 'enmesh_peer', 'enmesh_database', 'enmesh_table', 'enmesh_state']
const known = new Set(
  metricDefinitions.flatMap((definition) => {
    const name = prometheusName(definition)
    return definition.kind === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]
  }),
)

/** The names of metrics in expressions of Prometheus. */
const metricsIn = (expressions: readonly string[]) =>
  expressions
    .flatMap((expression) => [...expression.matchAll(/\benmesh_\w+/g)].map(([name]) => name))
    .filter((name) => !LABELS.includes(name))

type Panel = { gridPos: { x: number; y: number; w: number; h: number }; targets: { expr: string }[] }

test('the dashboard and the alerts name metrics that exist', async () => {
  const { panels, templating } = JSON.parse(await read('grafana-dashboard.json')) as {
    panels: Panel[]
    templating: { list: { definition?: string }[] }
  }
  const { groups } = parse(await read('alerts.yaml')) as { groups: { rules: { expr: string }[] }[] }
  const ofDashboard = metricsIn([
    ...panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...templating.list.map(({ definition = '' }) => definition),
  ])
  const ofAlerts = metricsIn(groups.flatMap(({ rules }) => rules.map(({ expr }) => expr)))
  assert.ok(ofDashboard.length > 15 && ofAlerts.length > 7)
  assert.deepEqual(
    ofDashboard.concat(ofAlerts).filter((name) => !known.has(name)),
    [],
  )
})

test('each signal of the documentation that is a metric has an alert, and is on the dashboard', async () => {
  const text = await readFile(new URL('../../lib/observe/README.md', import.meta.url), 'utf8')
  const [, section = ''] = text.split('\n## What to alert on\n')
  const signals = [...section.matchAll(/^\|([^|]*)\|/gm)].map(([, signal]) => signal!)
  const names = signals.map((signal) => [...signal.matchAll(/`enmesh\.(\w+)\.(\w+)`/g)])
  const [alerts, dashboard] = await Promise.all(['alerts.yaml', 'grafana-dashboard.json'].map(read))
  let count = 0
  for (const metrics of names.filter(({ length }) => length > 0)) {
    // Alerts name the table, if the metric exists for each.
    const patterns = metrics.map(([, part, name]) => new RegExp(`\\benmesh_(?:${part}|table)_${name}(?:_total)?\\b`))
    assert.ok(
      patterns.some((pattern) => pattern.test(alerts!)),
      `no alert: ${metrics}`,
    )
    assert.ok(
      patterns.every((pattern) => pattern.test(dashboard!)),
      `not on the dashboard: ${metrics}`,
    )
    count++
  }
  assert.ok(count > 5)
})

test('the panels of the dashboard do not overlap', async () => {
  const { panels } = JSON.parse(await read('grafana-dashboard.json')) as { panels: Panel[] }
  const taken = new Set<string>()
  for (const {
    gridPos: { x, y, w, h },
  } of panels) {
    assert.ok(x + w <= 24)
    for (let column = x; column < x + w; column++)
      for (let row = y; row < y + h; row++) {
        assert.ok(!taken.has(`${column} ${row}`), `${column} ${row}`)
        taken.add(`${column} ${row}`)
      }
  }
})

const secrets = { CLUSTER_PASSWORD: 'of-the-cluster', API_TOKEN: 'of-the-api' }

test('the files agree on ports, paths and variables', async () => {
  const [dockerfile, compose, kubernetes, service] = await Promise.all(
    ['Dockerfile', 'compose.yaml', 'kubernetes.yaml', 'enmesh-node.service'].map(read),
  )
  const { port } = readSettings(secrets)
  assert.match(dockerfile!, new RegExp(`^EXPOSE ${port} ${defaultPorts.cluster}$`, 'm'))
  const variables = new Set([...(await read('settings.ts')).matchAll(/\b[A-Z]+_?[A-Z]+\b/g)].map(([name]) => name))
  const used = (text: string, pattern: RegExp) =>
    [...text.matchAll(pattern)].map(([, name]) => name!.replace(/_FILE$/, ''))
  for (const name of [
    ...used(compose!, /^ {4}([A-Z_]+):/gm),
    ...used(kubernetes!, /name: ([A-Z_]+)\b/g),
    ...used(service!, /\b([A-Z_]+)=/g).filter((each) => each !== 'NODE_ENV'),
  ])
    assert.ok(variables.has(name), `settings.ts does not read ${name}`)
  const documents = parseAllDocuments(kubernetes!).map((document) => document.toJS())
  const [container] = documents.find(({ kind }) => kind === 'StatefulSet').spec.template.spec.containers
  assert.deepEqual(
    container.ports.map(({ containerPort }: { containerPort: number }) => containerPort),
    [port, defaultPorts.cluster],
  )
  for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe'])
    assert.match(container[probe].httpGet.path, /^\/(healthz|readyz)$/)
})

async function open(t: TestContext, network: MemoryNetwork, nodeName: string) {
  const dataDirectory = join(await temporaryDirectory(t), 'data')
  const environment = {
    ...secrets,
    NODE_NAME: nodeName,
    NODES: 'a b',
    ROUTES: 'hubs',
    DATA_DIRECTORY: dataDirectory,
    PORT: '0',
  }
  // 0 means the default in the environment of a container.
  const settings = { ...readSettings(environment), port: 0 }
  const silent = { debug() {}, info() {}, warn() {}, error() {} }
  const node = await startNode(settings, { mesh: network.mesh(nodeName), logger: silent })
  t.after(() => node.close())
  const ask = (path: string, init: RequestInit = {}) =>
    fetch(`http://127.0.0.1:${node.port}${path}`, {
      ...init,
      headers: { authorization: 'Bearer of-the-api', ...init.headers },
    })
  return { node, ask, settings }
}

test('two nodes of the image replicate, and serve probes and metrics', async (t) => {
  const network = new MemoryNetwork({ nodes: ['a', 'b'] })
  const [one, two] = [await open(t, network, 'a'), await open(t, network, 'b')]
  assert.equal((await one.ask('/dev/dog/1', { headers: { authorization: 'Bearer another' } })).status, 401)
  assert.equal((await one.ask('/dev/dog/1')).status, 404)
  assert.equal((await one.ask('/dev/dog/1', { method: 'PUT', body: '{"name":"Rex"}' })).status, 204)
  await eventually('the row arrives', async () => (await two.ask('/dev/dog/1')).status === 200)
  assert.deepEqual(await (await two.ask('/dev/dog/1')).json(), { id: '1', name: 'Rex' })
  for (const path of ['/healthz', '/readyz'])
    assert.equal((await two.ask(path, { headers: { authorization: '' } })).status, 200)
  const answer = await two.ask('/', { method: 'POST', body: '{"operation":"cluster_status"}' })
  assert.equal(((await answer.json()) as { node_name: string }).node_name, 'b')
  assert.equal((await two.ask('/', { method: 'POST', body: '{"operation":"drop_all"}' })).status, 400)
  let metrics = ''
  // The first rows may be copied; only a transaction has a delay.
  await eventually('a transaction arrives', async () => {
    await one.ask('/dev/dog/2', { method: 'PUT', body: '{}' })
    metrics = await (await two.ask('/metrics')).text()
    return metrics.includes('\nenmesh_apply_delay_count{')
  })
  const scraped = new Set([...metrics.matchAll(/^(enmesh_\w+)\{/gm)].map(([, name]) => name!))
  assert.deepEqual(
    [...known].filter((name) => !scraped.has(name)),
    [],
  )
  assert.match(
    metrics,
    /^enmesh_table_lag_time\{[^}]*enmesh_peer="a",enmesh_database="dev",enmesh_table="dog"[^}]*\} \d/m,
  )
})

test('the configuration file is created once, and is valid', async (t) => {
  const dataDirectory = join(await temporaryDirectory(t), 'data')
  const environment = {
    ...secrets,
    NODE_NAME: 'a',
    NODES: 'a,b',
    ROUTES: 'one two:9000',
    DATA_DIRECTORY: dataDirectory,
  }
  const settings = readSettings(environment)
  const files = await Promise.all([ensureConfigFile(settings), ensureConfigFile(settings)])
  const text = await readFile(files[0], 'utf8')
  assert.equal((await stat(files[0])).mode & 0o777, 0o600)
  assert.doesNotMatch(text, /of-the-cluster/)
  const network = new MemoryNetwork()
  const cluster = await ClusterManager.open({ configFile: files[0], host: new MemoryHost(), mesh: network.mesh() })
  const { nodeName, nodes, routes } = cluster.manifest
  await cluster.close()
  assert.deepEqual([nodeName, nodes.map(({ name }) => name)], ['a', ['b']])
  assert.deepEqual(routes.hub, [
    { host: 'one', port: 9932 },
    { host: 'two', port: 9000 },
  ])
  await writeFile(files[0], `${text}# edited\n`)
  assert.equal(await ensureConfigFile(settings), files[0])
  assert.match(await readFile(files[0], 'utf8'), /# edited/)
})

test('secrets come from files too, and are required', async (t) => {
  const file = join(await temporaryDirectory(t), 'token')
  await writeFile(file, 'from-a-file\n')
  assert.equal(readSettings({ CLUSTER_PASSWORD: 'x', API_TOKEN_FILE: file }).apiToken, 'from-a-file')
  assert.throws(() => readSettings({ CLUSTER_PASSWORD: 'x' }), /Set API_TOKEN, or API_TOKEN_FILE/)
})
