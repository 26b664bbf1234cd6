// What the log contains at info after a normal day, and that every line names its node.

import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { packageVersion } from '../../lib/cluster/version.ts'
import type { Logger, Payload } from '../../lib/index.ts'
import { eventually, MemoryHost, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

type Line = { level: keyof Logger; message: string; [field: string]: unknown }

function recordingLogger(lines: Line[]): Logger {
  const at = (level: keyof Logger) => (details: object, message: string) => {
    lines.push({ level, message, ...details })
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

const dogs = { database: 'dev', table: 'dog' }
const cats = { database: 'dev', table: 'cat' }
const both = { publish: true, subscribe: true }
const anna = { superUser: true, username: 'anna' }

/** The lines without the fields that every line, or only a real run, determines. */
const shown = (lines: Line[]) => lines.map(({ level, localNode, ...fields }) => fields)

test('the lines of a normal day', async (t) => {
  const lines: Line[] = []
  const clock = new TestClock({ stopped: true })
  const cluster = await startCluster(2, {
    network: new MemoryNetwork({ clock }),
    tables: [{ ...dogs, primaryKey: 'id' }],
    host: (name) =>
      new MemoryHost({
        tables: [dogs, ...(name === 'node1' ? [cats] : [])].map((each) => ({ ...each, primaryKey: 'id' })),
      }),
    options: { logger: recordingLogger(lines) },
  })
  t.after(() => cluster.close())
  const [one, two] = [cluster.node('node1'), cluster.node('node2')]
  /** The info lines of a node since the previous call. */
  const takeLines = (node: string) => {
    const taken = lines.filter(({ level, localNode }) => level === 'info' && localNode === node)
    for (const line of taken) lines.splice(lines.indexOf(line), 1)
    return shown(taken)
  }
  const opened = {
    message: 'cluster manager opened',
    version: packageVersion,
    databaseVersion: one.host.info().version,
  }
  const dogSubscription = { ...dogs, ...both }

  assert.deepEqual(takeLines('node1'), [
    { message: 'mesh connected' },
    { ...opened, enabled: true, nodes: 0 },
    { message: 'node added', peer: 'node2', cause: 'peer' },
    { message: 'subscription added', peer: 'node2', ...dogSubscription, cause: 'peer' },
    { message: 'peer up', peer: 'node2' },
  ])
  assert.deepEqual(takeLines('node2'), [
    { message: 'mesh connected' },
    { ...opened, enabled: true, nodes: 0 },
    { message: 'node added', peer: 'node1', cause: 'api' },
    { message: 'subscription added', peer: 'node1', ...dogSubscription, cause: 'api' },
    { message: 'peer up', peer: 'node1' },
  ])

  // A user adds a table and a route.
  const changed: Payload<'manifest:changed'>[] = []
  one.cluster.on('manifest:changed', (payload) => void changed.push(payload))
  const subscriptions = [{ ...cats, publish: true, subscribe: false }]
  await one.cluster.execute({ operation: 'update_node', node_name: 'node2', subscriptions }, anna)
  await one.cluster.execute({ operation: 'cluster_set_routes', server: 'hub', routes: [{ host: 'h', port: 1 }] }, anna)
  await one.cluster.deleteRoutes({ routes: [{ host: 'h', port: 1 }] })
  assert.deepEqual(
    changed.map(({ cause, user }) => [cause, user]),
    [
      ['api', 'anna'],
      ['api', 'anna'],
      ['api', undefined],
    ],
  )
  assert.deepEqual(takeLines('node1'), [
    {
      message: 'subscription added',
      peer: 'node2',
      ...cats,
      publish: true,
      subscribe: false,
      cause: 'api',
      user: 'anna',
    },
    { message: 'route added', server: 'hub', host: 'h', port: 1, cause: 'api', user: 'anna' },
    { message: 'route removed', server: 'hub', host: 'h', port: 1, cause: 'api' },
  ])
  assert.deepEqual(takeLines('node2'), [
    { message: 'table created', peer: 'node1', ...cats, primaryKey: 'id' },
    { message: 'subscription added', peer: 'node1', ...cats, publish: false, subscribe: true, cause: 'peer' },
  ])

  // Transactions leave no lines.
  for (let id = 0; id < 50; id++) await one.host.insert('dev', 'dog', { id })
  await cluster.converged()
  assert.deepEqual([takeLines('node1'), takeLines('node2')], [[], []])

  // One node is away, and catches up with messages that take seconds.
  await two.stop()
  assert.deepEqual(takeLines('node2'), [{ message: 'cluster manager closed' }])
  await clock.advance(6_000)
  assert.deepEqual(takeLines('node1'), [{ message: 'peer down', peer: 'node2', reason: 'no heartbeat' }])
  for (let id = 50; id < 100; id++) await one.host.insert('dev', 'dog', { id })
  let proceed = () => {}
  two.host.apply = ((original) => async (batch) => {
    await new Promise<void>((resolve) => {
      proceed = resolve
    })
    return original(batch)
  })(two.host.apply.bind(two.host))
  const restarted = two.start()
  await restarted
  await eventually('node2 applies', () => two.cluster.subscriptions().some(({ state }) => state === 'catching-up'))
  await clock.advance(3_000)
  await eventually('node2 is live', () => {
    proceed()
    return two.cluster.subscriptions().every(({ state }) => state === 'live')
  })
  const catchUp = takeLines('node2')
  const [live] = catchUp.filter(({ message }) => message === 'subscription live again')
  assert.ok(Number(live?.seconds) >= 3, JSON.stringify(live))
  assert.deepEqual(catchUp.map(({ message, peer }) => [message, peer]).sort(), [
    ['cluster manager opened', undefined],
    ['mesh connected', undefined],
    ['peer up', 'node1'],
    ['subscription catching up', 'node1'],
    ['subscription live again', 'node1'],
  ])
  assert.deepEqual(takeLines('node1'), [{ message: 'peer up', peer: 'node2' }, { message: 'mesh connected' }])

  // The file is edited, then the node is removed by code.
  const text = await readFile(one.configFile, 'utf8')
  await writeFile(one.configFile, text.replace(/routes:.*/, 'routes: [{ host: edited, port: 2 }]'))
  await eventually('the edit is read', () => one.cluster.manifest.routes.hub.length === 1)
  await one.cluster.removeNode({ node_name: 'node2' })
  assert.deepEqual(takeLines('node1'), [
    { message: 'route added', server: 'hub', host: 'edited', port: 2, cause: 'file' },
    { message: 'subscription removed', peer: 'node2', ...dogs, cause: 'api' },
    { message: 'subscription removed', peer: 'node2', ...cats, cause: 'api' },
    { message: 'node removed', peer: 'node2', cause: 'api' },
  ])
  assert.deepEqual(takeLines('node2'), [
    { message: 'subscription removed', peer: 'node1', ...dogs, cause: 'peer' },
    { message: 'subscription removed', peer: 'node1', ...cats, cause: 'peer' },
    { message: 'node removed', peer: 'node1', cause: 'peer' },
  ])
  await cluster.close()
  assert.ok(
    lines.every(({ localNode }) => localNode === 'node1' || localNode === 'node2'),
    JSON.stringify(lines),
  )
})

test('the table in the README has every line at info, and no other', async () => {
  const root = new URL('../../lib/', import.meta.url)
  const logged = new Set<string>()
  for (const path of await readdir(root, { recursive: true })) {
    if (!path.endsWith('.ts')) continue
    const source = await readFile(new URL(path, root), 'utf8')
    const calls = source.matchAll(/ogger\.info\((?:(?!ogger\.)[\s\S])*?'([^']+)',?\s*\)/g)
    for (const [, message] of calls) logged.add(message!)
  }
  const readme = await readFile(new URL('observe/README.md', root), 'utf8')
  const rows = readme.matchAll(/^\| (`[^|]+) \|[^|]*\|[^|]*\|$/gm)
  const listed = [...rows].flatMap(([, messages]) =>
    [...messages!.matchAll(/`([^`]+)`/g)].map(([, message]) => message!),
  )
  const lines = listed.filter((each) => each.includes(' '))
  assert.deepEqual(lines.toSorted(), [...logged].sort())
})

test('the version in the code is that of the package', async () => {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
  assert.equal(packageVersion, version)
})
