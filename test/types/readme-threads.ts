// The README's example of a worker thread, so that `npm run check` compiles it; a unit test compares the texts.

import { parentPort, workerData } from 'node:worker_threads'
import { timestampsFrom } from '../../lib/index.ts'

const timestamps = timestampsFrom(workerData.timestamps) // of cluster.timestampSource()

parentPort!.on('message', async (write) => {
  const transaction = await database.transaction((tx) => {
    const transaction = { id: crypto.randomUUID(), timestamp: timestamps.timestamp(), writes: [tx.apply(write)] }
    tx.append('outbox', transaction)
    return transaction
  })
  parentPort!.postMessage(transaction) // the thread of the manager calls cluster.publish(transaction)
})
