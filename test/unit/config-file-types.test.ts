// The configuration file as installations have it: links, mounts, pipes, modes, Node's permission model.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { addRoutes } from '../../lib/manifest/manifest.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'
import { eventually } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'
import { temporaryDirectory } from './store-fixture.ts'

const text = '# theirs\na:   1\nclustering:\n  enabled: false\n  nodeName: me\n# the end\n'

async function openAt(test: TestContext, path: string): Promise<ManifestStore> {
  const store = await ManifestStore.open(path)
  test.after(() => store.close())
  return store
}

const addRoute = (store: ManifestStore, host = 'h') =>
  store.commit((manifest) => addRoutes(manifest, 'hub', [{ host, port: 1 }]).manifest, 'api')

/** The file has the route, and the host's part is unchanged. */
async function assertWritten(path: string): Promise<void> {
  const after = await readFile(path, 'utf8')
  assert.ok(after.startsWith(text.slice(0, text.indexOf('# the end'))) && after.endsWith('# the end\n'), after)
  assert.match(after, /host: h\n/)
}

/** Runs a command; undo runs after the test. Why it cannot be run, otherwise. */
function attempt(test: TestContext, command: readonly string[], undo: readonly string[]): string | undefined {
  try {
    execFileSync(command[0]!, command.slice(1), { stdio: 'ignore' })
  } catch {
    return `not permitted here: ${command.join(' ')}`
  }
  test.after(() => void spawnSync(undo[0]!, undo.slice(1)))
  return undefined
}

describe('a configuration file that is not a regular file', () => {
  for (const [name, command, message] of [
    ['a named pipe', 'mkfifo', /not a regular file/],
    ['a directory', 'mkdir', /it is a directory/],
  ] as const)
    it(`is rejected, not waited for: ${name}`, async (test) => {
      const path = join(await temporaryDirectory(test), 'config.yaml')
      execFileSync(command, [path])
      await assert.rejects(ManifestStore.open(path), { code: 'config_rejected', message })
    })

  it('is rejected: a device without end', async (test) => {
    const path = join(await temporaryDirectory(test), 'config.yaml')
    await symlink('/dev/zero', path)
    await assert.rejects(ManifestStore.open(path), { code: 'config_rejected', message: /not a regular file/ })
  })
})

describe('a change keeps', () => {
  for (const mode of [0o600, 0o644, 0o664, 0o666])
    it(`the mode ${mode.toString(8)}, whatever the umask is`, async (test) => {
      const path = join(await temporaryDirectory(test), 'config.yaml')
      await writeFile(path, text)
      await chmod(path, mode)
      await addRoute(await openAt(test, path))
      assert.equal((await stat(path)).mode & 0o7777, mode)
      await assertWritten(path)
    })

  it('a link into another file system', async (test) => {
    const other = await mkdtemp('/dev/shm/enmesh-').catch(() => undefined)
    if (!other) return test.skip('/dev/shm is missing')
    test.after(() => rm(other, { recursive: true, force: true }))
    const path = join(await temporaryDirectory(test), 'config.yaml')
    await writeFile(join(other, 'real.yaml'), text)
    await symlink(join(other, 'real.yaml'), path)
    await addRoute(await openAt(test, path))
    assert.equal(await readlink(path), join(other, 'real.yaml'))
    await assertWritten(path)
    assert.deepEqual(await readdir(other), ['real.yaml'])
  })

  it('the links of a Kubernetes volume, and sees the next version', async (test) => {
    const directory = await temporaryDirectory(test)
    for (const version of ['..v1', '..v2']) await mkdir(join(directory, version))
    await writeFile(join(directory, '..v1', 'config.yaml'), text)
    const next = text.replace('nodeName: me', 'nodeName: me\n  nodes: [{ name: n2 }]')
    await writeFile(join(directory, '..v2', 'config.yaml'), next)
    await symlink('..v1', join(directory, '..data'))
    const path = join(directory, 'config.yaml')
    await symlink('..data/config.yaml', path)
    const store = await openAt(test, path)
    await symlink('..v2', join(directory, '..data_tmp'))
    await rename(join(directory, '..data_tmp'), join(directory, '..data'))
    await eventually('the next version is read', () => store.manifest.nodes.length === 1)
    await addRoute(store)
    assert.deepEqual([await readlink(path), await readlink(join(directory, '..data'))], ['..data/config.yaml', '..v2'])
    assert.match(await readFile(join(directory, '..v2', 'config.yaml'), 'utf8'), /host: h\n/)
    assert.equal(await readFile(join(directory, '..v1', 'config.yaml'), 'utf8'), text)
  })

  for (const device of ['the same', 'another'] as const)
    it(`a mounted single file of ${device} file system`, async (test) => {
      const directory = await temporaryDirectory(test)
      const source = await mkdtemp(join(device === 'another' ? '/dev/shm' : tmpdir(), 'enmesh-')).catch(() => undefined)
      if (!source) return test.skip('/dev/shm is missing')
      test.after(() => rm(source, { recursive: true, force: true }))
      const [path, real] = [join(directory, 'config.yaml'), join(source, 'real.yaml')]
      await writeFile(real, text)
      await writeFile(path, '')
      const reason = attempt(test, ['mount', '--bind', real, path], ['umount', path])
      if (reason) return test.skip(reason)
      const store = await openAt(test, path)
      await addRoute(store, 'a-route-that-makes-the-file-longer')
      await store.commit((manifest) => addRoutes(manifest, 'hub', [{ host: 'h', port: 1 }]).manifest, 'api')
      await store.commit(
        (manifest) => ({ ...manifest, routes: { ...manifest.routes, hub: [{ host: 'h', port: 1 }] } }),
        'api',
      )
      await assertWritten(real)
      assert.equal(await readFile(path, 'utf8'), await readFile(real, 'utf8'))
      assert.deepEqual(await readdir(directory), ['config.yaml'])
    })
})

describe('a file that cannot be written', () => {
  const cases = {
    'a read-only mount': (directory: string) => [
      ['mount', '--bind', '-o', 'ro', directory, directory],
      ['umount', directory],
    ],
    'an immutable file': (_: string, path: string) => [
      ['chattr', '+i', path],
      ['chattr', '-i', path],
    ],
  } as const
  for (const [name, commands] of Object.entries(cases))
    it(`is opened, and a change is rejected: ${name}`, async (test) => {
      const directory = await temporaryDirectory(test)
      const path = join(directory, 'config.yaml')
      await writeFile(path, text)
      const [command, undo] = commands(directory, path)
      const reason = attempt(test, command!, undo!)
      if (reason) return test.skip(reason)
      // Node's access() and util-linux differ in when a bind mount becomes read-only.
      const store = await openAt(test, path)
      await assert.rejects(addRoute(store), { code: 'config_unwritable' })
      assert.equal(await readFile(path, 'utf8'), text)
      assert.deepEqual(await readdir(directory), ['config.yaml'])
      assert.equal(store.manifest.routes.hub.length, 0)
    })
})

describe("Node's permission model", () => {
  it('permits changes of a file whose mode is right already', async (test) => {
    const directory = await temporaryDirectory(test)
    const path = join(directory, 'config.yaml')
    await writeFile(path, text, { mode: 0o644 })
    const flag = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission'
    const program = programArguments('support/add-route.ts')
    const args = [flag, '--allow-fs-read=*', `--allow-fs-write=${directory}/*`, '--no-warnings', ...program, path]
    const compiled = program.length === 1
    if (!compiled) return test.skip('the program is not compiled, and tsx needs more permissions')
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    assert.equal(stdout, 'done\n', stderr)
    await assertWritten(path)
  })
})
