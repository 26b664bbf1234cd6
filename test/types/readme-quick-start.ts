// The quick start of the README, so that `npm run check` compiles it; a unit test compares the texts.

import { openDatabase } from '../examples/map-host.ts'

const directory = process.argv[2]!
const { host, cluster, commit } = await openDatabase({ configFile: `${directory}/config.yaml`, password: 'secret' })
const dog = { database: 'dev', table: 'dog' }
await host.createTable({ ...dog, primaryKey: 'id', attributes: ['id', 'time'] })

setInterval(async () => {
  await commit({ operation: 'upsert', ...dog, records: [{ id: directory, time: new Date().toISOString() }] })
  console.log(host.records())
}, 1_000)

process.once('SIGINT', async () => {
  await cluster.close() // ends the two servers of the node
  process.exit()
})
