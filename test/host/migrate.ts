// `npm run migrate`: brings the configuration and the rows of a HarperDB node to a node of this database, and compares nodes. Reads from
// HarperDB only. The passwords are in the environment, because other users of the machine see command lines.

import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Route } from '../../lib/index.ts'
import { compareNodes, type HarperLogin, type MigrationStep, migrate } from '../../lib/migrate.ts'
import { Database } from './database.ts'
import { HostError } from './errors.ts'
import { LmdbHost } from './lmdb-host.ts'

const usage = `npm run migrate -- --harperdb FILE --directory DIR [options]
       npm run migrate -- compare URL URL [--user NAME]
  --harperdb FILE         the harperdb-config.yaml of the node
  --directory DIR         directory of the new node; its configuration will be DIR/config.yaml
  --api URL               operations API of the node. Default: the port of the file, on this machine
  --user NAME             super user of HarperDB. Default: HDB_ADMIN
  --dry-run               reads and checks everything, changes nothing
  --final                 no program writes to this node any more
  --overlap MINUTES       how long before the first pass the streams of other nodes are read from. Default: 60
  --new-streams           begin empty streams, instead of those of HarperDB
  --address NODE=HOST:PORT  address of the hub of another node
  --node-api NODE=URL     operations API of another node
  --no-compare            compares with no other node, so that the password is sent to none
  Environment: HARPERDB_PASSWORD of the super user, CLUSTER_PASSWORD of the cluster user`

const options = {
  harperdb: { type: 'string' },
  directory: { type: 'string' },
  api: { type: 'string' },
  user: { type: 'string', default: 'HDB_ADMIN' },
  'dry-run': { type: 'boolean', default: false },
  final: { type: 'boolean', default: false },
  overlap: { type: 'string', default: '60' },
  'new-streams': { type: 'boolean', default: false },
  address: { type: 'string', multiple: true, default: [] as string[] },
  'no-compare': { type: 'boolean', default: false },
  'node-api': { type: 'string', multiple: true, default: [] as string[] },
} as const

const invalid = (text: string) => new HostError(500, text, `Usage: ${usage}`)

function readArguments() {
  try {
    return parseArgs({ options, allowPositionals: true })
  } catch (error) {
    throw invalid((error as Error).message)
  }
}
type Values = ReturnType<typeof readArguments>['values']

function password(variable: string): string {
  const value = process.env[variable]
  if (!value) throw invalid(`${variable} is not set.`)
  return value
}

function pairs(option: string, values: readonly string[]): [string, string][] {
  return values.map((value) => {
    const at = value.indexOf('=')
    if (at < 1) throw invalid(`--${option} must be NODE=..., received '${value}'.`)
    return [value.slice(0, at), value.slice(at + 1)]
  })
}

function toRoute(text: string): Route {
  const match = /^(.+):(\d+)$/.exec(text)
  if (!match) throw invalid(`--address must be NODE=HOST:PORT, received '${text}'.`)
  return { host: match[1]!.replace(/^\[(.*)\]$/, '$1'), port: Number(match[2]) }
}

function minutes(text: string): number {
  if (!/^\d+$/.test(text)) throw invalid(`--overlap must be a number of minutes, received '${text}'.`)
  return Number(text)
}

function print({ state, step, message, details }: MigrationStep): void {
  const mark = state === 'done' ? 'ok     ' : state
  const { text, examples } = (details ?? {}) as { text?: string; examples?: unknown[] }
  process.stdout.write(`${mark} ${step}: ${message}\n`)
  if (text) process.stdout.write(text.replace(/^/gm, '        ').trimEnd().concat('\n'))
  for (const example of examples ?? []) process.stdout.write(`        ${JSON.stringify(example)}\n`)
}

/** True when no step had a problem. */
async function migrateNode(values: Values, stop: AbortSignal): Promise<boolean> {
  const { harperdb, directory, user, api } = values
  if (!harperdb || !directory) throw invalid('--harperdb and --directory are required.')
  const [harper, clusterPassword] = [password('HARPERDB_PASSWORD'), password('CLUSTER_PASSWORD')]
  const parsed = {
    overlap: minutes(values.overlap) * 60_000,
    addresses: Object.fromEntries(pairs('address', values.address).map(([node, text]) => [node, toRoute(text)])),
    apiUrls: Object.fromEntries(pairs('node-api', values['node-api'])),
  }
  const rootPath = resolve(directory)
  const isDry = values['dry-run']
  const database = isDry ? undefined : await Database.open(resolve(rootPath, 'database'))
  try {
    const { steps } = await migrate({
      harperConfigFile: resolve(harperdb),
      harper: { ...(api !== undefined && { url: api }), username: user, password: harper },
      clusterPassword,
      configFile: resolve(rootPath, 'config.yaml'),
      rootPath,
      ...(database && { host: new LmdbHost(database, '1.0.0') }),
      // The form of test/host/config.ts: the super user of HarperDB stays one, and the cluster user gets no rights here.
      hostKeys: (clusterUser) => ({
        users: [
          { username: user, password: harper, role: 'super_user' },
          ...(clusterUser === user ? [] : [{ username: clusterUser, password: clusterPassword, role: 'cluster_user' }]),
        ],
      }),
      ...parsed,
      streams: values['new-streams'] ? 'new' : 'keep',
      compareNeighbours: !values['no-compare'],
      dryRun: isDry,
      writersStopped: values.final,
      signal: stop,
      onStep: print,
    })
    return steps.every(({ state }) => state !== 'problem')
  } finally {
    await database?.close()
  }
}

/** True when there are tables that both have, and all of these are equal. */
async function compare(urls: string[], { user }: Values, signal: AbortSignal): Promise<boolean> {
  const [here, there] = urls.map(
    (url): HarperLogin => ({ url, username: user, password: password('HARPERDB_PASSWORD') }),
  )
  if (!here || !there || urls.length > 2) throw invalid('compare needs two URLs.')
  const compared = await compareNodes({ here, there, signal, onStep: print })
  return (
    compared.length > 0 &&
    compared.every(({ missingHere, missingThere, different }) => missingHere + missingThere + different === 0)
  )
}

async function main(): Promise<void> {
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())
  const { values, positionals } = readArguments()
  const [command, ...urls] = positionals
  if (command !== undefined && command !== 'compare') throw invalid(`Unknown command '${command}'.`)
  const isDone = command ? await compare(urls, values, stop.signal) : await migrateNode(values, stop.signal)
  process.exitCode = isDone ? 0 : 1
}

main().catch((error: { message?: string; hint?: string }) => {
  process.stderr.write(`${[error.message ?? error, error.hint].filter(Boolean).join('\n')}\n`)
  process.exit(1)
})
