// A process that locks a directory, prints `held` or the error, and keeps the lock until its input ends. With the path of a file it prints
// `ready` first and waits for that file. `cluster`: two workers of Node's cluster try it. `contend`: it locks and releases the directory until
// the file is gone, and prints how often it held the lock, or `violation` when another process held it too.

import cluster from 'node:cluster'
import { existsSync, mkdirSync, rmdirSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { ClusterError } from '../../lib/errors.ts'
import { lockDirectory } from '../../lib/util/directory-lock.ts'

const owner = `/etc/${process.pid}.yaml`
const [directory = '', start = '', mode] = process.argv.slice(2)

/** Resolves with the number of times that the lock was held. */
async function contend(): Promise<number> {
  let held = 0
  while (existsSync(start)) {
    const lock = await lockDirectory(directory, { owner }).catch(() => undefined)
    if (!lock) continue
    held++
    // Throws when it exists: another process has the lock.
    mkdirSync(`${start}.held`)
    await delay(2)
    rmdirSync(`${start}.held`)
    await lock.release()
  }
  return held
}

if (start) {
  process.stdout.write('ready\n')
  while (!existsSync(start)) await delay(1)
}
if (mode === 'contend') {
  process.stdout.write(`${await contend().catch((error) => `violation ${error}`)}\n`)
} else if (mode === 'cluster' && cluster.isPrimary) {
  for (let index = 0; index < 2; index++) cluster.fork()
  process.stdin.on('end', () => process.exit()).resume()
} else {
  try {
    await lockDirectory(directory, { owner })
    process.stdout.write('held\n')
    // A worker ends with its primary process.
    if (cluster.isPrimary) process.stdin.on('end', () => process.exit()).resume()
    else setInterval(() => {}, 60_000)
  } catch (error) {
    const { code, message } = error as ClusterError
    process.stdout.write(`${code} ${message}\n`)
    if (cluster.isWorker) process.disconnect()
  }
}
