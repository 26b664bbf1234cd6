// The entry point of the image: a node until SIGTERM or SIGINT.

import { startNode } from './server.ts'
import { readSettings } from './settings.ts'

// A signal during the start takes effect after the start, so that nothing is left half open.
const stopRequested = new Promise<void>((resolve) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve())
})
const node = await startNode(readSettings(process.env))
await stopRequested
await node.close()
process.exit(0)
