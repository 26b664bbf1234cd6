// The program of a node that kills itself at a place in the replacement of a table, and holds its outbox back. Files in the directory of
// its configuration say so, so that they take effect while it runs.

import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Batch, EmptiedTable } from '../../lib/index.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { EMPTIED_FILE, HOLD_FILE, KILLED_AFTER, PLACE_FILE, type Place } from './killed-node-places.ts'

const directory = dirname(process.argv[process.argv.indexOf('--config') + 1]!)

function killAt(place: Place): void {
  const path = join(directory, PLACE_FILE)
  if (existsSync(path) && readFileSync(path, 'utf8') === place) process.kill(process.pid, 'SIGKILL')
}

const { apply, emptyTable, readOutbox } = LmdbHost.prototype

LmdbHost.prototype.emptyTable = async function (this: LmdbHost, emptied: EmptiedTable) {
  killAt('before the table is emptied')
  await emptyTable.call(this, emptied)
  appendFileSync(join(directory, EMPTIED_FILE), `${emptied.source.table}\n`)
  killAt('table emptied')
}

LmdbHost.prototype.apply = async function (this: LmdbHost, batch: Batch) {
  const result = await apply.call(this, batch)
  if (batch.isCopy && (batch.checkpoint.copy?.rows ?? 0) >= KILLED_AFTER) killAt('rows copied')
  return result
}

LmdbHost.prototype.readOutbox = async function* (this: LmdbHost, after) {
  for await (const transaction of readOutbox.call(this, after)) {
    while (existsSync(join(directory, HOLD_FILE))) await delay(20)
    yield transaction
  }
}

await import('../host/main.ts')
