// The configuration files of a node's two servers, as pure functions of the node's settings: JSON, with the server's own escapes.

import type { Route } from '../mesh.ts'
import { supports, type Version } from './versions.ts'

export type Tls = {
  /** Absolute paths of PEM files. */
  certificate: string
  certificateAuthority: string
  privateKey: string
  /** Accept invalid certificates of servers that the node connects to. */
  insecure: boolean
  /** Require a valid certificate of connecting peers. */
  verify: boolean
}

/** Settings of both servers of a node. Ports 1 to 65535. */
export type ServerSettings = {
  node: string
  user: string
  password: string
  clusterName: string
  /** The address the hub listens on for other nodes. */
  listen: string
  ports: { cluster: number; leafNodes: number; hub: number; leaf: number }
  tls?: Tls | undefined
  logLevel: string
  storeDirectory: string
  /** How often the leaf syncs its store to disk: a duration as nats-server reads it (`10s`), or `always`. Default: the server's, 2 minutes. */
  sync?: string | undefined
  /** Compression between hubs: `off`, `accept`, `s2_auto`, `s2_fast`, `s2_better` or `s2_best`. Default: the server's, `accept`. */
  routeCompression?: string | undefined
}

/**
 * The server reserves every stream's `maxBytes` in full: if the limits exceed the store's size, it rejects the next table. So the
 * store's size is the largest number that JSON carries, and free disk space is checked instead (`store-health.ts`).
 */
const MAX_FILE_STORE_BYTES = Number.MAX_SAFE_INTEGER
/** 64 MB, as in HarperDB. */
export const MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
/** The server's file store accepts a record beyond 32 MiB and cannot read it again. */
export const MAX_STORED_BYTES = 32 * 1024 * 1024 - 1024
/** Queued messages and bytes beyond which a stream drops messages (status 429). The publisher keeps less than this in flight. */
const INGEST_LIMIT = { max_buffered_msgs: 1_000_000, max_buffered_size: 4 * 1024 ** 3 }

export const hubName = (node: string) => `${node}-hub`
export const leafName = (node: string) => `${node}-leaf`
export const adminOf = (user: string) => `${user}-admin`

/**
 * nats-server supports only the JSON escapes \", \\, \n, \r and \t, and \xXX for other characters (`lexStringEscape` in conf/lex.go). Nothing
 * else has a meaning inside quotes: no variable, no comment, no include.
 */
const withServerEscapes = (json: string): string =>
  json.replace(/\\(?:u00(..)|(.))/g, (whole, code: string | undefined, letter: string) =>
    code ? `\\x${code}` : letter === 'b' ? '\\x08' : letter === 'f' ? '\\x0c' : whole,
  )

/** Stands for the mapped subject until the text is written: the subject contains the name of the node. */
const MAPPING_KEY = '<mapping>'

/**
 * Keys have no escapes (`lexKeyStart` in conf/lex.go): the quotes depend on what the key contains. A key with both kinds of quotes is
 * written without; if it contains a separator as well, it cannot be written, and after a reload peers cannot read the leaf's streams
 * until the leaf connects again.
 */
function withMappingKey(json: string, key: string): string {
  const quoted = !key.includes('"') ? `"${key}"` : !key.includes("'") ? `'${key}'` : /[:=]/.test(key) ? undefined : key
  return json.replace(`"${MAPPING_KEY}": "$JS.API.>"`, () => (quoted ? `${quoted}: "$JS.API.>"` : ''))
}

const bracketed = (host: string) => (host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)
export const address = ({ host, port }: Route) => `${bracketed(host)}:${port}`

const withCredentials = (scheme: string, user: string, password: string, route: Route) =>
  `${scheme}://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${address(route)}`

const tlsBlock = (tls: Tls) => ({
  cert_file: tls.certificate,
  key_file: tls.privateKey,
  ca_file: tls.certificateAuthority,
  verify: tls.verify,
})

const commonSettings = (settings: ServerSettings, name: string, port: number, pidFile: string) => ({
  server_name: name,
  listen: `127.0.0.1:${port}`,
  pid_file: pidFile,
  max_payload: MAX_PAYLOAD_BYTES,
  // Unread bytes of a local client: many tables may catch up at once.
  max_pending: 8 * MAX_PAYLOAD_BYTES,
  // Detects a silent network failure within 6 s instead of the default 4 minutes.
  ping_interval: '2s',
  ping_max: 2,
  debug: settings.logLevel === 'debug' || settings.logLevel === 'trace',
  trace: settings.logLevel === 'trace',
  system_account: 'SYS',
})

const users = ({ user, password }: ServerSettings) => ({
  SYS: { users: [{ user: adminOf(user), password }] },
  HDB: { users: [{ user, password }] },
})

/** The hub: joins the other hubs by routes, listens for leafnodes, stores nothing. Keys by version: see `versions.ts`. */
export function hubConfiguration(
  settings: ServerSettings,
  routes: readonly Route[],
  pidFile: string,
  version: Version,
): string {
  const { user, password, ports, tls, listen, routeCompression } = settings
  const secure = tls ? { tls: tlsBlock(tls) } : {}
  const json = JSON.stringify(
    {
      ...commonSettings(settings, hubName(settings.node), ports.hub, pidFile),
      accounts: users(settings),
      leafnodes: {
        listen: address({ host: listen, port: ports.leafNodes }),
        // After an interruption a leaf would connect to an advertised remote hub instead of the local one.
        ...(supports(version, 'advertisesLeafNodes') ? {} : { no_advertise: true }),
        ...(supports(version, 'leafNodeCompression') ? { compression: 'off' } : {}),
        ...secure,
      },
      cluster: {
        name: settings.clusterName,
        listen: address({ host: listen, port: ports.cluster }),
        no_advertise: true,
        ...(supports(version, 'routePools') ? { pool_size: -1 } : {}),
        ...(routeCompression && supports(version, 'routeCompression') ? { compression: routeCompression } : {}),
        // Without it a node with a wrong password joins. The hubs of HarperDB log in as the administrator.
        authorization: { user: adminOf(user), password, timeout: 2 },
        ...(tls ? { tls: { ...tlsBlock(tls), insecure: tls.insecure } } : {}),
        routes: routes.map((route) => withCredentials('nats-route', adminOf(user), password, route)),
      },
    },
    null,
    2,
  )
  return withServerEscapes(json)
}

/** User of the local client in the leaf's MESH account, which leads to remote nodes. */
export const meshUserOf = (user: string) => `${user}-mesh`

/**
 * The only API calls by which remote nodes reach the local streams; they read. The streams are in the account HDB, which is not linked
 * with remote nodes. The linked account MESH imports these calls, and only their answers cross the boundary. So no message of a peer,
 * and no message that a server sends for a peer, is stored in a stream. Calls that change or delete a stream are excluded, and so is
 * the creation of consumers: the creator decides what a consumer sends and to which subject (see `consumers.ts`).
 */
const READ_API_CALLS: { call: string; many?: true }[] = [
  { call: 'INFO' },
  { call: 'STREAM.INFO.*' },
  { call: 'STREAM.MSG.GET.*' },
  { call: 'CONSUMER.MSG.NEXT.*.*', many: true },
  { call: 'CONSUMER.DELETE.*.*' },
]

const leafAccounts = (settings: ServerSettings) => ({
  SYS: users(settings).SYS,
  HDB: {
    ...users(settings).HDB,
    jetstream: 'enabled',
    exports: READ_API_CALLS.map(({ call, many }) => ({
      service: `$JS.API.${call}`,
      accounts: ['MESH'],
      ...(many ? { response_type: 'stream' } : {}),
    })),
  },
  MESH: {
    users: [{ user: meshUserOf(settings.user), password: settings.password }],
    // The server adds this mapping when the leaf connects, and from 2.10 on loses it at a reload.
    mappings: { [MAPPING_KEY]: '$JS.API.>' },
    imports: READ_API_CALLS.map(({ call }) => ({ service: { account: 'HDB', subject: `$JS.API.${call}` } })),
  },
})

/** Address at which the leaf reaches the local hub: loopback when the hub listens on all addresses. */
export const localHubRoute = ({ listen, ports }: ServerSettings): Route => ({
  host: listen === '0.0.0.0' || listen === '::' ? '127.0.0.1' : listen,
  port: ports.leafNodes,
})

/** The leaf: JetStream in a separate domain, connected to the local hub, or to a fallback while the hub is down. */
export function leafConfiguration(
  settings: ServerSettings,
  fallbacks: readonly Route[],
  pidFile: string,
  version: Version,
): string {
  const { user, password, ports, tls, sync } = settings
  const domain = leafName(settings.node)
  const remote = (account: string, name: string) => ({
    account,
    no_randomize: true,
    urls: [localHubRoute(settings), ...fallbacks].map((route) =>
      withCredentials(tls ? 'tls' : 'nats-leaf', name, password, route),
    ),
    ...(tls ? { tls: { ...tlsBlock(tls), insecure: tls.insecure } } : {}),
    ...(supports(version, 'ignoresDiscoveredServers') ? { ignore_discovered_servers: true } : {}),
    ...(supports(version, 'leafNodeCompression') ? { compression: 'off' } : {}),
    // API calls without a domain would reach any leaf, and the system account has calls that delete all streams (2.10).
    deny_imports: [account === 'SYS' ? '$JS.>' : '$JS.API.>'],
  })
  const json = JSON.stringify(
    {
      ...commonSettings(settings, domain, ports.leaf, pidFile),
      accounts: leafAccounts(settings),
      jetstream: {
        store_dir: settings.storeDirectory,
        domain,
        max_file_store: MAX_FILE_STORE_BYTES,
        ...(sync && supports(version, 'syncInterval') ? { sync_interval: sync } : {}),
        ...(supports(version, 'ingestLimit') ? INGEST_LIMIT : {}),
      },
      leafnodes: { reconnect: 1, remotes: [remote('SYS', adminOf(user)), remote('MESH', user)] },
    },
    null,
    2,
  )
  return withMappingKey(withServerEscapes(json), `$JS.${leafName(settings.node)}.API.>`)
}
