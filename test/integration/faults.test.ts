// A short run of the fault harness, as `npm run faults` runs it. Nothing of it is left afterwards, also after Ctrl-C.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { isLong } from '../support/long.ts'
import { programArguments } from '../support/program.ts'
import { seedOf } from '../support/random.ts'

function run(t: TestContext, ...options: string[]) {
  const seed = seedOf()
  t.diagnostic(`SEED=${seed}`)
  const args = [...programArguments('faults/main.ts'), '--seed', String(seed), ...options]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  t.after(() => child.kill('SIGTERM'))
  const lines: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line))
  const output = createInterface({ input: child.stdout })
  output.on('line', (line) => lines.push(line))
  const ended = once(child, 'close').then(([code]) => code as number | null)
  return { child, lines, output, ended }
}

/** A whole run has time for every kind of fault. */
const MINUTES = isLong ? '1' : '0.2'

test('a run with faults: no transaction is lost or applied twice, and recovery is fast', {
  timeout: 240_000,
}, async (t) => {
  const { child, lines, ended } = run(t, '--minutes', MINUTES)
  assert.equal(await ended, 0, lines.join('\n'))
  for (const line of lines.slice(lines.indexOf(''))) t.diagnostic(line)
  assert.deepEqual(await leftovers(child.pid!), [])
})

test('Ctrl-C ends every process, mount and namespace', { timeout: 120_000 }, async (t) => {
  const { child, lines, output, ended } = run(t, '--minutes', '1', '--keep', '--faults', 'kill,cut,disk-full')
  for (const began = Date.now(); !lines.some((line) => /^ *[\d.]+ s {2}(kill|cut|disk)-?/.test(line)); ) {
    assert.ok(Date.now() - began < 60_000, lines.join('\n'))
    await once(output, 'line', { signal: AbortSignal.timeout(60_000) })
  }
  child.kill('SIGINT')
  assert.equal(await ended, 130, lines.join('\n'))
  assert.deepEqual(await leftovers(child.pid!), [])
})

/** Processes, mounts and namespaces of the run: the names of its directory and its namespaces contain its process id. */
async function leftovers(pid: number): Promise<string[]> {
  const mark = `enmesh-${pid}-`
  const left: string[] = []
  for (const process of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${process}/cmdline`, 'utf8').catch(() => '')
    if (command.includes(mark)) left.push(`process ${process}: ${command.replaceAll('\0', ' ')}`)
  }
  const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n')
  const namespaces = existsSync('/run/netns') ? await readdir('/run/netns') : []
  return [...left, ...mounts.filter((line) => line.includes(mark)), ...namespaces.filter((name) => name.includes(mark))]
}
