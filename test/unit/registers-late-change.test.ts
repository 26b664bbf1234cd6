// A change of the registers is written whenever it is made, also in the moment in which a write ends.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { emptyManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Registers } from '../../lib/peers/registers.ts'

const clock = { timestamp: () => '9', resume: () => {} }
const pauseOf = (table: string) => ({ node: 'node1', database: 'dev', table })

/** The first write fails. `onFailure` is called as soon as it has. */
async function open(test: TestContext, onFailure: (registers: Registers) => void) {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-registers-'))
  test.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'revisions.json')
  const error = () => {
    rmSync(path, { recursive: true })
    onFailure(registers)
  }
  const registers = await Registers.open(path, emptyManifest, clock, { ...silentLogger, error })
  await registers.flush()
  await rm(path, { force: true })
  // A file cannot take the place of a directory.
  await mkdir(path)
  registers.paused.add(pauseOf('cat'))
  return { registers, read: () => readFile(path, 'utf8') }
}

test('a change in the moment in which a write ends is written', async (test) => {
  const { registers, read } = await open(test, ({ paused }) => queueMicrotask(() => paused.add(pauseOf('dog'))))
  await registers.flush()
  await registers.flush()
  assert.ok((await read()).includes('dog'))
})

test('what could not be written is written when it is asked for again', async (test) => {
  const { registers, read } = await open(test, () => {})
  await assert.rejects(registers.store(), { code: 'state_unwritable' })
  await registers.store()
  assert.ok((await read()).includes('cat'))
})
