// `npm run test:node`: the suite on each supported version of Node, which npx installs. Usage: see `usage` below.

import { execFile } from 'node:child_process'
import { delimiter, dirname } from 'node:path'
import { promisify } from 'node:util'
import { exitWithUsage, readArguments } from './arguments.ts'
import { runSuites, type SuiteRun } from './suite-runs.ts'

/** The release lines with long-term support after the oldest that package.json allows. */
const VERSIONS = ['22', '24', '26']
const NPX_TIMEOUT_MS = 300_000

const usage = `npm run test:node -- [--only VERSION]... [--unit | --integration | FILE...]
  --only VERSION  a version of Node, such as 24 or 24.9.0; may be repeated (default: ${VERSIONS.join(', ')})
  --unit          only test/unit
  --integration   only test/integration
  FILE...         only these tests (default: the whole suite)`

const { values, positionals } = readArguments(usage, {
  only: { type: 'string', multiple: true, default: VERSIONS },
  unit: { type: 'boolean', default: false },
  integration: { type: 'boolean', default: false },
})
const invalid = values.only.find((version) => !/^\d+(\.\d+){0,2}$/.test(version))
if (invalid !== undefined) exitWithUsage(usage, `--only takes a version of Node, such as 24, received '${invalid}'`)

/** Installs this version into npm's cache when it is missing. Its path is needed because npx does not pass signals on. */
async function prepare(version: string): Promise<SuiteRun> {
  const print = 'JSON.stringify([process.execPath, process.versions.node])'
  const args = ['--yes', '-p', `node@${version}`, '--', 'node', '-p', print]
  try {
    // `npm run --silent` would also silence npx's errors.
    const env = { ...process.env, npm_config_loglevel: 'error' }
    const { stdout } = await promisify(execFile)('npx', args, { env, timeout: NPX_TIMEOUT_MS })
    const [node, exact] = JSON.parse(stdout) as [string, string]
    // Tests start some programs as `node`.
    const PATH = `${dirname(node)}${delimiter}${process.env.PATH}`
    return { title: `Node ${exact}`, node, env: { PATH } }
  } catch (error) {
    const { killed, stderr, message } = error as Error & { killed?: boolean; stderr?: string }
    const reason = killed
      ? `npx took longer than ${NPX_TIMEOUT_MS / 1_000} s`
      : stderr?.trim().split('\n').slice(0, 2).join(', ') || message
    return { title: `Node ${version}`, problem: `npx cannot install node@${version}: ${reason}` }
  }
}

const runs: SuiteRun[] = []
for (const version of values.only) runs.push(await prepare(version))
const chosen = [...(values.unit ? ['--unit'] : []), ...(values.integration ? ['--integration'] : []), ...positionals]
process.exitCode = (await runSuites(runs, chosen)) ? 0 : 1
