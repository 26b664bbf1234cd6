// The process of a node in a fault run: the reference host with a journal, a manager, and writers.

import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ClusterError, ClusterManager, type Logger } from '../../lib/index.ts'
import { systemTime } from '../../lib/util/timers.ts'
import { Database } from '../host/database.ts'
import { clusterPassword } from '../support/cluster.ts'
import { randomNumbers } from '../support/random.ts'
import { DatabaseFaults, faultyHost } from './faulty-host.ts'
import { recordIncidents } from './incidents.ts'
import { createJournal, JournalHost } from './journal.ts'
import { recordMarker } from './markers.ts'
import type { FromNode, NodeSetup, ToNode } from './messages.ts'
import { DATABASE, keyOf, type Restamped, TABLES, write } from './writes.ts'

const WRITERS = 2
/** Maximum ms between two writes of one writer. */
const PAUSE = 40
/** Some writes come in bursts, which leave together: positions are inside messages then, and batches end there. */
const BURST = { chance: 0.02, most: 60, batch: 32 }
/** ms. Less than a database hangs at most, so that calls end after their time limit. */
const HOST_TIMEOUT = 2_000
/** On a loaded machine all rows take longer than `HOST_TIMEOUT`. */
const RESTAMP_TIMEOUT = 30_000

const setup = JSON.parse(process.argv[2]!) as NodeSetup
const trueTime = Date.now
let clockOffset = 0
// The clock of enmesh, and that of the database.
systemTime.now = Date.now = () => trueTime() + clockOffset

const tell = (message: FromNode) => {
  if (process.connected) process.send!(message)
}
const violation = (text: string) => tell({ tell: 'violation', text: `${setup.name}: ${text}` })
process.on('unhandledRejection', (error) => violation(`unhandled rejection: ${(error as Error)?.stack ?? error}`))

const line = (level: string) => (details: object, message: string) => {
  const plain = Object.entries(details).map(([name, value]) => [name, value instanceof Error ? value.stack : value])
  const time = new Date(trueTime()).toISOString()
  process.stderr.write(`${time} ${level} ${message} ${JSON.stringify(Object.fromEntries(plain))}\n`)
}
const logger: Logger = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }

const database = await Database.open(join(setup.directory, 'database'))
await createJournal(database)
for (const table of TABLES) await database.createTable({ database: DATABASE, table, primaryKey: 'id', attributes: [] })
let written = 0
const nextKey = () => keyOf(setup.name, setup.start, ++written)
const host = new JournalHost(database, {
  start: setup.start,
  now: trueTime,
  applied: ({ node, table, at, key }) => tell({ tell: 'applied', source: node, table, at, last: key }),
  announcing: (marker) => recordMarker(setup.directory, marker),
  nextKey,
})
const databaseFaults = new DatabaseFaults()
const cluster = await ClusterManager.open({
  configFile: setup.configFile,
  host: faultyHost(host, databaseFaults),
  hostTimeout: HOST_TIMEOUT,
  maxBatch: BURST.batch,
  logger,
  password: clusterPassword,
  maxClockDrift: setup.maxClockDrift,
  // A full quarantine stalls the subscription; in this run all transactions of wrong clocks stay in quarantine until the end.
  maxQuarantined: 100_000,
})
recordIncidents(setup.directory, cluster.events, () => host.lastEntry)
cluster.on('subscription:state', (change) => logger.info(change, 'subscription:state'))
cluster.on('listener:failed', ({ event, error }) => violation(`a listener of ${event} failed: ${error}`))
database.timestamp = () => cluster.timestamp()
database.publish = async (transaction) => {
  try {
    await cluster.publish(transaction)
  } catch (error) {
    const expected = error instanceof ClusterError && (error.code === 'publish_timeout' || error.code === 'closed')
    if (!expected) violation(`publish rejected: ${(error as Error)?.stack ?? error}`)
  }
}

let writing = false

/** Repeats a write that a restamp refuses. */
async function writeOnce(random: () => number, tables: readonly string[]): Promise<string> {
  const key = nextKey()
  try {
    await write(database, key, random, tables)
  } catch (error) {
    if (!(error instanceof ClusterError && error.code === 'restamping')) throw error
    await delay(PAUSE)
    return writeOnce(random, tables)
  }
  tell({ tell: 'acknowledged', key, tables: [...tables] })
  return key
}

const tablesOf = (random: () => number): readonly string[] =>
  random() < 0.2 ? TABLES : [TABLES[Math.trunc(random() * TABLES.length)]!]

async function writer(number: number): Promise<void> {
  const random = randomNumbers(setup.seed + 1000 * setup.start + number)
  for (;;) {
    await delay(random() * PAUSE)
    if (!writing) continue
    const count = random() < BURST.chance ? Math.ceil(random() * BURST.most) : 1
    await Promise.all(Array.from({ length: count }, () => writeOnce(random, tablesOf(random))))
  }
}

/**
 * Repeats a restamp that did not end in time, as an operator does. The first one may have been committed later, and the next one then
 * has what was written in between, or nothing.
 */
async function restamp(): Promise<Restamped[]> {
  const before = host.restamps.length
  const end = Date.now() + RESTAMP_TIMEOUT
  for (;;) {
    try {
      await cluster.restamp()
      return host.restamps.slice(before)
    } catch (error) {
      if (!(error instanceof ClusterError && error.code === 'host_timeout') || Date.now() > end) throw error
      await delay(PAUSE)
    }
  }
}

async function answer(request: ToNode): Promise<unknown> {
  switch (request.ask) {
    case 'write':
      writing = request.on
      return
    case 'clock':
      clockOffset = request.offset
      return
    case 'restamp':
      return restamp()
    case 'database':
      databaseFaults.set(request.fault)
      return
    case 'mark':
      return writeOnce(() => 1, TABLES)
    case 'replay':
      for (const { source } of cluster.subscriptions()) await cluster.quarantine.replay(source)
      return cluster.quarantine.list().length
    case 'subscriptions':
      return cluster.subscriptions()
    case 'verify':
      return cluster.verify({ node: request.node, database: DATABASE, table: request.table })
    case 'remove':
      await cluster.removeNode({ node_name: request.node })
      return
    case 'purge':
      await cluster.purgeStream({ database: DATABASE, table: request.table, options: { keep: request.keep } })
      return
  }
}

process.on('message', async (request: ToNode) => {
  const { number } = request
  try {
    const value = await answer(request)
    tell({ tell: 'answer', number, ...(value === undefined ? {} : { value }) })
  } catch (error) {
    tell({ tell: 'answer', number, error: (error as Error)?.stack ?? String(error) })
  }
})

let closing: Promise<void> | undefined
async function close(): Promise<void> {
  writing = false
  await cluster.close()
  await database.close()
  process.exit(0)
}
const closeOnce = () => {
  closing ??= close().catch((error) => {
    violation(`could not close: ${error?.stack ?? error}`)
    process.exit(1)
  })
}
for (const signal of ['SIGTERM', 'disconnect'] as const) process.on(signal, closeOnce)
// The run may have ended while the manager was opening.
if (!process.connected) closeOnce()

for (let number = 0; number < WRITERS; number++)
  writer(number).catch((error) => {
    if (!closing) violation(`a write failed: ${error?.stack ?? error}`)
  })
tell({ tell: 'ready' })
