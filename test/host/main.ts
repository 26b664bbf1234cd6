// `npm run node -- --config FILE`: one node in the foreground, until SIGTERM or SIGINT. With `--progress` it says how far it is with what
// takes long, one JSON object a line.

import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Progress } from '../../lib/index.ts'
import { HostError } from './errors.ts'
import { stderrLogger } from './log.ts'
import { startNode } from './node.ts'

/** One line for people; what went wrong in detail is in the log lines before it. */
function fail(error: unknown): never {
  const { message, hint } = error as { message?: string; hint?: string }
  const what = (message ?? String(error)).trim().replace(/[:.]?$/, '.')
  const line = [what, hint]
    .filter(Boolean)
    .join(' ')
    .replace(/\s*\n\s*/g, ' ')
  process.stderr.write(`${line}\n`)
  process.exit(1)
}

function commandLine(): { configFile: string; showsProgress: boolean } {
  const usage = 'npm run node -- --config FILE'
  try {
    const { values } = parseArgs({
      options: { config: { type: 'string', short: 'c' }, progress: { type: 'boolean', default: false } },
    })
    if (values.config) return { configFile: resolve(values.config), showsProgress: values.progress }
  } catch (error) {
    throw new HostError(500, (error as Error).message, `Usage: ${usage}`)
  }
  throw new HostError(500, 'The configuration file is missing.', `Usage: ${usage}`)
}

async function main(): Promise<void> {
  // A signal that comes during the start takes effect when the start is through: nothing is left half open.
  const reported = new Promise<void>((stop) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop())
  })
  const { configFile, showsProgress } = commandLine()
  const show = (progress: Progress) => void process.stdout.write(`${JSON.stringify(progress)}\n`)
  const node = await startNode(configFile, stderrLogger, showsProgress ? { listeners: { progress: show } } : {})
  const name = node.cluster.manifest.nodeName || 'node'
  process.stdout.write(`${name} ready: ${node.url} (pid ${process.pid})\n`)
  await reported
  await node.close()
  process.exit(0)
}

main().catch(fail)
