// The README's example of the network in memory, so that `npm run check` compiles it; a unit test compares the texts.

import { ClusterManager } from '../../lib/index.ts'
import { MemoryNetwork } from '../../lib/testing.ts'

const network = new MemoryNetwork()
const one = await ClusterManager.open({ configFile: 'one/config.yaml', host: hostOne, mesh: network.mesh() })
const two = await ClusterManager.open({ configFile: 'two/config.yaml', host: hostTwo, mesh: network.mesh() })
network.cut('node1', 'node2', { silent: true })
// ... write on both ...
network.heal()

export { one, two }
