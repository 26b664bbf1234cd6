// The README's example of dropping tombstones, so that `npm run check` compiles it; a unit test compares the texts.

import type { ClusterManager, TableName, Timestamp } from '../../lib/index.ts'

const INTERVAL_MS = 3_600_000

async function dropTombstones(cluster: ClusterManager, table: TableName) {
  for await (const keys of database.keysInChunks(table, 1_000)) {
    const limit = cluster.tombstoneLimit() // again for each chunk
    if (limit === undefined) return // the clock of this node is ahead: not now
    await database.transaction((tx) => {
      let highest: Timestamp | undefined
      for (const key of keys) {
        const row = tx.storedRow(table, key) // it may have been written since it was read
        if (!row || row.record || row.timestamp >= limit) continue
        tx.removeRow(table, key)
        if (highest === undefined || row.timestamp > highest) highest = row.timestamp
      }
      if (highest !== undefined) tx.raiseHorizon(table, highest) // the same transaction
    })
  }
}

setInterval(() => dropTombstones(cluster, { database: 'dev', table: 'dog' }).catch(console.error), INTERVAL_MS).unref()
