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

const text = '# theirs\na:   1\nclustering:\n  enabled: false\n  nodeName: me\n# the end\n'

/** A directory, and what a test has to undo before it is removed, from the last to the first. */
async function scene(test: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-file-'))
  const undo: (() => unknown)[] = [() => rm(directory, { recursive: true, force: true })]
  test.after(async () => {
    for (const step of undo.toReversed()) await step()
  })
  const path = join(directory, 'config.yaml')
  const open = async () => {
    const store = await ManifestStore.open(path)
    undo.push(() => store.close())
    return store
  }
  /** Runs a command. Why it cannot be run, otherwise. */
  const attempt = (command: readonly string[], inverse: readonly string[]): string | undefined => {
    if (spawnSync(command[0]!, command.slice(1)).status !== 0) return `not permitted here: ${command.join(' ')}`
    undo.push(() => execFileSync(inverse[0]!, inverse.slice(1)))
    return undefined
  }
  return { directory, path, open, attempt, undo }
}

const addRoute = (store: ManifestStore, host = 'h') =>
  store.commit((manifest) => addRoutes(manifest, 'hub', [{ host, port: 1 }]).manifest, 'api')

/** The file has the route, and the host's part is unchanged. */
async function assertWritten(path: string): Promise<void> {
  const after = await readFile(path, 'utf8')
  assert.ok(after.startsWith(text.slice(0, text.indexOf('# the end'))) && after.endsWith('# the end\n'), after)
  assert.match(after, /host: h\n/)
}

describe('a configuration file that is not a regular file', () => {
  for (const [name, command, message] of [
    ['a named pipe', 'mkfifo', /not a regular file/],
    ['a directory', 'mkdir', /it is a directory/],
  ] as const)
    it(`is rejected, not waited for: ${name}`, async (test) => {
      const { path } = await scene(test)
      execFileSync(command, [path])
      await assert.rejects(ManifestStore.open(path), { code: 'config_rejected', message })
    })

  it('is rejected: a device without end', async (test) => {
    const { path } = await scene(test)
    await symlink('/dev/zero', path)
    await assert.rejects(ManifestStore.open(path), { code: 'config_rejected', message: /not a regular file/ })
  })
})

describe('a change keeps', () => {
  for (const mode of [0o600, 0o644, 0o664, 0o666])
    it(`the mode ${mode.toString(8)}, whatever the umask is`, async (test) => {
      const { path, open } = await scene(test)
      await writeFile(path, text)
      await chmod(path, mode)
      await addRoute(await open())
      assert.equal((await stat(path)).mode & 0o7777, mode)
      await assertWritten(path)
    })

  it('a link into another file system', async (test) => {
    const other = await mkdtemp('/dev/shm/enmesh-').catch(() => undefined)
    if (!other) return test.skip('/dev/shm is missing')
    const { path, open, undo } = await scene(test)
    undo.push(() => rm(other, { recursive: true, force: true }))
    await writeFile(join(other, 'real.yaml'), text)
    await symlink(join(other, 'real.yaml'), path)
    await addRoute(await open())
    assert.equal(await readlink(path), join(other, 'real.yaml'))
    await assertWritten(path)
    assert.deepEqual(await readdir(other), ['real.yaml'])
  })

  it('the links of a Kubernetes volume, and sees the next version', async (test) => {
    const { directory, path, open } = await scene(test)
    for (const version of ['..v1', '..v2']) await mkdir(join(directory, version))
    await writeFile(join(directory, '..v1', 'config.yaml'), text)
    const next = text.replace('nodeName: me', 'nodeName: me\n  nodes: [{ name: n2 }]')
    await writeFile(join(directory, '..v2', 'config.yaml'), next)
    await symlink('..v1', join(directory, '..data'))
    await symlink('..data/config.yaml', path)
    const store = await open()
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
      const { directory, path, open, attempt, undo } = await scene(test)
      const source = await mkdtemp(join(device === 'another' ? '/dev/shm' : tmpdir(), 'enmesh-')).catch(() => undefined)
      if (!source) return test.skip('/dev/shm is missing')
      undo.push(() => rm(source, { recursive: true, force: true }))
      const real = join(source, 'real.yaml')
      await writeFile(real, text)
      await writeFile(path, '')
      const reason = attempt(['mount', '--bind', real, path], ['umount', path])
      if (reason) return test.skip(reason)
      const store = await open()
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
  type Command = readonly string[]
  const cases: Record<string, (directory: string, path: string) => readonly [Command, Command]> = {
    'a read-only mount': (directory: string) => [
      ['mount', '--bind', '-o', 'ro', directory, directory],
      ['umount', directory],
    ],
    'an immutable file': (_: string, path: string) => [
      ['chattr', '+i', path],
      ['chattr', '-i', path],
    ],
  }
  for (const [name, commands] of Object.entries(cases))
    it(`is opened, and a change is rejected: ${name}`, async (test) => {
      const { directory, path, open, attempt } = await scene(test)
      await writeFile(path, text)
      const [command, inverse] = commands(directory, path)
      const reason = attempt(command, inverse)
      if (reason) return test.skip(reason)
      const store = await open()
      await assert.rejects(addRoute(store), { code: 'config_unwritable' })
      assert.equal(await readFile(path, 'utf8'), text)
      assert.deepEqual(await readdir(directory), ['config.yaml'])
      assert.equal(store.manifest.routes.hub.length, 0)
    })
})

describe("Node's permission model", () => {
  it('permits changes of a file whose mode is right already', async (test) => {
    const { directory, path } = await scene(test)
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
