// The script that installs packages does not install through a symbolic link.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryDirectory } from './store-fixture.ts'

test('packages are not installed through a symbolic link', async (t) => {
  const directory = await temporaryDirectory(t)
  const [checkout, worktree] = [join(directory, 'checkout'), join(directory, 'worktree')]
  await mkdir(join(checkout, 'node_modules'), { recursive: true })
  await writeFile(join(checkout, 'node_modules', '.package-lock.json'), '{}')
  await utimes(join(checkout, 'node_modules', '.package-lock.json'), 1, 1)
  await mkdir(join(worktree, 'test', 'support'), { recursive: true })
  await writeFile(join(worktree, 'package-lock.json'), '{}')
  await symlink(join(checkout, 'node_modules'), join(worktree, 'node_modules'))
  const script = join(worktree, 'test', 'support', 'setup.mjs')
  await cp(fileURLToPath(new URL('../support/setup.mjs', import.meta.url)), script)
  // Without a PATH nothing can be installed, whatever the script does.
  const { status, stderr } = spawnSync(process.execPath, [script], { env: { PATH: '' }, encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /node_modules is a symbolic link/)
  assert.doesNotMatch(stderr, /> npm/)
  assert.ok(existsSync(join(checkout, 'node_modules', '.package-lock.json')))
})
