// A process with a manager on a database in memory, for tests that kill or stop it or turn its clock; cheaper than the reference server. It
// answers each line of its input, a command as JSON, by a line with the result.

import { createInterface } from 'node:readline'
import { ClusterManager } from '../../lib/index.ts'
import { MemoryHost } from '../../lib/testing.ts'
import { systemTime } from '../../lib/util/timers.ts'
import { clusterPassword } from './cluster.ts'
import type { NodeCommand } from './spawned-commands.ts'

const { configFile, tables } = JSON.parse(process.argv[2]!) as { configFile: string; tables: [string, string][] }
const { now } = systemTime
const host = new MemoryHost({ tables: tables.map(([database, table]) => ({ database, table })) })
const cluster = await ClusterManager.open({ configFile, host, password: clusterPassword })
host.attach(cluster)

function run(request: NodeCommand): unknown {
  switch (request.command) {
    case 'clock':
      systemTime.now = () => now() + request.ms
      return null
    case 'insert':
      return host.insert('dev', request.table, request.record)
    case 'rows':
      return host.records('dev', request.table)
    case 'restamp':
      return cluster.restamp()
    case 'status':
      return { clock: cluster.clock, quarantined: cluster.quarantine.list().length }
  }
}

console.log('open')
// It exits with its parent process, and so do its servers.
process.stdin.on('end', () => process.exit())
createInterface({ input: process.stdin }).on('line', (line) => {
  const answer = Promise.resolve().then(() => run(JSON.parse(line)))
  answer.then(
    (result) => console.log(JSON.stringify({ result })),
    (error) => console.log(JSON.stringify({ error: String(error) })),
  )
})
