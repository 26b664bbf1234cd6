// The process of a node as an operator sees it: one line when it is ready, exit on signals, one line when it cannot start, and
// data that survives a kill.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseDocument } from 'yaml'
import { eventually, isRunning, temporaryDirectory } from '../support/cluster.ts'
import { sampled } from '../support/long.ts'
import { NodeProcess } from '../support/node-process.ts'
import { programArguments } from '../support/program.ts'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const START_TIMEOUT_MS = 30_000

/** A child process and its output. `ended` resolves with the exit code; null if a signal ended the process. */
type Run = { child: ChildProcess; output: string; errors: string; ended: Promise<number | null> }

const runs: Run[] = []

function run(command: string, args: readonly string[]): Run {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const one: Run = {
    child,
    output: '',
    errors: '',
    ended: new Promise((resolve) => child.once('close', (code) => resolve(code))),
  }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    one.output += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    one.errors += text
  })
  runs.push(one)
  return one
}

const npm = (...args: string[]) => run('npm', ['run', '--silent', 'node', '--', ...args])
/** Runs the program without npm. */
const start = (...args: string[]) => run(process.execPath, [...programArguments('host/main.ts'), ...args])

/** All running processes: id, parent, group, command line. */
async function processes() {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const all = await Promise.all(
    ids.map(async (id) => {
      const [stat, command] = await Promise.all([
        readFile(`/proc/${id}/stat`, 'utf8').catch(() => ''),
        readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => ''),
      ])
      const [state = '', parent, group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return { pid: Number(id), state, parent: Number(parent), group: Number(group), command }
    }),
  )
  return all.filter(({ state }) => state !== '' && !'ZX'.includes(state))
}

/** Running processes of a process group, or with this directory in the command line. */
async function leftovers(group: number | undefined, directory: string): Promise<string[]> {
  const all = await processes()
  return all
    .filter((each) => each.group === group || each.command.includes(directory))
    .map(({ pid, command }) => `${pid} ${command.replaceAll('\0', ' ')}`)
}

/** Resolves when npm, its children and the servers have ended. */
const allEnded = async ({ child }: Run, directory: string) => {
  let left: string[] = []
  await eventually(
    () => `all processes have ended: ${left.join(', ')}`,
    async () => {
      left = await leftovers(child.pid, directory)
      return left.length === 0
    },
  )
}

/** Waits for the line that reports readiness, and returns the pid in it. */
async function ready(one: Run): Promise<number> {
  await eventually(
    () => `the node is ready: ${one.errors}`,
    () => one.output.includes('\n') || one.child.exitCode !== null,
    START_TIMEOUT_MS,
  )
  return Number(/\(pid (\d+)\)/.exec(one.output)?.[1])
}

const kill = (pid: number) => {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // The process has ended.
  }
}

/** Asserts exit code 1, no stdout, one line on stderr and no remaining processes. Returns the line. */
async function startErrorOf(one: Run, directory: string): Promise<string> {
  const code = await one.ended
  assert.equal(code, 1, one.errors)
  assert.equal(one.output, '')
  assert.match(one.errors, /^[^\n]+\n$/, 'one line on stderr')
  await allEnded(one, directory)
  return one.errors
}

describe('the process of a node', () => {
  let directory = ''
  let remove = async () => {}
  let node: NodeProcess

  before(async () => {
    ;[directory, remove] = await temporaryDirectory()
    node = await NodeProcess.create(directory, 'node1')
  })
  after(async () => {
    await node.end()
    // Processes that a failed test left behind: the groups of the runs, and servers, which have separate groups.
    const groups = new Set(runs.map(({ child }) => child.pid))
    for (const { pid, group, command } of await processes())
      if (groups.has(group) || command.includes(directory)) kill(pid)
    await remove()
  })

  const endings: [string, NodeJS.Signals, (npmPid: number, pid: number) => number][] = [
    ['SIGTERM to npm', 'SIGTERM', (npmPid) => npmPid],
    ['SIGTERM to the node', 'SIGTERM', (_, pid) => pid],
    ['SIGTERM to the process group', 'SIGTERM', (npmPid) => -npmPid],
    ['SIGINT to the node', 'SIGINT', (_, pid) => pid],
    ['SIGINT to the process group, as a terminal sends it', 'SIGINT', (npmPid) => -npmPid],
  ]
  const typical = ['SIGTERM to npm', 'SIGINT to the process group, as a terminal sends it']
  for (const [name, signal, target] of sampled(endings, ([name]) => typical.includes(name)))
    test(`prints one line when ready; ${name} ends the node and its servers`, async () => {
      const one = npm('--config', node.configFile)
      const pid = await ready(one)
      assert.equal(one.output, `node1 ready: ${node.url} (pid ${pid})\n`)
      assert.ok(await isRunning(pid))
      const servers = Object.values(await node.serverPids())
      assert.equal(servers.length, 2)
      for (const server of servers) assert.ok(await isRunning(server))
      process.kill(target(one.child.pid!, pid), signal)
      // npm exits with the code of the node.
      assert.equal(await one.ended, 0, one.errors)
      await allEnded(one, node.directory)
      const warnings = one.errors.split('\n').filter((line) => line !== '' && !line.includes('known security holes'))
      assert.deepEqual(warnings, [], 'no warnings, except about the version of nats-server')
      assert.equal(one.output.split('\n').length, 2, 'no other line on stdout')
    })

  test('a second signal during the shutdown has no effect', async () => {
    const one = npm('--config', node.configFile)
    const pid = await ready(one)
    process.kill(pid, 'SIGTERM')
    process.kill(pid, 'SIGINT')
    process.kill(pid, 'SIGTERM')
    assert.equal(await one.ended, 0, one.errors)
    await allEnded(one, node.directory)
  })

  test('an invalid configuration file is reported in one line', async () => {
    const text = await readFile(node.configFile, 'utf8')
    const cases: [string, string | undefined, RegExp][] = [
      ['broken', 'clustering:\n  enabled: [true\n', /broken\/config\.yaml.*line \d+, column \d+/],
      ['missing', undefined, /missing\/config\.yaml.*cannot be read/],
      ['nameless', text.replace(/^ *nodeName: .*\n/m, ''), /clustering\.nodeName/],
    ]
    const started = await Promise.all(
      cases.map(async ([name, content]) => {
        const below = join(directory, name)
        await mkdir(below)
        const file = join(below, 'config.yaml')
        if (content !== undefined) await writeFile(file, content)
        return start('--config', file)
      }),
    )
    for (const [index, one] of started.entries()) {
      const [name, , pattern] = cases[index]!
      assert.match(await startErrorOf(one, join(directory, name)), pattern, name)
    }
  })

  test('a missing --config is reported in one line', async () => {
    for (const one of [start(), start('--config')])
      assert.match(await startErrorOf(one, join(directory, 'none')), /--config FILE/)
  })

  test('a port in use is reported with its key', async () => {
    const all = [
      'clustering.hubServer.cluster.network.port',
      'clustering.hubServer.leafNodes.network.port',
      'clustering.hubServer.network.port',
      'clustering.leafServer.network.port',
      'operationsApi.network.port',
    ]
    const keys = sampled(all, (key) => /^operationsApi|leafServer/.test(key))
    const taken = createServer().listen(0, '127.0.0.1')
    try {
      await new Promise((resolve) => taken.once('listening', resolve))
      const { port } = taken.address() as { port: number }
      const nodes = await Promise.all(keys.map((_, index) => NodeProcess.create(directory, `taken${index}`)))
      const started = await Promise.all(
        nodes.map(async ({ configFile }, index) => {
          const document = parseDocument(await readFile(configFile, 'utf8'))
          document.setIn(keys[index]!.split('.'), port)
          await writeFile(configFile, String(document))
          return start('--config', configFile)
        }),
      )
      for (const [index, one] of started.entries()) {
        assert.equal(await one.ended, 1, keys[index])
        const line = one.errors.trimEnd().split('\n').at(-1)!
        assert.ok(line.includes(keys[index]!) && line.includes(String(port)), `${keys[index]} in: ${line}`)
        assert.doesNotMatch(line, /^\{/, 'a line for humans, not JSON')
        assert.equal(one.output, '')
        await allEnded(one, nodes[index]!.directory)
      }
    } finally {
      taken.close()
    }
  })

  const rows = (from: number, count: number) =>
    Array.from({ length: count }, (_, index) => ({ id: from + index, name: `dog ${from + index}` }))
  const insert = (from: number, count: number) =>
    node.operation({ operation: 'insert', database: 'dev', table: 'dog', records: rows(from, count) })

  test('after SIGKILL of the node alone, a restart replaces the orphaned servers and keeps the data', async () => {
    await node.start()
    await node.operation({ operation: 'create_table', database: 'dev', table: 'dog', primary_key: 'id' })
    for (let from = 0; from < 500; from += 50) await insert(from, 50)
    const routes = [{ host: '127.0.0.1', port: node.ports.cluster }]
    await node.operation({ operation: 'cluster_set_routes', server: 'hub', routes })
    const digest = await node.digest('dev', 'dog')
    const orphans = await node.serverPids()

    process.kill(node.pid, 'SIGKILL')
    await eventually('the node has ended', () => !node.running)
    for (const orphan of Object.values(orphans))
      assert.ok(await isRunning(orphan), 'servers survive a kill of the node')

    await node.start()
    const servers = await node.serverPids()
    for (const server of ['hub', 'leaf'] as const) {
      assert.ok(!(await isRunning(orphans[server])), `the orphaned ${server} has ended`)
      assert.ok(await isRunning(servers[server]))
    }
    assert.equal(await node.count('dev', 'dog'), 500)
    assert.equal(await node.digest('dev', 'dog'), digest)
    assert.deepEqual(await node.operation({ operation: 'cluster_get_routes' }), { hub: routes, leaf: [] })
    await insert(500, 1)
    assert.equal(await node.count('dev', 'dog'), 501)
  })

  test('a kill of node and servers during writes loses no acknowledged row', async () => {
    let acknowledged = 501
    const writing = (async () => {
      for (let next = acknowledged; ; next++) {
        await insert(next, 1)
        acknowledged = next + 1
      }
    })().catch(() => {})
    await eventually('some rows are written', () => acknowledged > 520)
    await node.kill()
    await writing
    await eventually('the node has ended', () => !node.running)
    await node.start()
    // The last row may have been committed without an answer.
    const count = await node.count('dev', 'dog')
    assert.ok(count === acknowledged || count === acknowledged + 1, `${count} rows, ${acknowledged} acknowledged`)
    const found = (await node.rows('dev', 'dog')).map(({ id }) => id as number).sort((a, b) => a - b)
    assert.deepEqual(
      found,
      Array.from({ length: count }, (_, index) => index),
    )
    await insert(count, 1)
    assert.equal(await node.stop(), 0)
    await eventually('all processes have ended', async () => (await leftovers(undefined, node.directory)).length === 0)
  })

  test('a second node on the same files is rejected, and the first continues', async () => {
    const first = await NodeProcess.create(directory, 'first')
    await first.start()
    try {
      const servers = await first.serverPids()
      const second = start('--config', first.configFile)
      assert.equal(await second.ended, 1, second.output)
      assert.notEqual(second.errors, '')
      assert.deepEqual(await first.serverPids(), servers)
      for (const server of Object.values(servers)) assert.ok(await isRunning(server), 'its servers still run')
      assert.equal((await first.operation({ operation: 'cluster_status' })).is_enabled, true)
    } finally {
      await first.end()
    }
  })
})
