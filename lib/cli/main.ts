#!/usr/bin/env node
// The command `enmesh`.

import { run } from './run.ts'

const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of a pipe may end first, as `head` does: what was found out stays the result.
  if (error.code === 'EPIPE') process.exit()
  process.stderr.write(`The output cannot be written: ${error.message}\n`)
  process.exit(2)
})

process.exitCode = await run(process.argv.slice(2), {
  print: (text) => void process.stdout.write(text),
  printError: (text) => void process.stderr.write(text),
  environment: process.env,
  terminal: process.stdout.isTTY ? process.stdout : undefined,
  signal: stop.signal,
})
