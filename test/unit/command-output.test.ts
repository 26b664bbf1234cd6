// The exit code of the command when its output cannot be written: what was found out, or that nobody gets to know it.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { temporaryDirectory } from '../support/cluster.ts'

const main = fileURLToPath(new URL('../../lib/cli/main.ts', import.meta.url))

/** Checks an invalid file. `stdout`: a file descriptor; without one, a pipe that nobody reads. */
async function check(t: TestContext, stdout?: number): Promise<number> {
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  const file = join(directory, 'config.yaml')
  await writeFile(file, 'clustering: [')
  const args = ['--import', 'tsx', main, 'check', file]
  const child = spawn(process.execPath, args, { stdio: ['ignore', stdout ?? 'pipe', 'ignore'] })
  child.stdout?.destroy()
  const [code] = await once(child, 'exit')
  return code as number
}

test('a full disk is no valid file', { skip: !existsSync('/dev/full') }, async (t) => {
  const full = await open('/dev/full', 'w')
  t.after(() => full.close())
  assert.equal(await check(t, full.fd), 2)
})

test('an invalid file stays invalid when the reader of the output ends first', async (t) => {
  assert.equal(await check(t), 1)
})
