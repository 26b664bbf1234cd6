// One manager for each configuration file: a second one is rejected, and a closed one leaves no lock behind.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { link, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { ClusterOptions } from '../../lib/cluster/options.ts'
import { ClusterManager } from '../../lib/cluster-manager.ts'
import { ClusterError, type ErrorCode } from '../../lib/errors.ts'
import { killed } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { programArguments } from '../support/program.ts'

const text = `clustering:\n  enabled: false\n  nodeName: node1\n`

/** A directory and the managers of a test, removed after the test. */
async function scopeOf(test: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-lock-'))
  const opened: ClusterManager[] = []
  test.after(async () => {
    for (const cluster of opened) await cluster.close()
    await rm(directory, { recursive: true, force: true })
  })
  const path = join(directory, 'database.yaml')
  const open = async (configFile = path, options: Partial<ClusterOptions> = {}) => {
    const cluster = await ClusterManager.open({ configFile, host: new MemoryHost(), ...options })
    opened.push(cluster)
    return cluster
  }
  const rejected = (code: ErrorCode, configFile = path, options: Partial<ClusterOptions> = {}) =>
    assert.rejects(
      open(configFile, options),
      (error) => error instanceof ClusterError && error.code === code && error.message.includes(configFile),
    )
  return { directory, path, open, rejected }
}

describe('a second manager on a file', () => {
  it('is rejected by any path to the file', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    await writeFile(path, text)
    await mkdir(join(directory, 'below'))
    await symlink('database.yaml', join(directory, 'relative.yaml'))
    await symlink(path, join(directory, 'below', 'absolute.yaml'))
    await symlink(join(directory, 'below', 'absolute.yaml'), join(directory, 'twice.yaml'))
    await symlink(directory, join(directory, 'below', 'around'))
    const paths = [
      path,
      join(directory, 'relative.yaml'),
      join(directory, 'below', 'absolute.yaml'),
      join(directory, 'twice.yaml'),
      join(directory, 'below', 'around', 'database.yaml'),
      join(directory, 'below', 'around', 'below', 'around', 'twice.yaml'),
    ]
    for (const first of paths) {
      const cluster = await open(first)
      for (const second of paths) await rejected('config_locked', second)
      await assert.rejects(
        open(relative(process.cwd(), path)),
        (error) => error instanceof ClusterError && error.code === 'config_locked',
      )
      // The first one still works.
      await cluster.setRoutes({ server: 'hub', routes: [{ host: 'a', port: 1 }] })
      await cluster.deleteRoutes({ routes: [{ host: 'a', port: 1 }] })
      await cluster.close()
    }
    assert.equal((await readFile(path, 'utf8')).includes('nodeName: node1'), true)
  })

  it('is rejected when the first one created the file, also through links to the directory or the file', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    await mkdir(join(directory, 'real'))
    await symlink('real', join(directory, 'around'))
    await symlink('real/database.yaml', path)
    const paths = [path, join(directory, 'real', 'database.yaml'), join(directory, 'around', 'database.yaml')]
    for (const first of paths) {
      const cluster = await open(first)
      for (const second of paths) await rejected('config_locked', second)
      await cluster.close()
      await rm(join(directory, 'real', 'database.yaml'))
    }
  })

  it('is rejected by the same path after its link leads to another file', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    for (const name of ['one.yaml', 'two.yaml']) await writeFile(join(directory, name), text)
    await symlink('one.yaml', path)
    const cluster = await open()
    await symlink('two.yaml', join(directory, 'next'))
    await rename(join(directory, 'next'), path)
    await rejected('config_locked')
    await cluster.close()
    await open()
  })

  it('is rejected after the file was replaced, and after it was deleted', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    await writeFile(path, text)
    await open()
    await link(path, join(directory, 'copy'))
    await writeFile(join(directory, 'new'), text)
    await rename(join(directory, 'new'), path)
    await rejected('config_locked')
    await rm(path)
    await rejected('config_locked')
  })

  it('opens another file', async (test) => {
    const { directory, open } = await scopeOf(test)
    const clusters = await Promise.all(['a.yaml', 'b.yaml', 'c.yaml'].map((name) => open(join(directory, name))))
    assert.deepEqual(
      clusters.map(({ state }) => state),
      ['open', 'open', 'open'],
    )
  })

  it('opens once among many at the same time', async (test) => {
    const { directory, path, open } = await scopeOf(test)
    await writeFile(path, text)
    await symlink('database.yaml', join(directory, 'link.yaml'))
    for (let round = 0; round < 10; round++) {
      const attempts = Array.from({ length: 6 }, (_, index) => open(index % 2 ? path : join(directory, 'link.yaml')))
      const results = await Promise.allSettled(attempts)
      const won = results.filter((result) => result.status === 'fulfilled')
      const lost = results.flatMap((result) => (result.status === 'rejected' ? [result.reason.code] : []))
      assert.equal(won.length, 1)
      assert.deepEqual(lost, Array(5).fill('config_locked'))
      await won[0]!.value.close()
    }
  })
})

describe('the lock', () => {
  it('of a killed process is released at once', { timeout: 60_000 }, async (test) => {
    const { path, open, rejected } = await scopeOf(test)
    await writeFile(path, text)
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, [...programArguments('support/commit-loop.ts'), '--hold', path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      try {
        await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
        assert.equal(child.exitCode, null)
        await rejected('config_locked')
      } finally {
        if (child.exitCode === null) await killed(child)
      }
      const cluster = await open()
      assert.equal(cluster.state, 'open')
      await cluster.close()
    }
  })

  it('ends with close, which may be called twice', async (test) => {
    const { path, open, rejected } = await scopeOf(test)
    await writeFile(path, text)
    for (let round = 0; round < 10; round++) {
      const cluster = await open()
      await rejected('config_locked')
      await Promise.all([cluster.close(), cluster.close()])
    }
    const last = await open()
    await last[Symbol.asyncDispose]()
    await open()
  })

  it('is released by an open that fails', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    await rejected('config_unwritable', join(directory, 'none', 'database.yaml'))
    await mkdir(join(directory, 'none'))
    await (await open(join(directory, 'none', 'database.yaml'))).close()

    const enabled = text.replace('false', 'true')
    const user = '  user: cluster_user\n'
    const failures: [ErrorCode, string, Partial<ClusterOptions>][] = [
      ['config_rejected', `${text}  nodes: 5\n`, {}],
      ['config_rejected', '', {}],
      ['config_rejected', 'clustering: [', {}],
      ['node_name_missing', enabled.replace('node1', 'null'), {}],
      ['config_rejected', enabled, { password: 'secret' }],
    ]
    for (const [code, bad, options] of failures) {
      await writeFile(path, bad)
      await rejected(code, path, options)
      await writeFile(path, text)
      await (await open()).close()
    }
    await writeFile(path, enabled + user)
    for (const [code, options] of [
      ['invalid_option', {}],
      ['invalid_option', { password: '' }],
      ['nats_server_missing', { password: 'secret', natsServer: join(directory, 'no-server') }],
    ] as const)
      await assert.rejects(open(path, options), (error) => error instanceof ClusterError && error.code === code)
    await writeFile(path, text)
    await open()
  })

  it('is not taken for a cyclic link', async (test) => {
    const { directory, path, open, rejected } = await scopeOf(test)
    await symlink('database.yaml', join(directory, 'other.yaml'))
    await symlink('other.yaml', path)
    await rejected('config_rejected')
    await rm(path)
    await open()
  })
})
