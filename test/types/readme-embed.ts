// The README's example of embedding, so that `npm run check` compiles it; a unit test compares the texts.

import { ClusterManager, type Host, type Transaction, type Write } from '../../lib/index.ts'

const host: Host = {
  info: () => ({ version: '1.0.0' }),
  lastTimestamp: async () => database.highestTimestamp(),
  describe: async () => database.tables(), // { database, table, primaryKey, attributes }
  createTable: (table) => database.createTable(table),
  // Rows and checkpoint in ONE transaction of yours.
  apply: (batch) =>
    database.transaction((tx) => {
      const horizon = batch.acceptOld ? undefined : tx.horizonOf(batch.source)
      for (const { timestamp, writes, voids } of batch.transactions)
        for (const write of writes) tx.merge(write, timestamp, { voids, horizon })
      if (batch.horizon) tx.raiseHorizon(batch.source, batch.horizon)
      tx.put(['checkpoint', batch.source], batch.checkpoint)
      for (const transaction of batch.relay ?? []) tx.append('outbox', transaction)
    }),
  loadCheckpoint: async (source) => database.get(['checkpoint', source]),
  deleteCheckpoint: (source) => database.remove(['checkpoint', source]),
  readRows: async (table, selection) => database.storedRows(table, selection), // with their timestamps
  horizon: async (table) => database.horizonOf(table), // the highest timestamp of a dropped tombstone
  readOutbox: (after) => database.outboxBehind(after), // the outbox, oldest first
  confirmPublished: (confirmation) => database.confirm(confirmation),
  publishedPosition: async (db, table) => database.get(['published', db, table]),
}

const cluster = await ClusterManager.open({ configFile: 'config.yaml', host, password: process.env.CLUSTER_PASSWORD })

async function commit(write: Write) {
  const transaction = await database.transaction((tx) => {
    const transaction: Transaction = {
      id: crypto.randomUUID(),
      timestamp: cluster.timestamp(),
      writes: [tx.apply(write)],
    }
    tx.append('outbox', transaction) // the same transaction as the data
    return transaction
  })
  cluster.publish(transaction).catch(() => {}) // it stays in the outbox until it is confirmed
}

cluster.on('node:added', ({ node, cause }) => console.log(node.name, cause))
const answer = await cluster.execute(requestBody, { superUser: true, username: 'admin' }) // what arrives over HTTP
await cluster.close()

export { answer, commit }
