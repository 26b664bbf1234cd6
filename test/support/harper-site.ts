// A HarperDB node to migrate from: its simulated operations API, its configuration file, and a directory for the new node.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { planMigration } from '../../lib/migrate/plan.ts'
import { type MigrationOptions, type MigrationResult, migrate } from '../../lib/migrate.ts'
import { MemoryHost } from '../../lib/testing.ts'
import { clusterPassword, clusterUser, temporaryDirectory } from './cluster.ts'
import { HarperHttp, harperLogin } from './harper-http.ts'
import type { HarperTableOptions } from './harper-rows.ts'

export { migrate, planMigration }

/** Time of the rows in tests, ms since 1970. */
export const ROW_TIME = 1_700_000_000_000
export const dogs: HarperTableOptions = { database: 'dev', table: 'dog', primaryKey: 'id' }

export type HarperSite = {
  harper: HarperHttp
  host: MemoryHost
  directory: string
  harperFile: string
  configFile: string
  /** The options of a migration: the hub does not answer. */
  options: MigrationOptions
  migrate(more?: Partial<MigrationOptions>): Promise<MigrationResult>
}

export async function harperSite(
  test: { after(work: () => unknown): void },
  {
    name = 'node1',
    tables = [dogs],
    clustering = {},
    hasMessagePack = true,
  }: { name?: string; tables?: HarperTableOptions[]; clustering?: object; hasMessagePack?: boolean } = {},
): Promise<HarperSite> {
  const [directory, remove] = await temporaryDirectory()
  test.after(remove)
  const harper = await HarperHttp.start(test, { name, tables, hasMessagePack })
  const harperFile = join(directory, 'harperdb-config.yaml')
  const configFile = join(directory, 'new', 'config.yaml')
  await writeFile(
    harperFile,
    stringify({
      authentication: { sessionSigningKey: 'secret of the host' },
      rootPath: join(directory, 'hdb'),
      operationsApi: { network: { port: harper.port } },
      clustering: {
        enabled: true,
        nodeName: name,
        user: clusterUser,
        databaseLevel: false,
        logLevel: 'error',
        republishMessages: false,
        // Port 1: nobody listens there.
        hubServer: { cluster: { name: 'harperdb', network: { port: 9932, routes: null } }, network: { port: 1 } },
        leafServer: { streams: { maxAge: null, path: null } },
        tls: { certificate: null, certificateAuthority: null, privateKey: null, insecure: true, verify: true },
        ...clustering,
      },
    }),
  )
  const host = new MemoryHost()
  const options: MigrationOptions = {
    harperConfigFile: harperFile,
    harper: { ...harperLogin, patience: 300 },
    clusterPassword,
    configFile,
    rootPath: join(directory, 'new'),
    host,
    settle: 5,
  }
  return {
    harper,
    host,
    directory,
    harperFile,
    configFile,
    options,
    migrate: (more) => migrate({ ...options, ...more }),
  }
}
