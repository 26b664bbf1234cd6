// Log lines as JSON on stderr, from `warn` on: stdout is for the one line that says the node is ready.

import type { Logger } from '../../lib/index.ts'

type Level = 'warn' | 'error'

const line = (level: Level) => (details: object, message: string) => {
  // Errors have no enumerable properties: their text would be lost.
  const entries = Object.entries(details).map(([name, value]) => [name, value instanceof Error ? value.stack : value])
  const text = JSON.stringify({ level, time: new Date().toISOString(), message, ...Object.fromEntries(entries) })
  process.stderr.write(`${text}\n`)
}

export const stderrLogger: Logger = { debug() {}, info() {}, warn: line('warn'), error: line('error') }
