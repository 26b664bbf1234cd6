// Runs the whole suite with Node's own runner: every *.test.ts below test/unit and test/integration, or the files named. With
// `--long` nothing is left to samples (test/support/long.ts).

import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const isLong = process.argv.includes('--long')
const named = process.argv.slice(2).filter((argument) => argument !== '--long')

const below = (folder) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => relative(root, join(root, folder, name)))
    .sort()

const files = named.length > 0 ? named : [...below('test/unit'), ...below('test/integration')]
// Integration tests measure recovery in seconds on few cores: two files at a time.
const child = spawn(
  process.execPath,
  ['--import', 'tsx', '--test', '--test-concurrency=2', '--test-reporter=spec', ...files],
  { cwd: root, stdio: 'inherit', env: { ...process.env, ...(isLong && { LONG_TESTS: '1' }) } },
)
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(signal ? 1 : code))
