// The store: one queue into file and memory for the API, edits of the file and remote nodes.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { ClusterError, clusterError } from '../../lib/errors.ts'
import { defaultConfigText } from '../../lib/manifest/config.ts'
import { ConfigFile } from '../../lib/manifest/config-file.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { addRoutes, type Manifest, removeRoutes, setSubscriptions } from '../../lib/manifest/manifest.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'
import { openStore, temporaryDirectory } from './store-fixture.ts'

const text = `# the database
http: { port: 9926 }
clustering:
  enabled: true
  nodeName: node1
  hubServer:
    cluster:
      network:
        routes:
          # the first
          - host: a
            port: 1
  nodes:
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }
`
const dog = { database: 'dev', table: 'dog', publish: true, subscribe: true }
const extraRoute = '          - host: b\n            port: 2\n'
const withRoute = text.replace('  nodes:\n', `${extraRoute}  nodes:\n`)

const add =
  (host: string, port = 1) =>
  (manifest: Manifest) =>
    addRoutes(manifest, 'hub', [{ host, port }]).manifest
const drop =
  (host: string, port = 1) =>
  (manifest: Manifest) =>
    removeRoutes(manifest, [{ host, port }]).manifest
const hosts = (manifest: Manifest | undefined) => manifest?.routes.hub.map(({ host }) => host)
const rejects =
  (code: string, pattern = /./) =>
  (error: unknown) =>
    error instanceof ClusterError && error.code === code && pattern.test(error.message)

describe('opening', () => {
  it('creates a missing file with the default section', async (test) => {
    const { store, path } = await openStore(test)
    assert.equal(await readFile(path, 'utf8'), defaultConfigText)
    assert.equal(store.manifest.enabled, false)
    assert.equal(store.settings.ports.cluster, 9932)
    assert.equal(store.file, path)
  })

  it('rejects an invalid file with all faults, and does not change it', async (test) => {
    const bad = 'clustering:\n  enabled: 5\n  hubServer: { network: { port: 0 } }\n'
    const path = join(await temporaryDirectory(test), 'database.yaml')
    await writeFile(path, bad)
    await assert.rejects(
      ManifestStore.open(path),
      rejects(
        'config_rejected',
        /line 2, column 12: clustering\.enabled must be true or false, not 5; line 3, column 33: /,
      ),
    )
    assert.equal(await readFile(path, 'utf8'), bad)
  })

  it('rejects a file without the section clustering', async (test) => {
    const path = join(await temporaryDirectory(test), 'database.yaml')
    await writeFile(path, 'http: 1\n')
    await assert.rejects(ManifestStore.open(path), rejects('config_rejected', /'clustering' is missing/))
  })

  it('requires a name when enabled', async (test) => {
    const path = join(await temporaryDirectory(test), 'database.yaml')
    await writeFile(path, 'clustering:\n  enabled: true\n  nodeName: null\n')
    await assert.rejects(ManifestStore.open(path), rejects('node_name_missing'))
  })

  it('rejects when the file cannot be created', async (test) => {
    const path = join(await temporaryDirectory(test), 'none', 'database.yaml')
    await assert.rejects(ManifestStore.open(path), rejects('config_unwritable'))
  })
})

describe('commits', () => {
  it('write the file, replace the manifest, then call listeners', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const previous = store.manifest
    const commit = await store.commit(add('b', 2), 'api')
    assert.equal(commit.previous, previous)
    assert.equal(commit.current, store.manifest)
    assert.deepEqual(commit.changes, [{ type: 'route:added', server: 'hub', route: { host: 'b', port: 2 } }])
    assert.equal(await readFile(path, 'utf8'), withRoute)
    assert.deepEqual(await listener.next(), { commit })
  })

  it('do nothing when nothing changes', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const before = await stat(path)
    const commit = await store.commit(add('A', 1), 'api')
    assert.deepEqual(commit.changes, [])
    assert.equal(commit.current, commit.previous)
    assert.equal((await stat(path)).ino, before.ino)
    assert.equal(listener.pending, 0)
  })

  it('are queued, and each receives the result of the one before', async (test) => {
    const { store, path } = await openStore(test, text)
    await Promise.all(Array.from({ length: 20 }, (_, index) => store.commit(add(`h${index}`), 'api')))
    assert.deepEqual(hosts(store.manifest), ['a', ...Array.from({ length: 20 }, (_, index) => `h${index}`)])
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config?.manifest, store.manifest)
  })

  it('change nothing when the change throws, and later ones work', async (test) => {
    const { store, path } = await openStore(test, text)
    const rejected = store.commit(() => {
      throw clusterError('node_exists', 'x')
    }, 'api')
    await assert.rejects(rejected, rejects('node_exists'))
    assert.equal(await readFile(path, 'utf8'), text)
    await store.commit(add('b', 2), 'peer')
    assert.deepEqual(hosts(store.manifest), ['a', 'b'])
  })

  it('change nothing when the disk fails', async (test) => {
    const { store, path } = await openStore(test, text)
    test.mock.method(
      ConfigFile.prototype,
      'replace',
      async () => {
        throw clusterError('config_unwritable', path, 'no space left')
      },
      { times: 1 },
    )
    const { manifest } = store
    await assert.rejects(store.commit(add('b', 2), 'api'), rejects('config_unwritable'))
    assert.equal(store.manifest, manifest)
    await store.commit(add('b', 2), 'api')
    assert.equal(await readFile(path, 'utf8'), withRoute)
  })

  it('keep mode and link, and leave no temporary file', async (test) => {
    const directory = await temporaryDirectory(test)
    const target = join(directory, 'real', 'target.yaml')
    await mkdir(join(directory, 'real'))
    await writeFile(target, text)
    await chmod(target, 0o640)
    const path = join(directory, 'database.yaml')
    await symlink('real/target.yaml', path)
    const store = await ManifestStore.open(path)
    test.after(() => store.close())
    await store.commit(add('b', 2), 'api')
    assert.ok((await lstat(path)).isSymbolicLink())
    assert.equal(await readlink(path), 'real/target.yaml')
    assert.equal(await readFile(target, 'utf8'), withRoute)
    assert.equal((await stat(target)).mode & 0o777, 0o640)
    assert.deepEqual(await readdir(join(directory, 'real')), ['target.yaml'])
    assert.deepEqual(await readdir(directory), ['database.yaml', 'real'])
  })

  it('survive a listener that throws', async (test) => {
    const { store } = await openStore(test, text)
    const listener = {
      committed() {
        throw new Error('mine')
      },
      limitsChanged() {},
      rejected() {},
      missing() {},
    }
    store.listen(listener)
    await store.commit(add('b', 2), 'api')
    assert.deepEqual(hosts(store.manifest), ['a', 'b'])
  })

  it('are rejected after close, which may be called twice', async (test) => {
    const { store, path } = await openStore(test, text)
    const last = store.commit(add('b', 2), 'api')
    await Promise.all([store.close(), store.close()])
    await last
    assert.equal(await readFile(path, 'utf8'), withRoute)
    await assert.rejects(store.commit(add('c'), 'api'), rejects('closed'))
  })
})

describe('edits of the file', () => {
  it('become commits, additions at once', async (test) => {
    const { path, listener, store } = await openStore(test, text)
    await writeFile(path, withRoute)
    const { commit } = await listener.next()
    assert.equal(commit?.cause, 'file')
    assert.deepEqual(commit?.changes, [{ type: 'route:added', server: 'hub', route: { host: 'b', port: 2 } }])
    assert.equal(store.manifest, commit?.current)
    assert.equal(await readFile(path, 'utf8'), withRoute)
  })

  it('are seen when the file is replaced', async (test) => {
    const { path, directory, listener } = await openStore(test, text)
    await writeFile(join(directory, 'new'), withRoute)
    await rename(join(directory, 'new'), path)
    assert.deepEqual(hosts((await listener.next()).commit?.current), ['a', 'b'])
  })

  it('are seen behind a link', async (test) => {
    const directory = await temporaryDirectory(test)
    await mkdir(join(directory, 'real'))
    const target = join(directory, 'real', 'target.yaml')
    await writeFile(target, text)
    await symlink(target, join(directory, 'database.yaml'))
    const store = await ManifestStore.open(join(directory, 'database.yaml'))
    test.after(() => store.close())
    const changed = new Promise<void>((done) =>
      store.listen({ committed: () => done(), limitsChanged() {}, rejected() {}, missing() {} }),
    )
    await writeFile(target, withRoute)
    await changed
    assert.deepEqual(hosts(store.manifest), ['a', 'b'])
  })

  it('remove entries only after two seconds without another edit', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const start = performance.now()
    // An addition and two removals.
    await writeFile(path, `clustering:\n  enabled: true\n  nodeName: node1\n  nodes:\n    - name: node3\n`)
    const first = (await listener.next()).commit
    assert.deepEqual(
      first?.changes.map(({ type }) => type),
      ['node:added'],
    )
    assert.deepEqual(hosts(store.manifest), ['a'])
    const second = (await listener.next()).commit
    assert.ok(performance.now() - start >= 2000)
    assert.deepEqual(
      second?.changes.map(({ type }) => type),
      ['route:removed', 'node:removed'],
    )
    assert.deepEqual(
      store.manifest.nodes.map(({ name }) => name),
      ['node3'],
    )
    assert.equal(second?.cause, 'file')
  })

  it('remove nothing when the file is complete again in time', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await writeFile(path, text.slice(0, text.indexOf('  hubServer')))
    // A commit finds the partly written file; missing entries stay.
    await store.commit(add('c'), 'api')
    assert.deepEqual(hosts(store.manifest), ['a', 'c'])
    await listener.next()
    await writeFile(path, withRoute.replace('host: b', 'host: c').replace('port: 2', 'port: 1'))
    await writeFile(path, withRoute.replace('host: b', 'host: c').replace('port: 2', 'port: 1').replace('dog', 'cat'))
    const { commit } = await listener.next()
    assert.deepEqual(
      commit?.changes.map(({ type }) => type),
      ['node:updated'],
    )
    assert.deepEqual(hosts(store.manifest), ['a', 'c'])
    const last = (await listener.next()).commit
    assert.deepEqual(
      last?.current.nodes[0]?.subscriptions.map(({ table }) => table),
      ['cat'],
    )
    assert.deepEqual(hosts(last?.current), ['a', 'c'])
  })

  it('are imported before a commit that was queued after them', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await writeFile(path, withRoute)
    await store.commit(add('c'), 'api')
    assert.deepEqual((await listener.next()).commit?.cause, 'file')
    assert.deepEqual((await listener.next()).commit?.cause, 'api')
    assert.deepEqual(hosts(store.manifest), ['a', 'b', 'c'])
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config?.manifest, store.manifest)
  })

  it('are not lost between the read and the write of a commit', async (test) => {
    const { store, path } = await openStore(test, text)
    let edits = 0
    const change = (manifest: Manifest) => {
      if (edits++ === 0) writeFileSync(path, withRoute)
      return add('c')(manifest)
    }
    await store.commit(change, 'api')
    assert.equal(edits, 2)
    assert.deepEqual(hosts(store.manifest), ['a', 'b', 'c'])
    assert.deepEqual(new ConfigText(await readFile(path, 'utf8')).config?.manifest, store.manifest)
  })

  it('that are invalid change nothing, are reported once, and block commits until they are fixed', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const { manifest } = store
    const bad = text.replace('port: 1\n', 'port: one\n')
    await writeFile(path, bad)
    const { rejected } = await listener.next()
    assert.deepEqual(rejected, [
      {
        line: 12,
        column: 19,
        path: 'clustering.hubServer.cluster.network.routes[0].port',
        message: 'must be a port, an integer from 1 to 65535, not "one"',
      },
    ])
    await assert.rejects(store.commit(drop('a'), 'api'), rejects('config_rejected', /line 12, column 19/))
    assert.equal(store.manifest, manifest)
    assert.equal(await readFile(path, 'utf8'), bad)
    await writeFile(path, withRoute)
    assert.deepEqual(hosts((await listener.next()).commit?.current), ['a', 'b'])
    await store.commit(drop('a'), 'api')
    assert.equal((await listener.next()).commit?.cause, 'api')
    assert.equal(listener.pending, 0)
  })

  it('that empty the file are invalid', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await writeFile(path, '')
    assert.match((await listener.next()).rejected?.[0]?.message ?? '', /'clustering' is missing/)
    assert.deepEqual(hosts(store.manifest), ['a'])
  })

  it('that require a restart are reported and not imported, and commits still work', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const edited = withRoute
      .replace('nodeName: node1', 'nodeName: other\n  logLevel: debug')
      .replace('enabled: true', 'enabled: false')
    await writeFile(path, edited)
    const { rejected } = await listener.next()
    assert.deepEqual(
      rejected?.map(({ line, path }) => `${line} ${path}`),
      ['6 clustering.logLevel', '5 clustering.nodeName', '4 clustering.enabled'],
    )
    assert.match(rejected?.[0]?.message ?? '', /restart/)
    assert.deepEqual(hosts(store.manifest), ['a'])
    assert.equal(store.settings.logLevel, 'error')
    await store.commit(add('c'), 'api')
    assert.deepEqual(hosts(store.manifest), ['a', 'c'])
    assert.equal(
      await readFile(path, 'utf8'),
      edited.replace(extraRoute, `${extraRoute}          - host: c\n            port: 1\n`),
    )
    await listener.next()
    // Undone: the other edits take effect now.
    await writeFile(
      path,
      (await readFile(path, 'utf8'))
        .replace('nodeName: other\n  logLevel: debug', 'nodeName: node1')
        .replace('enabled: false', 'enabled: true'),
    )
    assert.deepEqual((await listener.next()).commit?.changes, [
      { type: 'route:added', server: 'hub', route: { host: 'b', port: 2 } },
    ])
  })

  it('of the port of the operations API take effect at once', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await writeFile(path, `operationsApi: { network: { port: 1234 } }\n${withRoute}`)
    await listener.next()
    assert.equal(store.settings.operationsApiPort, 1234)
  })

  it('of the limits of streams take effect once the file is stable: a part of a number is a number', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const limited = (limits: string) => `${text}  leafServer: { streams: { ${limits} } }\n`
    await writeFile(path, limited('maxMsgs: 1'))
    // Long enough to be read, shorter than the removal delay.
    await delay(1_000)
    // In the same turn: however late this is, the timer of the removal delay runs after it.
    writeFileSync(path, limited('maxMsgs: 1000, maxAge: 60'))
    assert.deepEqual((await listener.next()).limited?.streams, { maxMsgs: 1000, maxAge: 60 })
    assert.deepEqual(store.settings.streams, { maxMsgs: 1000, maxAge: 60 })
    // A commit in between does not lose the edit.
    await writeFile(path, limited('maxMsgs: 1000'))
    await store.commit(add('b'), 'api')
    assert.ok((await listener.next()).commit)
    assert.deepEqual((await listener.next()).limited?.streams, { maxMsgs: 1000 })
    assert.equal(listener.pending, 0)
  })

  it('of the directory of the streams require a restart', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await writeFile(path, `${text}  leafServer: { streams: { maxMsgs: 5, path: /elsewhere } }\n`)
    assert.deepEqual(
      (await listener.next()).rejected?.map(({ path }) => path),
      ['clustering.leafServer.streams.path'],
    )
    assert.deepEqual(store.settings.streams, {})
  })

  it('do not include local writes', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await store.commit(add('b', 2), 'api')
    await listener.next()
    // The next event is the edit, not the local write.
    await writeFile(path, text.replace('node2', 'node3'))
    assert.deepEqual((await listener.next()).commit?.changes, [
      { type: 'node:added', node: { name: 'node3', subscriptions: [dog] } },
    ])
  })
})

describe('a deleted file', () => {
  it('is reported once, and the manifest stays', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await unlink(path)
    assert.match((await listener.next()).missing?.[0]?.message ?? '', /missing/)
    assert.deepEqual(hosts(store.manifest), ['a'])
    await writeFile(path, withRoute)
    assert.deepEqual(hosts((await listener.next()).commit?.current), ['a', 'b'])
  })

  it('is restored by the next commit', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    await unlink(path)
    await listener.next()
    await store.commit(add('b', 2), 'api')
    assert.equal(await readFile(path, 'utf8'), withRoute)
  })
})

describe('many commits and edits at once', () => {
  it('lose nothing', async (test) => {
    const { store, path } = await openStore(test, text)
    for (let round = 0; round < 10; round++) {
      // An atomic edit, as editors make it.
      const edit = (async () => {
        const now = await readFile(path, 'utf8')
        await writeFile(`${path}.edit`, now.replace('  nodes:\n', `  nodes:\n    - name: hand${round}\n`))
        if ((await readFile(path, 'utf8')) === now) await rename(`${path}.edit`, path)
        else return false
        return true
      })()
      const api = [0, 1, 2].map((index) =>
        store.commit((manifest) => setSubscriptions(manifest, `api${round}-${index}`, [dog]), 'api'),
      )
      await Promise.all([edit, ...api])
    }
    await store.commit(add('end'), 'api')
    const { config } = new ConfigText(await readFile(path, 'utf8'))
    const names = (manifest: Manifest | undefined) => manifest?.nodes.map(({ name }) => name).toSorted()
    assert.deepEqual(names(config?.manifest), names(store.manifest))
    assert.deepEqual(hosts(config?.manifest), ['a', 'end'])
  })
})
