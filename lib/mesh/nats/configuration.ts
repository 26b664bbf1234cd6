// The configuration files of a node's two servers, as pure functions of the node's settings: JSON, with the server's own escapes.

import type { Route } from '../mesh.ts'
import { supports, type Version } from './versions.ts'

export type Tls = {
  /** Absolute paths of PEM files. */
  certificate: string
  certificateAuthority: string
  privateKey: string
  /** Accept certificates that do not verify, of those we connect to. */
  insecure: boolean
  /** Demand a certificate of who connects, and verify it. */
  verify: boolean
}

/** What both servers of a node are made of. Ports 1 to 65535, sizes in bytes, ages in seconds. */
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
 * The server reserves every stream's `maxBytes` in full: limits that add up to more than there is would refuse the next table.
 * So it is told of more than there can be (the largest number that JSON carries), and the disk is the limit.
 */
const MAX_FILE_STORE_BYTES = Number.MAX_SAFE_INTEGER
/** 64 MB, as in HarperDB. */
export const MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
/** The server's file store takes a record beyond 32 MiB and can never read it again. */
export const MAX_STORED_BYTES = 32 * 1024 * 1024 - 1024
/** Messages and bytes that a stream may have queued before it drops more (status 429). The publisher bounds what is in flight, to less. */
const INGEST_LIMIT = { max_buffered_msgs: 1_000_000, max_buffered_size: 4 * 1024 ** 3 }

export const hubName = (node: string) => `${node}-hub`
export const leafName = (node: string) => `${node}-leaf`
export const adminOf = (user: string) => `${user}-admin`

/**
 * Of JSON's escapes nats-server reads \", \\, \n, \r and \t only, and has \xXX for the others (`lexStringEscape` in conf/lex.go). Nothing
 * else has a meaning inside quotes: no variable, no comment, no include.
 */
const withServerEscapes = (json: string): string =>
  json.replace(/\\(?:u00(..)|(.))/g, (whole, code: string | undefined, letter: string) =>
    code ? `\\x${code}` : letter === 'b' ? '\\x08' : letter === 'f' ? '\\x0c' : whole,
  )

/** Stands for the mapped subject until the text is written: it contains the name of the node. */
const DOMAIN_MAPPING = '<domain>'

/**
 * Keys have no escapes (`lexKeyStart`): the quotes are chosen by what the key contains. A key with both kinds of quotes goes without,
 * unless it has a separator: then it cannot be written, and a leaf that reloads is not read by others until it connects again.
 */
function withDomainMapping(json: string, node: string): string {
  const key = `$JS.${leafName(node)}.API.>`
  const quoted = !key.includes('"') ? `"${key}"` : !key.includes("'") ? `'${key}'` : /[:=]/.test(key) ? undefined : key
  return json.replace(`"${DOMAIN_MAPPING}": "$JS.API.>"`, () => (quoted ? `${quoted}: "$JS.API.>"` : ''))
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
  // What a client of ours may leave unread: many tables catching up at once.
  max_pending: 8 * MAX_PAYLOAD_BYTES,
  // A silent cut is noticed within 6 s instead of the default 4 minutes.
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
        // Advertised hubs tempt a leaf away from its own hub when the connection is interrupted.
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
        // Without it a node with a wrong password joins.
        authorization: { user, password, timeout: 2 },
        ...(tls ? { tls: { ...tlsBlock(tls), insecure: tls.insecure } } : {}),
        routes: routes.map((route) => withCredentials('nats-route', user, password, route)),
      },
    },
    null,
    2,
  )
  return withServerEscapes(json)
}

/** On a leaf, of those who come from the mesh: our own connection to other nodes. */
export const meshUserOf = (user: string) => `${user}-mesh`

/**
 * All that other nodes can reach of our streams: reading them. The streams lie in an account of their own, which is not linked
 * with other nodes; from the one that is, these calls of the JetStream API lead there, and only their answers lead back. So
 * nothing that anybody sends, or has the server send, can end up in a stream. What would alter or destroy one is not
 * among them, nor is making a consumer: whoever makes it says what it sends, and whereto (see `consumers.ts`).
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
    // The server maps its domain by itself when the leaf connects, and from 2.10 on forgets that at a reload.
    mappings: { [DOMAIN_MAPPING]: '$JS.API.>' },
    imports: READ_API_CALLS.map(({ call }) => ({ service: { account: 'HDB', subject: `$JS.API.${call}` } })),
  },
})

/** Where our own hub listens for leafnodes; what listens everywhere is reached by loopback. */
export const localHubRoute = ({ listen, ports }: ServerSettings): Route => ({
  host: listen === '0.0.0.0' || listen === '::' ? '127.0.0.1' : listen,
  port: ports.leafNodes,
})

/** The leaf: JetStream in a domain of its own, connected to our hub, or to a fallback while that is gone. */
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
    // Calls without a domain are for whoever they reach; and the system account has some that remove all there is (2.10).
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
  return withDomainMapping(withServerEscapes(json), settings.node)
}
