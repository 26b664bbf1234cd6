// One node: database, cluster manager and HTTP API, put together from one YAML file. This is how a host mounts the module.

import { join } from 'node:path'
import { ClusterManager, type ClusterOptions, type Logger } from '../../lib/index.ts'
import { readConfig } from './config.ts'
import { Database } from './database.ts'
import { HostError } from './errors.ts'
import { LmdbHost } from './lmdb-host.ts'
import { stderrLogger } from './log.ts'
import { makeServer } from './server.ts'
import { Users } from './users.ts'

const VERSION = '1.0.0'

export type Node = {
  /** Of the operations API. */
  url: string
  cluster: ClusterManager
  database: Database
  /** In this order: no new requests, then the cluster, then the database, on which both rely. Idempotent. */
  close(): Promise<void>
}

/** `options` are the manager's. Rejects with HostError or ClusterError, with nothing left open. */
export async function startNode(
  configFile: string,
  logger: Logger = stderrLogger,
  options: Pick<ClusterOptions, 'mesh' | 'listeners'> = {},
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

    // The manager asks the host from the start; the database can give stamps only when the manager is there.
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
    database.publish = (transaction) => cluster.publish(transaction)

    const server = makeServer({ database, cluster, users: new Users(config.users), logger })
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

/** All of them, in order, even if one fails; then the first failure. */
async function closeAll(closers: (() => Promise<unknown>)[]): Promise<void> {
  const failures: unknown[] = []
  for (const close of closers) await close().catch((error: unknown) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}
