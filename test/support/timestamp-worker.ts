// A thread that issues timestamps of a node: `count` of them for each message, which the message's timestamp precedes.

import { parentPort, workerData } from 'node:worker_threads'
import { timestampsFrom } from '../../lib/host/timestamp-source.ts'

const timestamps = timestampsFrom(workerData)
parentPort!.on('message', (count: number) =>
  parentPort!.postMessage(Array.from({ length: count }, () => timestamps.timestamp())),
)
