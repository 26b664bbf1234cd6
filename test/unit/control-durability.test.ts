// The configuration file is complete at every moment, despite killed processes and failing disks, and foreign contents stay.

import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import promises, {
  chmod,
  chown,
  type FileHandle,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseDocument } from 'yaml'
import { ClusterError } from '../../lib/errors.ts'
import { editConfig } from '../../lib/manifest/config-edit.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { diff } from '../../lib/manifest/diff.ts'
import { addRoutes, type Manifest, removeRoutes, share } from '../../lib/manifest/manifest.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'
import { commentsOfOurs, commitOf, head, initialText, numberOf, tail } from '../support/commit-loop.ts'
import { isLong } from '../support/long.ts'
import { programArguments } from '../support/program.ts'
import { randomNumbers, seedOf } from '../support/random.ts'
import { openStore, temporaryDirectory } from './store-fixture.ts'

const fixture = fileURLToPath(new URL('../support/commit-loop.ts', import.meta.url))
const isRoot = process.getuid?.() === 0
const nobody = 65534

const add =
  (host: string, port = 1) =>
  (manifest: Manifest) =>
    addRoutes(manifest, 'hub', [{ host, port }]).manifest
const drop =
  (host: string, port = 1) =>
  (manifest: Manifest) =>
    removeRoutes(manifest, [{ host, port }]).manifest
const unwritable = (error: unknown) => error instanceof ClusterError && error.code === 'config_unwritable'

/** The file after each commit of the fixture; the initial text has number 1. */
const states = [new ConfigText(''), new ConfigText(initialText)]
function stateOf(number: number): ConfigText {
  for (let next = states.length; next <= number; next++) {
    const before = states[next - 1]!
    const { manifest } = before.config!
    states.push(editConfig(before, diff(manifest, share(manifest, commitOf(next)(manifest)))))
  }
  return states[number]!
}

/** A process that commits to these files, and its acknowledgements. */
class Committer {
  readonly acknowledged: number[]
  /** The commit number of each file when it was opened. */
  readonly #first: number[] = []
  readonly #child: ChildProcess
  readonly #over: Promise<void>
  #wake: () => void = () => {}

  constructor(files: readonly string[]) {
    this.acknowledged = files.map(() => 0)
    this.#child = spawn(process.execPath, [...programArguments('support/commit-loop.ts'), ...files], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let rest = ''
    this.#child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const [file = 0, number = 0] = line.split(' ').map(Number)
        this.#first[file] ??= number
        this.acknowledged[file] = number
      }
      this.#wake()
    })
    // 'close' is emitted after all of its output was read.
    this.#over = new Promise((resolve) => {
      this.#child.once('close', () => {
        this.#wake()
        resolve()
      })
    })
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** Every file has had a commit. */
  async ready(): Promise<void> {
    while (this.acknowledged.some((number, file) => number === (this.#first[file] ?? number))) {
      if (this.hasEnded) throw new Error('a process that commits ended by itself')
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#over
  }
}

describe('a process killed while it commits', () => {
  const LANES = 2
  /** Per process, with one commit loop each. */
  const FILES = 4
  /** Loops that are killed. */
  const ENOUGH = isLong ? 40 : 16

  it('leaves a complete file, from before or after a commit', { timeout: 140_000 }, async (test) => {
    const seed = seedOf()
    test.diagnostic(`SEED=${seed}`)
    const random = randomNumbers(seed)
    const directory = await temporaryDirectory(test)
    const committers = new Set<Committer>()
    test.after(() => Promise.all([...committers].map((each) => each.kill())))
    const counts = { kills: 0, unacknowledged: 0, leftovers: 0 }
    const start = performance.now()

    const check = async (place: string, path: string, acknowledged: number) => {
      const text = await readFile(path, 'utf8')
      const now = new ConfigText(text)
      assert.deepEqual(now.problems, [])
      assert.deepEqual(parseDocument(text).errors, [])
      const number = numberOf(now.config!.manifest)
      assert.ok(number === acknowledged || number === acknowledged + 1, `${number} behind ${acknowledged}`)
      // The complete file, and the foreign parts separately.
      assert.equal(text, stateOf(number).onDisk)
      assert.ok(text.startsWith(head) && text.endsWith(tail))
      for (const comment of commentsOfOurs) assert.equal(text.split(`${comment}\n`).length, 2, comment)
      counts.unacknowledged += number - acknowledged
      counts.leftovers += (await readdir(place)).length - 1
      const store = await ManifestStore.open(path)
      assert.deepEqual(store.manifest, stateOf(number).config!.manifest)
      await store.close()
      assert.deepEqual(await readdir(place), ['database.yaml'])
      assert.equal(await readFile(path, 'utf8'), text)
    }

    const lane = async (number: number) => {
      const places = Array.from({ length: FILES }, (_, file) => join(directory, `${number}-${file}`))
      for (const place of places) await mkdir(place)
      const paths = places.map((place) => join(place, 'database.yaml'))
      for (const path of paths) await writeFile(path, initialText)
      while (counts.kills < ENOUGH) {
        const committer = new Committer(paths)
        committers.add(committer)
        await committer.ready()
        await delay(random() * 80)
        await committer.kill()
        committers.delete(committer)
        for (const [file, path] of paths.entries()) await check(places[file]!, path, committer.acknowledged[file]!)
        counts.kills += FILES
      }
    }
    await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)))
    test.diagnostic(JSON.stringify({ ...counts, commits: states.length, ms: Math.round(performance.now() - start) }))
    assert.ok(counts.kills >= ENOUGH)
  })

  it('leaves a complete file or no file when it creates it', { timeout: 60_000 }, async (test) => {
    const seed = seedOf()
    test.diagnostic(`SEED=${seed}`)
    const random = randomNumbers(seed)
    const directory = await temporaryDirectory(test)
    const committers = new Set<Committer>()
    test.after(() => Promise.all([...committers].map((each) => each.kill())))
    const paths = Array.from({ length: 3 }, (_, file) => join(directory, `database${file}.yaml`))
    for (let round = 0; round < 2; round++) {
      const committer = new Committer(paths)
      committers.add(committer)
      // It has no output yet: its first step is visible in the directory.
      while ((await readdir(directory)).length === 0) {
        assert.ok(!committer.hasEnded)
        await delay(1)
      }
      await delay(random() * 5)
      await committer.kill()
      committers.delete(committer)
      for (const path of paths) {
        const store = await ManifestStore.open(path)
        assert.equal(store.manifest.enabled, false)
        await store.close()
      }
      assert.deepEqual((await readdir(directory)).sort(), paths.map((path) => path.slice(directory.length + 1)).sort())
      for (const path of paths) await rm(path)
    }
  })
})

describe('a process that dies at a step of a commit', () => {
  /** After step number `last` nothing reaches the disk; a text is written by half. Returns the number of steps. */
  async function upTo(last: number, work: () => Promise<unknown>): Promise<number> {
    let steps = 0
    let isOver = false
    const step = () => ++steps < last
    const opened: FileHandle[] = []
    const never = new Promise<never>(() => {})
    const handle = await promises.open(fixture)
    await handle.close()
    const handles = Object.getPrototypeOf(handle) as FileHandle
    const originals = {
      promises: { open: promises.open, unlink: promises.unlink },
      handles: { writeFile: handles.writeFile, sync: handles.sync, chmod: handles.chmod, chown: handles.chown },
      fs: { renameSync: fs.renameSync },
    }
    const guard = (target: object, names: object) => {
      for (const [name, original] of Object.entries(names) as [string, (...args: unknown[]) => unknown][])
        Object.assign(target, {
          [name](this: FileHandle, ...args: unknown[]) {
            if (step()) {
              const result = original.apply(this, args)
              if (name === 'open') void (result as Promise<FileHandle>).then((each) => opened.push(each))
              return result
            }
            if (name === 'renameSync') throw new Error('dead')
            if (name !== 'writeFile' || steps > last) return never
            const text = String(args[0])
            return originals.handles.writeFile.call(this, text.slice(0, text.length / 2)).then(() => never)
          },
        })
    }
    guard(promises, originals.promises)
    guard(handles, originals.handles)
    guard(fs, originals.fs)
    syncBuiltinESMExports()
    try {
      await Promise.race([work(), dead()])
    } finally {
      isOver = true
      Object.assign(promises, originals.promises)
      Object.assign(handles, originals.handles)
      Object.assign(fs, originals.fs)
      syncBuiltinESMExports()
      for (const each of opened) await each.close()
    }
    return steps

    async function dead() {
      while (steps < last && !isOver) await setImmediate()
      // Pending writes are done by then.
      await delay(20)
    }
  }

  it('leaves the file from before or after it, and nothing that disturbs the next process', async (test) => {
    const numbers: number[] = []
    for (let last = 1; ; last++) {
      const directory = await temporaryDirectory(test)
      const path = join(directory, 'database.yaml')
      await writeFile(path, initialText)
      const store = await ManifestStore.open(path)
      const steps = await upTo(last, () => store.commit(commitOf(2), 'api'))
      if (steps < last) {
        await store.close()
        assert.equal(await readFile(path, 'utf8'), stateOf(2).onDisk)
        break
      }
      // Its watcher ends; the commit stays pending.
      void store.close()
      const text = await readFile(path, 'utf8')
      const number = numberOf(new ConfigText(text).config!.manifest)
      numbers.push(number)
      assert.equal(text, stateOf(number).onDisk)
      const next = await ManifestStore.open(path)
      assert.deepEqual(await readdir(directory), ['database.yaml'])
      await next.commit(commitOf(number + 1), 'api')
      await next.close()
      assert.equal(await readFile(path, 'utf8'), stateOf(number + 1).onDisk)
    }
    assert.deepEqual([...new Set(numbers)], [1, 2])
    assert.ok(numbers.length >= 6, `${numbers}`)
  })
})

describe('foreign files and attributes', () => {
  const text = `# mine\nhttp: 1\nclustering:\n  enabled: false\n  nodeName: node1\n`

  it('temporary files of other files stay, those of this file are removed', async (test) => {
    const directory = await temporaryDirectory(test)
    const path = join(directory, 'database.yaml')
    await writeFile(path, text)
    const others = ['.database.yaml.swp', '.database.yaml.mine.tmp', '.other.yaml.0123456789ab.tmp', 'database.yaml~']
    for (const name of [...others, '.database.yaml.0123456789ab.tmp']) await writeFile(join(directory, name), 'half')
    const store = await ManifestStore.open(path)
    test.after(() => store.close())
    assert.deepEqual((await readdir(directory)).sort(), [...others, 'database.yaml'].sort())
  })

  for (const mode of [0o600, 0o640, 0o666, 0o444])
    it(`mode ${mode.toString(8)} is kept, whatever the umask`, async (test) => {
      const { store, path } = await openStore(test, text)
      await chmod(path, mode)
      const umask = process.umask(0o077)
      try {
        await store.commit(add('a'), 'api')
      } finally {
        process.umask(umask)
      }
      assert.match(await readFile(path, 'utf8'), /host: a/)
      assert.equal((await stat(path)).mode & 0o7777, mode)
    })

  it('owner and group are kept', { skip: isRoot ? false : 'only root can change the owner' }, async (test) => {
    const { store, path } = await openStore(test, text)
    await chmod(path, 0o640)
    await chown(path, nobody, nobody - 1)
    await store.commit(add('a'), 'api')
    const { uid, gid, mode } = await stat(path)
    assert.deepEqual({ uid, gid, mode: mode & 0o7777 }, { uid: nobody, gid: nobody - 1, mode: 0o640 })
  })

  it('chains of links stay links, relative and absolute', async (test) => {
    const directory = await temporaryDirectory(test)
    await mkdir(join(directory, 'real'))
    await mkdir(join(directory, 'between'))
    const target = join(directory, 'real', 'target.yaml')
    await writeFile(target, text)
    await symlink('../real/target.yaml', join(directory, 'between', 'link.yaml'))
    await symlink(join(directory, 'between', 'link.yaml'), join(directory, 'database.yaml'))
    const store = await ManifestStore.open(join(directory, 'database.yaml'))
    test.after(() => store.close())
    await store.commit(add('a'), 'api')
    assert.equal(await readlink(join(directory, 'database.yaml')), join(directory, 'between', 'link.yaml'))
    assert.equal(await readlink(join(directory, 'between', 'link.yaml')), '../real/target.yaml')
    assert.ok((await lstat(target)).isFile())
    assert.match(await readFile(target, 'utf8'), /host: a/)
    for (const [place, names] of Object.entries({ real: ['target.yaml'], between: ['link.yaml'] }))
      assert.deepEqual(await readdir(join(directory, place)), names)
  })

  it('a dangling link stays a link when the file is created', async (test) => {
    const directory = await temporaryDirectory(test)
    await mkdir(join(directory, 'real'))
    await symlink('real/target.yaml', join(directory, 'database.yaml'))
    const store = await ManifestStore.open(join(directory, 'database.yaml'))
    test.after(() => store.close())
    await rm(join(directory, 'real', 'target.yaml'))
    await store.commit(add('a'), 'api')
    assert.equal(await readlink(join(directory, 'database.yaml')), 'real/target.yaml')
    assert.match(await readFile(join(directory, 'real', 'target.yaml'), 'utf8'), /host: a/)
  })

  it('nothing is written when nothing changes', async (test) => {
    const { store, path, listener, directory } = await openStore(test, text)
    await store.commit(add('A', 2), 'api')
    await listener.next()
    const past = new Date('2020-01-01T00:00:00Z')
    await utimes(path, past, past)
    const { ino, mtimeMs } = await stat(path)
    for (const change of [add('a', 2), drop('b'), (manifest: Manifest) => ({ ...manifest })]) {
      const { previous, current, changes } = await store.commit(change, 'api')
      assert.deepEqual([changes, current], [[], previous])
    }
    const after = await stat(path)
    assert.deepEqual({ ino: after.ino, mtimeMs: after.mtimeMs }, { ino, mtimeMs })
    assert.deepEqual(await readdir(directory), ['database.yaml'])
    assert.equal(listener.pending, 0)
  })

  it('local writes are never reported as edits', async (test) => {
    const { store, path, listener } = await openStore(test, text)
    const commits = 50
    for (let index = 0; index < commits; index++) {
      await store.commit(index % 2 === 0 ? add(`h${index}`) : drop(`h${index - 1}`), index % 3 === 0 ? 'peer' : 'api')
      if (index % 10 === 0) await delay(index * 5)
    }
    // The watcher sees this one after all local writes.
    await writeFile(path, (await readFile(path, 'utf8')).replace('# mine', '# theirs\n# mine'))
    await writeFile(path, `${await readFile(path, 'utf8')}  nodes:\n    - name: last\n`)
    const causes: (string | undefined)[] = []
    do causes.push((await listener.next()).commit?.cause)
    while (causes.at(-1) !== 'file')
    assert.equal(causes.length, commits + 1)
    assert.deepEqual([...new Set(causes.slice(0, -1))].sort(), ['api', 'peer'])
    assert.equal(store.manifest.nodes.length, 1)
  })

  it('line ends, byte order mark, indentation and comments are kept', async (test) => {
    const lines = `# c1\nhttp:\n    port: 1 # c2\nclustering: # c3\n    enabled: false\n    hubServer:\n        cluster:\n            network:\n                routes:\n                    # c4\n                    - host: a # c5\n                      port: 1\n                    # c6\nlast: x\n`
    const disk = (unix: string) => `\uFEFF${unix.replaceAll('\n', '\r\n')}`
    const { store, path } = await openStore(test, disk(lines))
    await store.commit(add('b', 2), 'api')
    const item = `                    - host: b\n                      port: 2\n`
    const behind = '                    # c6'
    assert.equal(await readFile(path, 'utf8'), disk(lines.replace(behind, `${item}${behind}`)))
    await store.commit(drop('b', 2), 'api')
    assert.equal(await readFile(path, 'utf8'), disk(lines))
  })
})

describe('a disk that rejects the file', () => {
  const text = `clustering:\n  enabled: false\n  nodeName: node1\n`

  /** Nothing may have changed; once writing is possible, the same commit succeeds. */
  async function rejected(store: ManifestStore, path: string): Promise<void> {
    const { manifest } = store
    const before = await stat(path)
    const now = await readFile(path, 'utf8')
    const names = await readdir(join(path, '..'))
    const reported: unknown[] = []
    store.listen({
      committed: (c) => reported.push(c),
      limitsChanged: (l) => reported.push(l),
      rejected: (r) => reported.push(r),
      missing: (m) => reported.push(m),
    })
    await assert.rejects(store.commit(add('a'), 'api'), unwritable)
    assert.equal(store.manifest, manifest)
    assert.equal(await readFile(path, 'utf8'), now)
    const after = await stat(path)
    assert.deepEqual([after.ino, after.mtimeMs], [before.ino, before.mtimeMs])
    assert.deepEqual(await readdir(join(path, '..')), names)
    assert.deepEqual(reported, [])
  }

  it('a directory without write permission', async (test) => {
    const { store, path, directory } = await openStore(test, text)
    await chmod(directory, 0o555)
    // Root can write anywhere: switch to another user meanwhile.
    if (isRoot) process.seteuid!(nobody)
    try {
      await rejected(store, path)
    } finally {
      if (isRoot) process.seteuid!(0)
    }
    await chmod(directory, 0o755)
    await store.commit(add('a'), 'api')
    assert.match(await readFile(path, 'utf8'), /host: a/)
  })

  /** A separate file system of 64 kB; undefined where mounting is not permitted. */
  async function mounted(test: TestContext): Promise<{ place: string; remount(options: string): void } | undefined> {
    const run = (...parts: string[]) => execFileSync(parts[0]!, parts.slice(1), { stdio: 'ignore' })
    let place = ''
    let isMounted = false
    // Hooks run in order of registration: this one before the directory is removed.
    test.after(() => {
      if (isMounted) run('umount', '-l', place)
    })
    place = await temporaryDirectory(test)
    try {
      run('mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', place)
      isMounted = true
    } catch {
      return undefined
    }
    return { place, remount: (options) => run('mount', '-o', `remount,${options}`, place) }
  }

  it('a full disk', async (test) => {
    const disk = isRoot ? await mounted(test) : undefined
    if (!disk) return test.skip('a file system can be mounted by root only')
    const path = join(disk.place, 'database.yaml')
    await writeFile(path, text)
    const store = await ManifestStore.open(path)
    test.after(() => store.close())
    await writeFile(join(disk.place, 'ballast'), Buffer.alloc(1024 * 1024)).catch((error) => {
      assert.equal(error.code, 'ENOSPC')
    })
    await rejected(store, path)
    await rm(join(disk.place, 'ballast'))
    await store.commit(add('a'), 'api')
    assert.match(await readFile(path, 'utf8'), /host: a/)
    await store.close()
  })

  it('a read-only file system', async (test) => {
    const disk = isRoot ? await mounted(test) : undefined
    if (!disk) return test.skip('a file system can be mounted by root only')
    const path = join(disk.place, 'database.yaml')
    await writeFile(path, text)
    disk.remount('ro')
    // Opening succeeds: the existing file is used.
    const store = await ManifestStore.open(path)
    test.after(() => store.close())
    assert.equal(store.manifest.nodeName, 'node1')
    await rejected(store, path)
    disk.remount('rw')
    await store.commit(add('a'), 'api')
    assert.match(await readFile(path, 'utf8'), /host: a/)
    await store.close()
  })
})
