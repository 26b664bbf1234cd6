// The README's example of a migration, so that `npm run check` compiles it; a unit test compares the texts.

import { migrate } from '../../lib/migrate.ts'

const { isComplete } = await migrate({
  harperConfigFile: '/home/harperdb/hdb/harperdb-config.yaml',
  harper: { username: 'HDB_ADMIN', password: process.env.HARPERDB_PASSWORD! },
  clusterPassword: process.env.CLUSTER_PASSWORD!,
  configFile: '/var/lib/node1/config.yaml',
  rootPath: '/var/lib/node1',
  host, // without it, only the configuration is written
  writersStopped: true, // the final pass
  compareNeighbours: false, // sends the password of `harper` to no other node
  onStep: ({ state, step, message }) => console.log(state, step, message),
})
if (isComplete) console.log('HarperDB may be stopped')
