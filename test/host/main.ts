// `npm run node -- --config FILE`: runs one node in the foreground until SIGTERM or SIGINT. With `--progress` it prints the progress of
// long tasks, one JSON object a line.

import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Progress } from '../../lib/index.ts'
import { HostError } from './errors.ts'
import { stderrLogger } from './log.ts'
import { startNode } from './node.ts'

/** Prints one line for humans; the log lines before it have the details. */
function fail(error: unknown): never {
  const { message, hint } = error as { message?: string; hint?: string }
  const text = (message ?? String(error)).trim().replace(/[:.]?$/, '.')
  const line = [text, hint]
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
  // A signal during the start takes effect after the start, so that nothing is left half open.
  const stopRequested = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve())
  })
  const { configFile, showsProgress } = commandLine()
  const print = (progress: Progress) => void process.stdout.write(`${JSON.stringify(progress)}\n`)
  const node = await startNode(configFile, stderrLogger, showsProgress ? { listeners: { progress: print } } : {})
  const name = node.cluster.manifest.nodeName || 'node'
  process.stdout.write(`${name} ready: ${node.url} (pid ${process.pid})\n`)
  await stopRequested
  await node.close()
  process.exit(0)
}

main().catch(fail)
