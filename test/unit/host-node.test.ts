// One node of the reference host, configured by its YAML file, in process and as a separate process. Clustering is disabled.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { readConfig } from '../host/config.ts'
import { startNode } from '../host/node.ts'
import { programArguments } from '../support/program.ts'

const users = `users:
  - { username: admin, password: secret, role: super_user }
  - { username: mesh, password: mesh-secret, role: cluster_user }
`
const yaml = (port = 0) => `rootPath: data
operationsApi: { network: { port: ${port} } }
${users}clustering: { enabled: false, nodeName: node1, user: mesh }
`

async function configFile(t: TestContext, text: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'host-'))
  t.after(() => rm(directory, { recursive: true }))
  const file = join(directory, 'config.yaml')
  await writeFile(file, text)
  return file
}

async function ask(url: string, body: object): Promise<unknown> {
  const authorization = `Basic ${Buffer.from('admin:secret').toString('base64')}`
  const headers = { 'content-type': 'application/json', authorization }
  return (await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })).json()
}

async function run(t: TestContext, ...args: string[]) {
  const child = spawn(process.execPath, [...programArguments('host/main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => child.kill('SIGKILL'))
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    errors += chunk
  })
  const ended = once(child, 'close').then(([code]) => ({ code, errors }))
  return { child, ended, output: child.stdout.setEncoding('utf8') }
}

test('a node starts from its file, keeps its data over a restart, and closes twice', async (t) => {
  const file = await configFile(t, yaml())
  let node = await startNode(file)
  t.after(() => node.close())
  await ask(node.url, { operation: 'create_table', database: 'dev', table: 'dog', primary_key: 'id' })
  await ask(node.url, { operation: 'insert', database: 'dev', table: 'dog', records: [{ id: 1 }] })
  assert.deepEqual(await ask(node.url, { operation: 'cluster_status' }), {
    node_name: 'node1',
    is_enabled: false,
    connections: [],
  })
  await Promise.all([node.close(), node.close()])
  node = await startNode(file)
  assert.deepEqual(node.database.get('dev', 'dog', 1), { id: 1 })
})

test('a failed start leaves nothing open', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.after(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  const file = await configFile(t, yaml(port))
  await assert.rejects(startNode(file), /cannot listen on port/)
  await writeFile(file, yaml())
  await (await startNode(file)).close()
})

test('the command prints one line when ready, and exits with 0 on SIGTERM and SIGINT', async (t) => {
  const file = await configFile(t, yaml())
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, ended, output } = await run(t, '--config', file)
    const [line] = await once(output, 'data')
    const [, url] = /^node1 ready: (http:\/\/127\.0\.0\.1:\d+) \(pid \d+\)\n$/.exec(line) ?? []
    assert.ok(url, line)
    assert.deepEqual(await ask(url, { operation: 'describe_all' }), {})
    child.kill(signal)
    assert.deepEqual(await ended, { code: 0, errors: '' })
  }
})

test('a failed start prints one line with a hint and exits with 1', async (t) => {
  for (const args of [
    [],
    ['--config', '/nowhere/config.yaml'],
    ['--colour'],
    ['--config', await configFile(t, 'a: [')],
  ]) {
    const { code, errors } = await (await run(t, ...args)).ended
    assert.equal(code, 1)
    assert.match(errors, /^[^\n]+[^.:]\. [^\n]*(--config FILE|Correct the YAML\.)\n$/)
  }
})

test('errors in the file name the invalid key', async (t) => {
  const cases: [string, RegExp][] = [
    ['', /is not a YAML map/],
    ['- 1', /is not a YAML map/],
    ['a: 1\na: 2', /config\.yaml: Map keys must be unique/],
    [users, /'rootPath' must be a path/],
    ['rootPath: data', /'users' must be a list/],
    [
      `rootPath: data\noperationsApi: { network: { port: x } }\n${users}`,
      /'operationsApi\.network\.port' must be an integer/,
    ],
    [
      'rootPath: data\nusers: [{ username: a, password: 1, role: b }]',
      /'users\[0\]\.password' must be a non-empty string/,
    ],
    [`rootPath: data\n${users}  - { username: mesh, password: x, role: y }`, /names 'mesh' twice/],
    [
      `rootPath: data\n${users}clustering: { enabled: true, user: nobody }`,
      /'clustering\.user' must name one of the users/,
    ],
  ]
  for (const [text, message] of cases) await assert.rejects(readConfig(await configFile(t, text)), message)
})

test('clustering.user selects the password', async (t) => {
  const file = await configFile(
    t,
    `rootPath: ./data\n${users}clustering: { enabled: true, nodeName: node1, user: mesh }`,
  )
  const config = await readConfig(file)
  assert.deepEqual(
    [config.port, config.clusterPassword, config.rootPath],
    [9925, 'mesh-secret', join(file, '..', 'data')],
  )
})
