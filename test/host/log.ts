// Log lines of levels `warn` and `error` as JSON on stderr. stdout has only the line that reports that the node is ready.

import type { Logger } from '../../lib/index.ts'

type Level = 'warn' | 'error'

const line = (level: Level) => (details: object, message: string) => {
  // Errors have no enumerable properties, so JSON.stringify would drop their text.
  const entries = Object.entries(details).map(([name, value]) => [name, value instanceof Error ? value.stack : value])
  const text = JSON.stringify({ level, time: new Date().toISOString(), message, ...Object.fromEntries(entries) })
  process.stderr.write(`${text}\n`)
}

export const stderrLogger: Logger = { debug() {}, info() {}, warn: line('warn'), error: line('error') }
