// Faults of a leaf's machine: a full disk, corrupt files, a taken port, store errors, servers of an earlier run; and the end of a
// process whose servers hang.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, truncate, unlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { parse, stringify } from 'yaml'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { NatsServer } from '../../lib/mesh/nats/server.ts'
import { isAtLeast } from '../../lib/mesh/nats/versions.ts'
import {
  eventually,
  isRunning,
  killed,
  type NodeFiles,
  quiet,
  type ServerKind,
  serverPid,
  stopped,
  streamInfo,
  subscribe,
  TestCluster,
  type TestNode,
  temporaryDirectory,
} from '../support/cluster.ts'
import { sampled } from '../support/long.ts'
import { insert } from '../support/memory-host.ts'
import { NodeProcess } from '../support/node-process.ts'

const run = promisify(execFile)
const tables: [string, string][] = [['dev', 'dog']]
const kinds: ServerKind[] = ['hub', 'leaf']
const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

/** Commits one row per transaction; resolves with the outcome and the duration of each `publish`. */
const writeAll = (node: TestNode, ids: readonly string[], padding = 0) =>
  Promise.all(
    ids.map(async (id) => {
      const started = Date.now()
      const text = 'x'.repeat(padding)
      const code = await node.host.write(id, insert('dog', { id, text })).then(
        () => 'stored',
        (error) => error.code as string,
      )
      return { code, took: Date.now() - started }
    }),
  )

/** Each transaction in a message of its own: limits count messages. */
async function writeSingly(node: TestNode, ids: readonly string[]): Promise<void> {
  for (const id of ids) await writeAll(node, [id])
}

const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)

/** Edits `leafServer.streams` in a node's file. */
async function editStreams({ configFile }: NodeFiles, streams: object): Promise<void> {
  const config = parse(await readFile(configFile, 'utf8'))
  config.clustering.leafServer.streams = streams
  // Atomic: an empty file in between would be rejected with an event.
  await writeFile(`${configFile}.new`, stringify(config))
  await rename(`${configFile}.new`, configFile)
}

const limitsOf = async (cluster: TestCluster, node: TestNode, table = 'dog') => {
  const info = await streamInfo(await cluster.client(node), 'dev', table)
  return info && { ...info.state, ...info.config }
}

describe('stream limits', () => {
  test('take effect while running, and expired unread messages are a gap', async (t) => {
    const cluster = TestCluster.for(t)
    const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
    await subscribe(node1, node2, { dog: 'publish' })
    await writeSingly(node1, ['a0'])
    await quiet([node1, node2])
    await node2.cluster.close()
    await writeSingly(node1, numbered('b', 9))
    const pids = await Promise.all(kinds.map((kind) => node1.pid(kind)))
    await editStreams(node1, { maxMsgs: 4, maxAge: 3600 })
    await eventually('the limits hold', async () => (await limitsOf(cluster, node1))?.messages === 4)
    assert.equal((await limitsOf(cluster, node1))?.max_age, 3600 * 1e9)
    await node2.reopen()
    await quiet([node1, node2])
    assert.deepEqual(received(node2, node1), ['a0', ...numbered('b', 9).slice(-4)])
    const gaps = node2.seen('replication:gap').map(({ from, to }) => ({ from, to }))
    assert.deepEqual(gaps, [{ from: 2, to: 6 }])
    await editStreams(node1, {})
    await eventually('the limit is removed', async () => (await limitsOf(cluster, node1))?.max_msgs === -1)
    await writeSingly(node1, numbered('c', 10))
    assert.equal((await limitsOf(cluster, node1))?.messages, 14)
    assert.deepEqual(await Promise.all(kinds.map((kind) => node1.pid(kind))), pids, 'no server was restarted')
    assert.deepEqual(node1.seen('config:rejected'), [])
  })

  test('edited while closed apply to streams that are not written', async (t) => {
    const cluster = TestCluster.for(t)
    const node = await cluster.start('node1', { tables })
    await writeSingly(node, numbered('a', 9))
    await node.cluster.close()
    await editStreams(node, { maxMsgs: 2 })
    await node.reopen()
    await eventually('the limits hold', async () => (await limitsOf(cluster, node))?.messages === 2)
  })

  test('may exceed the size of the disk together', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    await editStreams(files, { maxBytes: 1e12 })
    const names = numbered('table', 50)
    const node = await cluster.open(files, { tables: names.map((name) => ['dev', name]) })
    await Promise.all(names.map((name) => node.host.write(name, insert(name, { id: name }))))
    assert.equal((await limitsOf(cluster, node, 'table49'))?.max_bytes, 1e12)
  })
})

/** A small disk; undefined, with a skip reason, where it cannot be mounted. */
async function smallDisk(t: TestContext, megabytes: number): Promise<string | undefined> {
  const [directory, remove] = await temporaryDirectory()
  t.after(async () => {
    await run('umount', [directory]).catch(() => {})
    await remove()
  })
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', directory])
  } catch (error) {
    t.skip(`no disk of its own without being root: ${(error as Error).message}`)
    return undefined
  }
  return directory
}

/** Fills the disk synchronously, before a health check notices. */
function fill(file: string): void {
  const descriptor = openSync(file, 'w')
  for (let size = 1024 * 1024; size >= 1; ) {
    try {
      writeSync(descriptor, Buffer.alloc(size))
    } catch {
      size = Math.floor(size / 2)
    }
  }
  closeSync(descriptor)
}

describe('a full disk', () => {
  test('is reported, delays publish no longer than the time-out, and loses nothing', async (t) => {
    const cluster = TestCluster.for(t)
    const disk = await smallDisk(t, 128)
    if (!disk) return
    const files = await cluster.prepare('node1')
    await editStreams(files, { path: disk })
    const node1 = await cluster.open(files, { tables, options: { publishTimeout: 1_000 } })
    const node2 = await cluster.start('node2', { tables, routes: [files.ports.cluster] })
    await subscribe(node1, node2, { dog: 'publish' })
    const before = numbered('before', 500)
    await writeAll(node1, before, 1_000)
    const leaf = await node1.pid('leaf')

    fill(join(disk, 'filler'))
    // Larger than the rest of the last page.
    const while1 = numbered('full', 500)
    for (const { code, took } of await writeAll(node1, while1, 1_000)) {
      assert.ok(code === 'stored' || code === 'publish_timeout', code)
      assert.ok(took < 3_000, `it took ${took} ms`)
    }
    await eventually(
      'it is reported',
      () =>
        node1
          .seen('mesh:state')
          .some(({ state, reason }) => state === 'disconnected' && /disk .* is full/.test(reason ?? '')),
      30_000,
    )
    await node1.replaced('leaf', leaf, 30_000)
    // Peers continue to read the stored messages.
    await eventually('what it has is read', () => received(node2, node1).length >= before.length)
    const while2 = numbered('still', 10)
    for (const { code, took } of await writeAll(node1, while2)) {
      assert.equal(code, 'publish_timeout')
      assert.ok(took < 3_000, `it took ${took} ms`)
    }

    await unlink(join(disk, 'filler'))
    await eventually('it is back', () => node1.seen('mesh:state').at(-1)?.state === 'connected')
    await quiet([node1, node2], 30_000)
    assert.deepEqual(received(node2, node1), [...before, ...while1, ...while2])
    assert.deepEqual(node2.seen('replication:gap'), [])
  })

  test('at open is reported, and the node writes when there is room', async (t) => {
    const cluster = TestCluster.for(t)
    const disk = await smallDisk(t, 80)
    if (!disk) return
    const files = await cluster.prepare('node1')
    await editStreams(files, { path: disk })
    fill(join(disk, 'filler'))
    const node = await cluster.open(files, { tables, options: { publishTimeout: 500 } })
    await eventually('it is reported', () => /is full/.test(node.seen('mesh:state').at(-1)?.reason ?? ''))
    assert.deepEqual(
      (await writeAll(node, ['early'])).map(({ code }) => code),
      ['publish_timeout'],
    )
    await unlink(join(disk, 'filler'))
    await eventually('the outbox is empty', () => node.host.outbox.length === 0)
    assert.deepEqual((await limitsOf(cluster, node))?.messages, 1)
    await eventually('a disk with less than 128 MB of room is low', () =>
      node.cluster.health().degraded.some(({ code }) => code === 'disk_low'),
    )
    assert.ok(node.cluster.health().ready)
  })
})

describe('a store with files corrupted while closed', () => {
  const COUNT = 2_000
  const READ = 500
  type Damage = (directory: string) => Promise<void>
  const blocks = async (directory: string) => {
    const names = (await readdir(join(directory, 'msgs'))).filter((name) => name.endsWith('.blk'))
    return names.map((name) => join(directory, 'msgs', name))
  }
  const block = async (directory: string) => (await blocks(directory))[0]!
  const flip =
    (share: number, bytes: number): Damage =>
    async (directory) => {
      const path = await block(directory)
      const file = await open(path, 'r+')
      const position = Math.floor((await file.stat()).size * share)
      const { buffer } = await file.read(Buffer.alloc(bytes), 0, bytes, position)
      for (const [index, byte] of buffer.entries()) buffer[index] = byte ^ 0xff
      await file.write(buffer, 0, bytes, position)
      await file.close()
    }
  const cut =
    (share: number): Damage =>
    async (directory) => {
      const path = await block(directory)
      await truncate(path, Math.floor((await stat(path)).size * share))
    }
  const lastByte = flip(0.9999, 1)
  const damages: [name: string, damage: Damage][] = [
    ['bytes of a message that was read', flip(0.1, 40)],
    ['bytes of a message that was not read', flip(0.6, 40)],
    ['a byte of the last message', lastByte],
    ['a thousand bytes', flip(0.5, 1_000)],
    ['the messages cut short', cut(0.6)],
    ['the messages cut short before what was read', cut(0.1)],
    ['no messages at all', cut(0)],
    ['the messages deleted', async (directory) => unlink(await block(directory))],
    [
      'the index of the messages deleted',
      async (directory) => {
        for (const name of await readdir(join(directory, 'msgs')))
          if (!name.endsWith('.blk')) await unlink(join(directory, 'msgs', name))
      },
    ],
    ['the description of the stream cut short', async (directory) => truncate(join(directory, 'meta.inf'), 40)],
    ['the description of the stream deleted', async (directory) => unlink(join(directory, 'meta.inf'))],
    ['nothing left of the stream', async (directory) => rm(directory, { recursive: true })],
  ]
  const typical = [
    'bytes of a message that was not read',
    'a byte of the last message',
    'the messages cut short',
    'the description of the stream deleted',
    'nothing left of the stream',
  ]
  for (const [name, damage] of sampled(damages, ([name]) => typical.includes(name)))
    test(name, (t) => survives(t, damage))

  async function survives(t: TestContext, damage: Damage): Promise<void> {
    const cluster = TestCluster.for(t)
    const [node1, node2] = (await cluster.startAll(['node1', 'node2'], { tables })) as [TestNode, TestNode]
    await subscribe(node1, node2, { dog: 'publish' })
    const ids = numbered('a', COUNT)
    await writeAll(node1, ids.slice(0, READ))
    await quiet([node1, node2])
    await node2.cluster.close()
    await writeAll(node1, ids.slice(READ))
    await node1.cluster.close()
    const store = join(node1.directory, 'clustering', 'leaf', 'jetstream', 'HDB', 'streams')
    const [stream] = await readdir(store)
    await damage(join(store, stream!))

    await node1.reopen()
    await node2.reopen()
    const later = numbered('later', 100)
    await writeAll(node1, later)
    await eventually('what is written later arrives', () => received(node2, node1).at(-1) === later.at(-1), 30_000)
    await quiet([node1, node2])

    const gaps = node2.seen('replication:gap')
    const lost = new Set(gaps.flatMap(({ from, to }) => ids.slice(from! - 1, to!)))
    t.diagnostic(
      `${received(node2, node1).length} received, gaps ${JSON.stringify(gaps.map(({ from, to, reason }) => [from, to, reason]))}`,
    )
    assert.deepEqual(received(node2, node1), [...ids.filter((id) => !lost.has(id)), ...later])
    for (const { to } of gaps) assert.ok(to! <= COUNT, `${to}`)
  }

  // 2.9.10 appends after such a byte, and the appended messages are never readable. From 2.10 on a server without an index truncates
  // the message, so that one restart is enough.
  test('a byte of the last message, found again before the server has started', async (t) => {
    const { replace } = NatsServer.prototype
    const reasons: string[] = []
    t.mock.method(NatsServer.prototype, 'replace', function (this: NatsServer, reason: string) {
      if (/cannot read/.test(reason) && reasons.push(reason) === 2) return
      replace.call(this, reason)
    })
    await survives(t, lastByte)
    const { version } = await findBinary()
    assert.equal(reasons.length, isAtLeast(version, [2, 10, 0]) ? 1 : 3)
  })
})

/** Kills the server and takes its port before the restart; resolves with a function that releases the port. */
async function takePort(t: TestContext, node: TestNode, kind: ServerKind, port: number): Promise<() => Promise<void>> {
  const thief = await listenInsteadOf(node, kind, port)
  const sockets = new Set<{ destroy(): void }>()
  thief.on('connection', (socket) => sockets.add(socket))
  const letGo = () =>
    new Promise<void>((resolve) => {
      thief.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  t.after(letGo)
  return letGo
}

async function listenInsteadOf(node: TestNode, kind: ServerKind, port: number): Promise<Server> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const before = await node.kill(kind)
    for (;;) {
      const server = createServer((socket) => socket.on('error', () => {}).resume())
      const taken = await new Promise<boolean>((resolve) => {
        server.once('error', () => resolve(false))
        server.listen(port, '127.0.0.1', () => resolve(true))
      })
      if (taken) return server
      const running = await serverPid(node, kind)
      if (running !== undefined && running !== before) break
      await turn()
    }
  }
  throw new Error(`port ${port} could not be taken`)
}

test('a port taken by another process while a killed leaf restarts', async (t) => {
  const cluster = TestCluster.for(t)
  const logged: string[] = []
  const note = (details: unknown, text?: string) => void logged.push(`${JSON.stringify(details)} ${text}`)
  const logger = { debug() {}, info() {}, warn: note, error: note }
  const node1 = await cluster.start('node1', { tables, options: { publishTimeout: 500, logger } })
  const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
  await subscribe(node1, node2, { dog: 'both' })
  const letGo = await takePort(t, node1, 'leaf', node1.ports.leaf)
  const reason = new RegExp(`Port ${node1.ports.leaf} .*leafServer.network.port.* is in use`)
  await eventually('it is reported', () => node1.seen('mesh:state').some((each) => reason.test(each.reason ?? '')))
  assert.ok(
    logged.some((line) => reason.test(line)),
    logged.join('\n'),
  )
  const ids = numbered('a', 100)
  for (const { code, took } of await writeAll(node1, ids)) {
    assert.equal(code, 'publish_timeout')
    assert.ok(took < 2_000, `it took ${took} ms`)
  }
  await letGo()
  await eventually('it is back', () => node1.seen('mesh:state').at(-1)?.state === 'connected')
  await writeAll(node2, ['there'])
  await quiet([node1, node2])
  assert.deepEqual(received(node2, node1), ids)
  assert.deepEqual(received(node1, node2), ['there'])
})

test('a hub that cannot restart is reported; commits are stored meanwhile and arrive later', async (t) => {
  const cluster = TestCluster.for(t)
  const node1 = await cluster.start('node1', { tables })
  const node2 = await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
  await subscribe(node1, node2, { dog: 'both' })
  const letGo = await takePort(t, node1, 'hub', node1.ports.hub)
  const last = () => node1.seen('mesh:state').at(-1)
  await eventually('it is reported', () => /hub server.* is in use/.test(last()?.reason ?? ''))
  assert.deepEqual([last()?.state, node1.cluster.meshReason], ['isolated', last()?.reason])
  assert.deepEqual(
    node1.cluster.health().degraded.flatMap(({ code, message }) => (code === 'hub_failed' ? [message] : [])),
    [last()?.reason],
  )
  const outcomes = await writeAll(node1, ['meanwhile'])
  assert.deepEqual(
    outcomes.map(({ code }) => code),
    ['stored'],
  )
  await letGo()
  await eventually('its return is reported', () => last()?.reason === undefined)
  await quiet([node1, node2])
  assert.deepEqual(received(node2, node1), ['meanwhile'])
})

test('a leaf that logs a store error is replaced', async (t) => {
  const cluster = TestCluster.for(t)
  const files = await cluster.prepare('node1')
  // A nats-server whose log contains a line of the test.
  const [natsServer, line] = [join(files.directory, 'nats-server'), join(files.directory, 'line')]
  const script = `#!/bin/sh
[ "$1" = --version ] && exec nats-server --version
case "$2" in *leaf.json)
  ( while kill -0 $$ 2>/dev/null; do if [ -f '${line}' ]; then cat '${line}' >&2; rm '${line}'; fi; sleep 0.1; done ) &
esac
exec nats-server "$@"
`
  await writeFile(natsServer, script)
  await chmod(natsServer, 0o700)
  const node1 = await cluster.open(files, { tables, options: { natsServer } })
  const node2 = await cluster.start('node2', { tables, routes: [files.ports.cluster] })
  await subscribe(node1, node2, { dog: 'publish' })
  await writeAll(node1, ['before'])
  const leaf = await node1.pid('leaf')
  const text = "JetStream failed to store a msg on stream 'HDB > 1f0e': input/output error"
  await writeFile(`${line}.new`, `[1] 2024/01/01 00:00:00.000000 [ERR] ${text}\n`)
  await rename(`${line}.new`, line)
  await node1.replaced('leaf', leaf)
  await writeAll(node1, ['after'])
  await quiet([node1, node2])
  assert.deepEqual(received(node2, node1), ['before', 'after'])
  const reasons = node1.seen('mesh:state').map(({ reason }) => reason)
  assert.ok(
    reasons.some((reason) => reason?.includes(text)),
    String(reasons),
  )
})

describe('orphaned servers of a killed host', () => {
  const left = async (t: TestContext) => {
    const cluster = TestCluster.for(t)
    const { child, ...files } = await cluster.spawn('node1', { tables })
    const orphans = await Promise.all(kinds.map(async (kind) => (await serverPid(files, kind))!))
    await killed(child)
    // Also after a failure: without a pid file only this test can find them.
    t.after(async () => {
      for (const pid of orphans) if (await isRunning(pid)) process.kill(pid, 'SIGKILL')
    })
    return { cluster, files, orphans }
  }

  test('are replaced without pid files and while they hang', async (t) => {
    const { cluster, files, orphans } = await left(t)
    for (const kind of kinds) await unlink(join(files.directory, 'clustering', `${kind}.pid`))
    for (const pid of orphans) {
      process.kill(pid, 'SIGSTOP')
      await stopped(pid)
    }
    const node = await cluster.open(files, { tables })
    for (const pid of orphans) assert.equal(await isRunning(pid), false)
    await writeAll(node, ['one'])
  })

  test('are replaced when the ports have changed: two servers would corrupt the store', async (t) => {
    const { cluster, files, orphans } = await left(t)
    const other = await cluster.prepare('node1')
    const config = parse(await readFile(other.configFile, 'utf8'))
    await writeFile(files.configFile, stringify(config))
    const node = await cluster.open({ ...files, ports: other.ports }, { tables })
    for (const pid of orphans) assert.equal(await isRunning(pid), false)
    await writeAll(node, ['one'])
  })

  test('are not identified by process id alone', async (t) => {
    const cluster = TestCluster.for(t)
    const files = await cluster.prepare('node1')
    const innocent = spawn('sleep', ['60'], { stdio: 'ignore' })
    t.after(() => killed(innocent))
    await mkdir(join(files.directory, 'clustering'))
    await writeFile(join(files.directory, 'clustering', 'leaf.pid'), String(innocent.pid))
    await cluster.open(files, { tables })
    assert.equal(await isRunning(innocent.pid!), true)
  })
})

test('SIGTERM ends a node within seconds while both servers hang', async (t) => {
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  const node = await NodeProcess.create(directory, 'node1')
  t.after(() => node.end())
  await node.start()
  const pids = Object.values(await node.serverPids())
  for (const pid of pids) {
    process.kill(pid, 'SIGSTOP')
    await stopped(pid)
  }
  const started = Date.now()
  assert.equal(await node.stop(), 0)
  const took = Date.now() - started
  t.diagnostic(`it took ${took} ms`)
  assert.ok(took < 9_000, `it took ${took} ms`)
  for (const pid of pids) assert.equal(await isRunning(pid), false)
})
