// Edits of the file, in all ways in which editors and machines write it, while the database runs without clustering.

import assert from 'node:assert/strict'
import { readFileSync, renameSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, open, readFile, rename, rm, symlink, unlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { ClusterManager } from '../../lib/cluster-manager.ts'
import { ClusterError } from '../../lib/errors.ts'
import type { EventName, Payload } from '../../lib/events/events.ts'
import { ConfigFile } from '../../lib/manifest/config-file.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import type { Manifest, ManifestChange } from '../../lib/manifest/manifest.ts'
import { eventually } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

const text = `# The farm
http: { port: 9926 }
clustering:
  enabled: false
  nodeName: node1
  hubServer:
    cluster:
      network:
        port: 9932
        routes:
          - { host: a, port: 1 }
          - { host: b, port: 2 }
  leafServer:
    network:
      routes:
        - { host: c, port: 3 }
  nodes:
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }
        - { database: dev, table: cat, publish: true, subscribe: false }
    - name: node3
      subscriptions:
        - { database: dev, table: dog, publish: false, subscribe: true }
logging: last
`
const lineOf = (part: string) => text.split('\n').find((line) => line.includes(part))!
const without = (...parts: string[]) =>
  text
    .split('\n')
    .filter((line) => !parts.some((part) => line.includes(part)))
    .join('\n')
const routeD = `${lineOf('host: b').replace('host: b, port: 2', 'host: d, port: 4')}\n`
const withD = text.replace(lineOf('host: b'), `${lineOf('host: b')}\n${routeD.trimEnd()}`)

const hub = ({ routes }: Manifest) => routes.hub.map(({ host }) => host).join()
const names = ({ nodes }: Manifest) => nodes.map(({ name }) => name).join()

const watched = ['manifest:changed', 'config:rejected', 'config:missing'] as const satisfies readonly EventName[]
type Watched = (typeof watched)[number]
type Reported = { [Name in Watched]: { event: Name } & Payload<Name> }[Watched]

/** A manager with a separate file, and its events about that file in order. */
async function manage(test: TestContext, content: string, place?: (directory: string) => Promise<string>) {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-edits-'))
  test.after(() => rm(directory, { recursive: true, force: true }))
  const path = place ? await place(directory) : join(directory, 'database.yaml')
  if (!place) await writeFile(path, content)
  const cluster = await ClusterManager.open({ configFile: path, host: new MemoryHost() })
  test.after(() => cluster.close())
  const reported: Reported[] = []
  for (const event of watched) cluster.on(event, (payload) => reported.push({ event, ...payload } as Reported))
  const next = async <Name extends Watched>(event: Name): Promise<Payload<Name>> => {
    const first = await eventually(`${event} is emitted`, () => reported.shift())
    assert.equal(first.event, event, JSON.stringify(first))
    return first as never
  }
  return { cluster, path, directory, reported, next }
}

/** The result of an edit: one event for additions and modifications, one for removals and order. */
const kinds = (changes: readonly ManifestChange[]) => changes.map(({ type }) => type).join()

/** Resolves when the file was read after this call and its effects are done. */
async function looked(test: TestContext, cluster: ClusterManager, what: () => Promise<unknown>): Promise<void> {
  const read = test.mock.method(ConfigFile.prototype, 'read')
  await what()
  await eventually('the file is looked at', () => read.mock.callCount() > 0)
  read.mock.restore()
  // Queued behind the read.
  await cluster.setRoutes({ server: 'hub', routes: [] })
}

// Removals take two seconds, so these tests run concurrently.
describe('by hand', { concurrency: true }, () => {
  const edits: [what: string, edited: string, events: string[], hub: string, names: string][] = [
    ['a route is added', withD, ['route:added'], 'a,b,d', 'node2,node3'],
    ['a route is removed', without('host: a'), ['route:removed'], 'b', 'node2,node3'],
    [
      'a route is changed',
      text.replace('host: a, port: 1', 'host: a, port: 9'),
      ['route:added', 'route:removed,order:changed'],
      'a,b',
      'node2,node3',
    ],
    [
      'routes are put in another order',
      text
        .replace('host: a, port: 1', 'host: x, port: 0')
        .replace('host: b, port: 2', 'host: a, port: 1')
        .replace('host: x, port: 0', 'host: b, port: 2'),
      ['order:changed'],
      'b,a',
      'node2,node3',
    ],
    ['every route goes', without('host: a', 'host: b'), ['route:removed,route:removed'], '', 'node2,node3'],
    [
      'a node is added',
      text.replace('    - name: node3', '    - name: node4\n    - name: node3'),
      ['node:added', 'order:changed'],
      'a,b',
      'node2,node4,node3',
    ],
    ['a node is removed', text.replace(/ {4}- name: node2\n.*\n.*\n.*\n/, ''), ['node:removed'], 'a,b', 'node3'],
    [
      'a node is renamed',
      text.replace('name: node2', 'name: nodeB'),
      ['node:added', 'node:removed,order:changed'],
      'a,b',
      'nodeB,node3',
    ],
    [
      'directions are changed',
      text.replace('publish: true, subscribe: false', 'publish: false, subscribe: true'),
      ['node:updated'],
      'a,b',
      'node2,node3',
    ],
    ['a subscription is removed', without('table: cat'), ['node:updated'], 'a,b', 'node2,node3'],
    [
      'all at once',
      withD
        .replace('    - name: node3', '    - name: node5\n    - name: node3')
        .replace(`${lineOf('host: a')}\n`, '')
        .replace('table: cat', 'table: cow'),
      ['route:added,node:updated,node:added', 'route:removed,node:updated,order:changed'],
      'b,d',
      'node2,node5,node3',
    ],
  ]
  for (const [what, edited, events, routes, nodes] of edits)
    it(what, async (test) => {
      assert.notEqual(edited, text)
      const { cluster, path, next, reported } = await manage(test, text)
      await writeFile(path, edited)
      for (const expected of events) {
        const { changes, cause, current } = await next('manifest:changed')
        assert.equal(cause, 'file')
        assert.equal(kinds(changes), expected)
        assert.equal(current, cluster.manifest)
      }
      assert.equal(hub(cluster.manifest), routes)
      assert.equal(names(cluster.manifest), nodes)
      assert.deepEqual(cluster.manifest, new ConfigText(edited).config?.manifest)
      assert.equal(await readFile(path, 'utf8'), edited)
      assert.deepEqual(reported, [])
    })
})

describe('replaced', () => {
  it('by renaming a new file, repeatedly', async (test) => {
    const { cluster, path, next } = await manage(test, text)
    for (let round = 0; round < 5; round++) {
      await writeFile(`${path}.new`, text.replace('host: c', `host: c${round}`))
      await rename(`${path}.new`, path)
      const { changes } = await next('manifest:changed')
      assert.deepEqual(changes, [{ type: 'route:added', server: 'leaf', route: { host: `c${round}`, port: 3 } }])
    }
    assert.ok(cluster.manifest.routes.leaf.some(({ host }) => host === 'c4'))
  })

  it('with a backup: the old file is moved away, then the new one appears', async (test) => {
    const { cluster, path, next, reported } = await manage(test, text)
    for (const [round, edited] of [withD, text.replace('host: c', 'host: e')].entries()) {
      renameSync(path, `${path}~`)
      writeFileSync(path, edited)
      unlinkSync(`${path}~`)
      const { changes } = await next('manifest:changed')
      assert.equal(kinds(changes), 'route:added')
      assert.equal(hub(cluster.manifest), 'a,b,d', `${round}`)
    }
    assert.deepEqual(reported, [])
  })

  it('and restored before it is read: no event', async (test) => {
    const { cluster, path, reported } = await manage(test, text)
    await looked(test, cluster, async () => {
      writeFileSync(path, withD)
      writeFileSync(path, text)
    })
    assert.deepEqual(reported, [])
  })

  it('behind a link that is switched, as Kubernetes does it', { timeout: 60_000 }, async (test) => {
    let version = 0
    const publish = async (directory: string, content: string) => {
      const data = `..version_${++version}`
      await mkdir(join(directory, data))
      await writeFile(join(directory, data, 'database.yaml'), content)
      await symlink(data, join(directory, '..data_tmp'))
      await rename(join(directory, '..data_tmp'), join(directory, '..data'))
      return `..version_${version - 1}`
    }
    const { cluster, directory, next } = await manage(test, text, async (inside) => {
      await publish(inside, text)
      await symlink('..data/database.yaml', join(inside, 'database.yaml'))
      return join(inside, 'database.yaml')
    })
    // The old version is removed, kept, removed.
    for (const [round, isRemoved] of [true, false, true].entries()) {
      const old = await publish(directory, text.replace('host: c', `host: c${round}`))
      if (isRemoved) await rm(join(directory, old), { recursive: true })
      const { changes } = await next('manifest:changed')
      assert.equal(kinds(changes), 'route:added')
      assert.ok(cluster.manifest.routes.leaf.some(({ host }) => host === `c${round}`))
    }
    // A commit writes to the present target.
    await cluster.setRoutes({ server: 'hub', routes: [{ host: 'z', port: 1 }] })
    assert.match(await readFile(join(directory, `..version_${version}`, 'database.yaml'), 'utf8'), /host: z/)
    const { cause } = await next('manifest:changed')
    assert.equal(cause, 'api')
  })
})

describe('slowly', () => {
  it('in pieces: entries that reappear in time are never removed', { timeout: 60_000 }, async (test) => {
    const seed = seedOf()
    test.diagnostic(`SEED=${seed}`)
    const random = randomNumbers(seed)
    const { cluster, path } = await manage(test, text)
    const removed: string[] = []
    for (const event of ['route:removed', 'node:removed'] as const)
      cluster.on(event, (payload) => removed.push(JSON.stringify(payload)))
    for (let round = 0; round < 6; round++) {
      const edited = text.replace('host: c', `host: c${round}`)
      const handle = await open(path, 'w')
      try {
        for (let at = 0; at < edited.length; ) {
          const piece = edited.slice(at, at + 20 + Math.trunc(random() * 300))
          // In the same turn: however late this is, the timer of the removal delay runs after it.
          writeSync(handle.fd, piece)
          at += piece.length
          await delay(random() * 120)
        }
      } finally {
        await handle.close()
      }
      await eventually('the edit is taken in', () =>
        cluster.manifest.routes.leaf.some(({ host }) => host === `c${round}`),
      )
      // A slow piece may make a part of a name look like a name; existing entries stay nevertheless.
      for (const host of ['a', 'b']) assert.ok(hub(cluster.manifest).split(',').includes(host), host)
      for (const name of ['node2', 'node3']) assert.ok(names(cluster.manifest).split(',').includes(name), name)
    }
    // At the end, entries that the last text lacks are removed.
    await eventually('what is gone is taken away', () => cluster.manifest.routes.leaf.length === 1)
    assert.deepEqual(
      removed.filter((each) => /"(a|b|node2|node3)"/.test(each)),
      [],
    )
    assert.deepEqual(cluster.manifest.nodes[0]?.subscriptions.length, 2)
  })
})

describe('half written', () => {
  it("during an operation: neither the other half nor the host's sections are lost", async (test) => {
    const { cluster, path } = await manage(test, text)
    const removed: string[] = []
    for (const event of ['route:removed', 'node:removed'] as const)
      cluster.on(event, (payload) => removed.push(JSON.stringify(payload)))
    // Cut behind a node, and behind the section: both halves are valid.
    for (const [round, end] of ['    - name: node3', 'logging: last'].entries()) {
      const now = await readFile(path, 'utf8')
      const edited = now
        .replace('# The farm', `# The farm ${round}`)
        .replace('  nodes:\n', `  nodes:\n    - name: new${round}\n`)
      const cut = edited.indexOf(end)
      const handle = await open(path, 'w')
      try {
        writeSync(handle.fd, edited.slice(0, cut))
        const answer = cluster.setRoutes({ server: 'hub', routes: [{ host: `api${round}`, port: 1 }] })
        // One piece every few milliseconds, as on a slow disk.
        for (let at = cut; at < edited.length; at += 8) {
          await delay(5)
          writeSync(handle.fd, edited.slice(at, at + 8))
        }
        await answer
      } finally {
        await handle.close()
      }
      const after = await readFile(path, 'utf8')
      assert.ok(after.startsWith(`# The farm ${round}`) && after.endsWith('logging: last\n'), after)
      const { manifest } = new ConfigText(after).config!
      assert.ok(manifest.routes.hub.some(({ host }) => host === `api${round}`))
      for (const name of [`new${round}`, 'node2', 'node3'])
        for (const each of [manifest, cluster.manifest]) assert.ok(each.nodes.some((node) => node.name === name))
    }
    await eventually('the order is that of the file', () => cluster.manifest.nodes[0]?.name === 'new1')
    assert.deepEqual(removed, [])
  })
})

describe('moved away for a moment', () => {
  it('during an operation: neither is lost, and the file is not reported missing', async (test) => {
    const { cluster, path, reported } = await manage(test, text)
    renameSync(path, `${path}~`)
    const answer = cluster.setRoutes({ server: 'hub', routes: [{ host: 'api', port: 1 }] })
    await delay(10)
    writeFileSync(path, withD)
    await answer
    assert.equal(hub(cluster.manifest), 'a,b,d,api')
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config!.manifest, cluster.manifest)
    assert.deepEqual(
      reported.map((each) => each.event === 'manifest:changed' && each.cause),
      ['file', 'api'],
    )
  })
})

describe('untouched', () => {
  const touches: [string, (path: string) => Promise<void>][] = [
    ['touched', (path) => utimes(path, new Date(), new Date())],
    ['written with what it holds', (path) => writeFile(path, text)],
    [
      'replaced by a copy',
      async (path) => {
        await writeFile(`${path}.copy`, text)
        await rename(`${path}.copy`, path)
      },
    ],
    ['given another mode', (path) => chmod(path, 0o600)],
  ]
  for (const [what, touch] of touches)
    it(what, async (test) => {
      const { cluster, path, reported, next } = await manage(test, text)
      const { manifest } = cluster
      await looked(test, cluster, () => touch(path))
      assert.deepEqual(reported, [])
      assert.equal(cluster.manifest, manifest)
      await writeFile(path, withD)
      assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
    })

  it('when only comments, spelling and the host sections changed', async (test) => {
    const { cluster, path, reported } = await manage(test, text)
    const edited = text
      .replace('# The farm', '# The other farm')
      .replace('9926', '9927')
      .replace('{ host: a, port: 1 }', '{ port: "1", host: A }')
      .replace('host: A', 'host: a')
    await looked(test, cluster, () => writeFile(path, edited))
    assert.deepEqual(reported, [])
    await cluster.setRoutes({ server: 'hub', routes: [{ host: 'd', port: 4 }] })
    const now = await readFile(path, 'utf8')
    assert.ok(now.includes('# The other farm') && now.includes('9927') && now.includes('{ port: "1", host: a }'), now)
  })
})

describe('deleted', () => {
  it('is reported, the manifest stays; the same text again is no change, another text is', async (test) => {
    const { cluster, path, next, reported } = await manage(test, text)
    const { manifest } = cluster
    for (let round = 0; round < 2; round++) {
      await unlink(path)
      const { problems } = await next('config:missing')
      assert.match(problems[0]!.message, /missing/)
      assert.equal(cluster.manifest, manifest)
      await looked(test, cluster, () => writeFile(path, text))
      assert.equal(cluster.manifest, manifest)
    }
    await unlink(path)
    await next('config:missing')
    await writeFile(path, withD)
    assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
    assert.deepEqual(reported, [])
  })

  it('is written completely by the next operation', async (test) => {
    const { cluster, path, next } = await manage(test, text)
    await unlink(path)
    await next('config:missing')
    await cluster.setRoutes({ server: 'hub', routes: [{ host: 'd', port: 4 }] })
    const now = await readFile(path, 'utf8')
    const item = '          - host: d\n            port: 4\n'
    assert.equal(now, text.replace('  leafServer:', `${item}  leafServer:`))
  })

  it('with its directory, and restored', async (test) => {
    const { cluster, path, directory, next } = await manage(test, '', async (inside) => {
      await mkdir(join(inside, 'etc'))
      await writeFile(join(inside, 'etc', 'database.yaml'), text)
      return join(inside, 'etc', 'database.yaml')
    })
    await rename(join(directory, 'etc'), join(directory, 'away'))
    await next('config:missing')
    await assert.rejects(
      cluster.setRoutes({ server: 'hub', routes: [{ host: 'd', port: 4 }] }),
      (error) => error instanceof ClusterError && error.code === 'config_unwritable',
    )
    assert.equal(hub(cluster.manifest), 'a,b')
    await rename(join(directory, 'away'), join(directory, 'etc'))
    await writeFile(path, withD)
    assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
    // It is still watched.
    await writeFile(path, withD.replace('host: c', 'host: e'))
    assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
  })
})

it('an invalid edit and a missing file are logged with line and column', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-edits-'))
  test.after(() => rm(directory, { recursive: true, force: true }))
  const path = join(directory, 'database.yaml')
  await writeFile(path, text)
  const logged: [problems: string[], message: string][] = []
  const nothing = () => {}
  const warn = ({ problems }: { problems?: string[] }, message: string) => logged.push([problems ?? [], message])
  const logger = { debug: nothing, info: nothing, warn, error: nothing }
  const cluster = await ClusterManager.open({ configFile: path, host: new MemoryHost(), logger })
  test.after(() => cluster.close())
  await writeFile(path, text.replace('host: a, port: 1', 'host: a, port: one'))
  const [problems, message] = await eventually('it is logged', () => logged.shift())
  assert.match(
    problems.join(),
    /^line \d+, column \d+: clustering\.hubServer\.cluster\.network\.routes\[0\]\.port must be/,
  )
  assert.match(message, /configuration file rejected/)
  await rm(path)
  assert.match((await eventually('that it is gone is logged', () => logged.shift()))[1], /configuration file missing/)
})

describe('settings that require a restart', () => {
  const edits: [string, string, number, number, string][] = [
    ['nodeName: node1', 'nodeName: nodeX', 5, 13, 'clustering.nodeName'],
    ['port: 9932', 'port: 9933', 9, 15, 'clustering.hubServer.cluster.network.port'],
    ['enabled: false', 'enabled: true', 4, 12, 'clustering.enabled'],
  ]
  for (const [before, after, line, column, place] of edits)
    it(`${place} is reported with its position, and the whole edit waits`, async (test) => {
      const { cluster, path, next, reported } = await manage(test, text)
      const { manifest } = cluster
      await writeFile(path, withD.replace(before, after))
      const { problems } = await next('config:rejected')
      assert.deepEqual(
        problems.map(({ message: _, ...where }) => where),
        [{ line, column, path: place }],
      )
      assert.match(problems[0]!.message, /restart/)
      assert.equal(cluster.manifest, manifest)
      assert.equal(await readFile(path, 'utf8'), withD.replace(before, after))
      await writeFile(path, withD)
      assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
      assert.deepEqual(reported, [])
    })
})

describe('invalid files', () => {
  const faulty = `clustering:
  enabled: perhaps
  nodeName: 'a b'
  logLevel: loud
  hubServer:
    cluster:
      network:
        port: 70000
        routes:
          - { host: 'two words', port: 1 }
          - { host: a }
          - 5
  leafServer: none
  nodes:
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: maybe, subscribe: true }
        - { database: dev, table: dog, publish: true, subscribe: true }
        - { table: cat, publish: true, subscribe: true }
    - name: node2
`
  const places = [
    '2:12 clustering.enabled',
    '3:13 clustering.nodeName',
    '4:13 clustering.logLevel',
    '8:15 clustering.hubServer.cluster.network.port',
    '10:21 clustering.hubServer.cluster.network.routes[0].host',
    '11:13 clustering.hubServer.cluster.network.routes[1].port',
    '12:13 clustering.hubServer.cluster.network.routes[2]',
    '13:15 clustering.leafServer',
    '17:49 clustering.nodes[0].subscriptions[0].publish',
    '18:11 clustering.nodes[0].subscriptions[1]',
    '19:11 clustering.nodes[0].subscriptions[2].database',
    '20:13 clustering.nodes[1].name',
  ]
  const rejected = (error: unknown) => error instanceof ClusterError && error.code === 'config_rejected'
  const routes = [{ host: 'z', port: 1 }]

  it('all faults are reported together with line, column and path', async (test) => {
    const { cluster, path, next, reported } = await manage(test, text)
    const { manifest } = cluster
    await writeFile(path, faulty)
    const { problems } = await next('config:rejected')
    assert.deepEqual(
      problems.map((problem) => `${problem.line}:${problem.column} ${problem.path}`),
      places,
    )
    for (const { message } of problems) assert.ok(message.length > 10, message)
    assert.equal(cluster.manifest, manifest)
    // Reads succeed, writes are rejected, and the file stays unchanged.
    assert.equal((await cluster.getRoutes()).hub.length, 2)
    await assert.rejects(cluster.setRoutes({ server: 'hub', routes }), rejected)
    await assert.rejects(cluster.deleteRoutes({ routes: [{ host: 'a', port: 1 }] }), rejected)
    assert.equal(await readFile(path, 'utf8'), faulty)
    // A partial fix is reported again; a complete fix takes effect.
    await writeFile(path, text.replace('port: 9932', 'port: zero'))
    const left = (await next('config:rejected')).problems
    assert.deepEqual(
      left.map(({ path: place }) => place),
      ['clustering.hubServer.cluster.network.port'],
    )
    await writeFile(path, withD)
    assert.equal(kinds((await next('manifest:changed')).changes), 'route:added')
    await cluster.setRoutes({ server: 'hub', routes })
    assert.equal(hub(cluster.manifest), 'a,b,d,z')
    assert.equal((await next('manifest:changed')).cause, 'api')
    assert.deepEqual(reported, [])
  })

  const broken: [string, string][] = [
    ['nothing at all', ''],
    ['a blank and comments', ' \n# gone\n'],
    ['another section only', 'http: 1\n'],
    ['an empty section', 'clustering:\n'],
    ['a list', '- clustering\n'],
    ['an open bracket', `${text}more: [`],
    ['a tab for a blank', text.replace('  enabled', '\tenabled')],
    ['a key twice', text.replace('  nodeName', '  enabled: false\n  nodeName')],
    ['an alias without its anchor', text.replace('9932', '*port')],
    ['bytes that are no text', '\u0000\uFFFD\u0001'],
    ['a conflict of a merge', `<<<<<<< ours\n${text}=======\n${text}>>>>>>> theirs\n`],
  ]
  it('any fault: reported with line and column, never overwritten, and gone once it is fixed', async (test) => {
    const { cluster, path, next, reported } = await manage(test, text)
    const { manifest } = cluster
    for (const [what, bad] of broken) {
      await writeFile(path, bad)
      const { problems } = await next('config:rejected')
      assert.ok(problems.length > 0, what)
      for (const { line, column, message } of problems) {
        assert.ok(line! >= 1 && column! >= 1 && line! <= bad.split('\n').length, `${what}: ${line}:${column}`)
        assert.ok(message.length > 10, `${what}: ${message}`)
      }
      await assert.rejects(cluster.setRoutes({ server: 'hub', routes }), rejected)
      assert.equal(cluster.manifest, manifest, what)
      assert.equal(await readFile(path, 'utf8'), bad, what)
      await looked(test, cluster, () => writeFile(path, text)).catch((error) => {
        // The fix may not have been read yet: then the invalid file still rejects.
        assert.ok(rejected(error))
      })
      await eventually(`${what} is fixed`, () => cluster.setRoutes({ server: 'hub', routes: [] }).catch(() => false))
      assert.deepEqual(reported, [], what)
    }
  })

  it('a directory in its place, and restored', async (test) => {
    const { cluster, path, next } = await manage(test, text)
    await unlink(path)
    await mkdir(path)
    const first = await next('config:rejected').catch(async () => next('config:rejected'))
    assert.match(first.problems[0]!.message, /cannot be read/)
    await assert.rejects(cluster.setRoutes({ server: 'hub', routes }), rejected)
    await rm(path, { recursive: true })
    await writeFile(path, withD)
    await eventually('the file counts again', () => hub(cluster.manifest) === 'a,b,d')
  })
})

describe('an operation and an edit at the same time', () => {
  it('neither is lost', { timeout: 120_000 }, async (test) => {
    const seed = seedOf()
    test.diagnostic(`SEED=${seed}`)
    const random = randomNumbers(seed)
    const { cluster, path, reported } = await manage(test, text)
    for (let round = 0; round < 30; round++) {
      const [byHand, byApi] = [`hand${round}`, `api${round}`]
      /** Read, modified and written in one step, in place or as a new file. */
      const edit = () => {
        const now = readFileSync(path, 'utf8')
        const line = `        - { host: ${byHand}, port: 1 }\n`
        const edited = now.replace('      routes:\n        - { host: c', `      routes:\n${line}        - { host: c`)
        assert.notEqual(edited, now)
        if (round % 2 === 0) return writeFileSync(path, edited)
        writeFileSync(`${path}.hand`, edited)
        renameSync(`${path}.hand`, path)
      }
      const [before, after] = [random() * 8, random() * 8]
      const commits = async () => {
        await delay(before)
        await cluster.setRoutes({ server: 'hub', routes: [{ host: byApi, port: 1 }] })
      }
      const edits = async () => {
        await delay(after)
        edit()
      }
      await Promise.all([commits(), edits()])
      const holds = ({ routes }: Manifest) =>
        routes.leaf.some(({ host }) => host === byHand) && routes.hub.some(({ host }) => host === byApi)
      await eventually(`both of round ${round} are there`, () => holds(cluster.manifest))
      assert.ok(holds(new ConfigText(await readFile(path, 'utf8')).config!.manifest), `round ${round}`)
      // The next line replaces this one.
      const tidy = (await readFile(path, 'utf8')).replace(/ {8}- \{ host: hand.*\n/, '')
      assert.ok(tidy)
      await writeFile(path, tidy)
    }
    const rejectedOnes = reported.filter(({ event }) => event !== 'manifest:changed')
    assert.deepEqual(rejectedOnes, [])
    await eventually('what was tidied up is gone', () => cluster.manifest.routes.leaf.length === 1)
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config!.manifest, cluster.manifest)
    assert.equal(cluster.manifest.routes.hub.length, 32)
  })

  it('of several operations and an edit, none is lost', async (test) => {
    const { cluster, path } = await manage(test, text)
    const operations = Array.from({ length: 10 }, (_, index) =>
      cluster.setRoutes({ server: 'hub', routes: [{ host: `api${index}`, port: 1 }] }),
    )
    await operations[3]
    writeFileSync(path, readFileSync(path, 'utf8').replace('  nodes:\n', '  nodes:\n    - name: hand\n'))
    await Promise.all(operations)
    await eventually('the edit is taken in', () => cluster.manifest.nodes.some(({ name }) => name === 'hand'))
    assert.equal(cluster.manifest.routes.hub.length, 12)
    await eventually('the order is that of the file', () => names(cluster.manifest) === 'hand,node2,node3')
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config!.manifest, cluster.manifest)
  })
})
