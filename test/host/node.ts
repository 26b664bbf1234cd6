// One node: database, cluster manager and HTTP API, configured by one YAML file. An example of how to embed the module.

import { join } from 'node:path'
import { ClusterManager, type ClusterOptions, type Logger } from '../../lib/index.ts'
import { statusPage } from '../../lib/status-page.ts'
import { readConfig } from './config.ts'
import { Database } from './database.ts'
import { HostError } from './errors.ts'
import { LmdbHost } from './lmdb-host.ts'
import { stderrLogger } from './log.ts'
import { createServer } from './server.ts'
import { dropTombstonesRegularly } from './tombstones.ts'
import { Users } from './users.ts'

const VERSION = '1.0.0'
/** ms */
const TOMBSTONE_INTERVAL = 3_600_000

export type Node = {
  /** URL of the operations API. */
  url: string
  cluster: ClusterManager
  database: Database
  /** Closes the API, then the cluster, then the database, which both use. Idempotent. */
  close(): Promise<void>
}

export type NodeOptions = Pick<ClusterOptions, 'mesh' | 'listeners' | 'tombstoneAge'> & {
  /** ms between two passes over all tables that drop old tombstones. Default: an hour. */
  tombstoneInterval?: number
}

/** `options` are passed to the cluster manager. Rejects with HostError or ClusterError, and leaves nothing open then. */
export async function startNode(
  configFile: string,
  logger: Logger = stderrLogger,
  { tombstoneInterval: interval = TOMBSTONE_INTERVAL, ...options }: NodeOptions = {},
): Promise<Node> {
  const config = await readConfig(configFile)
  const closers: (() => Promise<unknown>)[] = []
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= closeAll(closers)
    return closing
  }
  try {
    const database = await Database.open(join(config.rootPath, 'database'), logger)
    closers.unshift(() => database.close())
    database.logsConflicts = config.logConflicts

    // The manager needs the host to open; the database gets its clock from the open manager.
    const host = new LmdbHost(database, VERSION)
    const { clusterPassword: password } = config
    const cluster = await ClusterManager.open({
      configFile,
      host,
      logger,
      ...options,
      ...(password !== undefined && { password }),
    })
    closers.unshift(() => cluster.close())
    database.timestamp = () => cluster.timestamp()
    database.isRecording = () => cluster.manifest.enabled
    database.publish = (transaction) => cluster.publish(transaction)
    database.tableDropped = (table) => cluster.tableDropped(table)

    closers.unshift(dropTombstonesRegularly({ database, cluster, interval, logger }))

    const server = createServer({
      database,
      cluster,
      users: new Users(config.users),
      logger,
      statusPage: statusPage(cluster.view, { path: '/status' }),
    })
    closers.unshift(() => server.close())
    const url = await server.listen({ host: '127.0.0.1', port: config.port }).catch((error) => {
      throw new HostError(
        500,
        `The operations API cannot listen on port ${config.port}: ${(error as Error).message}`,
        'Free the port, or set operationsApi.network.port.',
      )
    })
    host.operationsApiPort = Number(new URL(url).port)
    return { url, cluster, database, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Runs all in order, even if one fails; then throws the first failure. */
async function closeAll(closers: (() => Promise<unknown>)[]): Promise<void> {
  const failures: unknown[] = []
  for (const close of closers) await close().catch((error: unknown) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}
