// A process with a manager on a database in memory, for tests that kill or stop it; cheaper than the reference server.

import { ClusterManager } from '../../lib/index.ts'
import { clusterPassword } from './cluster.ts'
import { MemoryHost } from './memory-host.ts'

const { configFile, tables } = JSON.parse(process.argv[2]!) as { configFile: string; tables: [string, string][] }
const host = new MemoryHost(tables)
await ClusterManager.open({ configFile, host, password: clusterPassword })
console.log('open')
// It exits with its parent process, and so do its servers.
process.stdin.on('end', () => process.exit()).resume()
