// Checks of the examples of deployment with foreign tools: schemas from npm, Prometheus from Debian, systemd-analyze of this machine.

import { execFile } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { checkPrometheus } from './prometheus-check.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const examples = join(root, 'test', 'examples', 'deploy')
const TIMEOUT_MS = 120_000

type Failure = Error & { code?: string | number; stdout?: string; stderr?: string }

/** Undefined if the command succeeds, otherwise its output. Rejects if it is not installed. */
async function faultOf(command: string, args: readonly string[], cwd: string): Promise<string | undefined> {
  try {
    await promisify(execFile)(command, args, { cwd, timeout: TIMEOUT_MS })
    return undefined
  } catch (error) {
    const { code, stdout = '', stderr = '', message } = error as Failure
    if (code === 'ENOENT') throw new Error(`${command} is not installed`)
    return `${command} ${args.join(' ')}\n${stdout}${stderr || message}`
  }
}

/** Schemas of Kubernetes and Compose, and a linter of Dockerfiles: `directory` has the packages. */
async function checkSchemas(directory: string): Promise<(string | undefined)[]> {
  const types = join(directory, 'resources.ts')
  const schemas = await faultOf(process.execPath, ['tools/check-deploy.js', examples, types], directory)
  const options = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', types]
  return [schemas, await faultOf(join(root, 'node_modules', '.bin', 'tsc'), options, directory)]
}

/** The directory of promtool and prometheus with a final slash: empty for the PATH, otherwise Debian's package, unpacked below `directory`. */
async function prometheusPrograms(directory: string): Promise<string> {
  const isInstalled = await Promise.all(
    ['promtool', 'prometheus'].map((name) => faultOf(name, ['--version'], directory)),
  ).then(
    () => true,
    () => false,
  )
  if (isInstalled) return ''
  const fault = await faultOf('apt-get', ['download', 'prometheus'], directory)
  if (fault !== undefined) throw new Error(fault)
  const file = (await readdir(directory)).find((name) => name.endsWith('.deb'))!
  await promisify(execFile)('dpkg-deb', ['-x', file, 'unpacked'], { cwd: directory })
  return join(directory, 'unpacked', 'usr', 'bin', '/')
}

async function checkAlerts(directory: string): Promise<(string | undefined)[]> {
  const programs = await prometheusPrograms(directory)
  return [
    await faultOf(`${programs}promtool`, ['check', 'rules', 'alerts.yaml'], examples),
    await faultOf(`${programs}promtool`, ['test', 'rules', 'alerts.test.yaml'], examples),
    ...(await checkPrometheus(`${programs}prometheus`, directory, examples)),
  ]
}

/** With the path of this Node, because systemd looks for the program. */
async function checkService(directory: string): Promise<(string | undefined)[]> {
  const text = await readFile(join(examples, 'enmesh-node.service'), 'utf8')
  const file = join(directory, 'enmesh-node.service')
  await writeFile(file, text.replace('/usr/bin/node', process.execPath))
  return [await faultOf('systemd-analyze', ['verify', file], directory)]
}

/** Runs all checks. `skipped` is called with the reason for each that cannot run on this machine. */
export async function checkDeploy(directory: string, skipped: (reason: string) => void): Promise<string[]> {
  const faults: (string | undefined)[] = await checkSchemas(directory)
  for (const check of [checkAlerts, checkService])
    try {
      faults.push(...(await check(directory)))
    } catch (error) {
      skipped(`${check.name} did not run: ${(error as Error).message}`)
    }
  return faults.filter((fault) => fault !== undefined)
}
