// Opens a manager with another configuration file in the directory of a running node, and prints the code of the error.

import { ClusterError, ClusterManager } from '../../lib/index.ts'
import { MemoryHost } from '../../lib/testing.ts'
import { clusterPassword } from '../support/cluster.ts'

try {
  const configFile = process.argv[2]!
  const cluster = await ClusterManager.open({ configFile, host: new MemoryHost(), password: clusterPassword })
  await cluster.close()
  process.stdout.write('opened')
} catch (error) {
  process.stdout.write(error instanceof ClusterError ? error.code : String(error))
}
