// Run as a process: starts a cluster of the testing kit on real servers, prints its directories as JSON, and waits to be killed.

import { startCluster } from '../../lib/testing.ts'

const { nodes } = await startCluster(1)
process.stdout.write(`${JSON.stringify(nodes.map(({ directory }) => directory))}\n`)
setInterval(() => {}, 60_000)
