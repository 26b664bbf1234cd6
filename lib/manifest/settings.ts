// The settings of the configuration file: ports, limits, certificates. The port of the operations API and the limits of streams
// may change while a manager is open; other changes take effect at the next open.

import { ConfigNode, kinds } from './config-node.ts'

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace'

export type Settings = {
  /** Name of the cluster user; the password is never in the file. */
  readonly user: string | undefined
  readonly logLevel: LogLevel
  /** Relay transactions of other nodes. */
  readonly republishMessages: boolean
  /** Nodes of HarperDB 4.3 and later may read from this node: its streams have messages of their format. */
  readonly compatibility: 'harperdb4' | undefined
  readonly clusterName: string
  /** Compression between hubs, as nats-server names it. Ignored, with a warning, before nats-server 2.10. */
  readonly routeCompression: string | undefined
  /** The address on which the hub listens for other hubs; undefined: all. */
  readonly clusterHost: string | undefined
  readonly ports: { readonly cluster: number; readonly leafNodes: number; readonly hub: number; readonly leaf: number }
  /** The host's port, shown by `cluster_status`. */
  readonly operationsApiPort: number | undefined
  readonly streams: {
    /** Seconds */
    readonly maxAge?: number
    readonly maxBytes?: number
    readonly maxMsgs?: number
    /** What every subscriber has applied is removed. Undefined: what the limits remove, and nothing else. */
    readonly trim?: 'applied'
    /** Seconds for which it is kept all the same. */
    readonly trimAfter?: number
    /** Directory of the leaf's store. */
    readonly path?: string
    /** How often the leaf syncs its store to disk: `always`, or a duration such as `10s`. Ignored, with a warning, before nats-server 2.10. */
    readonly sync?: string
  }
  /** Undefined without certificates. */
  readonly tls?: {
    /** Paths of PEM files, as in the configuration file. */
    readonly certificate: string
    readonly certificateAuthority: string
    readonly privateKey: string
    /** Do not verify the certificates of servers. Default: false. */
    readonly insecure: boolean
    /** Require and verify the certificates of clients. Default: true. */
    readonly verify: boolean
  }
  /** The host's directory, which contains the state of the servers by default. */
  readonly rootPath: string | undefined
}

const defined = <T extends object>(value: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } =>
  Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as never

/** The path of each setting in the file. */
export const settingPaths = {
  user: 'clustering.user',
  logLevel: 'clustering.logLevel',
  republishMessages: 'clustering.republishMessages',
  compatibility: 'clustering.compatibility',
  clusterName: 'clustering.hubServer.cluster.name',
  routeCompression: 'clustering.hubServer.cluster.compression',
  clusterHost: 'clustering.hubServer.cluster.network.host',
  'ports.cluster': 'clustering.hubServer.cluster.network.port',
  'ports.leafNodes': 'clustering.hubServer.leafNodes.network.port',
  'ports.hub': 'clustering.hubServer.network.port',
  'ports.leaf': 'clustering.leafServer.network.port',
  operationsApiPort: 'operationsApi.network.port',
  'streams.maxAge': 'clustering.leafServer.streams.maxAge',
  'streams.maxBytes': 'clustering.leafServer.streams.maxBytes',
  'streams.maxMsgs': 'clustering.leafServer.streams.maxMsgs',
  'streams.trim': 'clustering.leafServer.streams.trim',
  'streams.trimAfter': 'clustering.leafServer.streams.trimAfter',
  'streams.path': 'clustering.leafServer.streams.path',
  'streams.sync': 'clustering.leafServer.streams.sync',
  'tls.certificate': 'clustering.tls.certificate',
  'tls.certificateAuthority': 'clustering.tls.certificateAuthority',
  'tls.privateKey': 'clustering.tls.privateKey',
  'tls.insecure': 'clustering.tls.insecure',
  'tls.verify': 'clustering.tls.verify',
  rootPath: 'rootPath',
} as const

type SettingName = keyof typeof settingPaths

/** The settings of a whole file, with HarperDB's defaults. */
export function readSettings(root: ConfigNode): Settings {
  const at = (name: SettingName) => root.at(settingPaths[name])
  // Faults of the host's sections are not reported.
  const hostSections = new ConfigNode(root.value)
  const ports = {
    cluster: at('ports.cluster').read(kinds.port) ?? 9932,
    leafNodes: at('ports.leafNodes').read(kinds.port) ?? 9931,
    hub: at('ports.hub').read(kinds.port) ?? 9930,
    leaf: at('ports.leaf').read(kinds.port) ?? 9940,
  }
  const usedPorts = new Set<number>()
  for (const [name, port] of Object.entries(ports)) {
    if (usedPorts.has(port))
      at(`ports.${name}` as SettingName).addFault(`must differ from the other ports, ${port} is used by another server`)
    usedPorts.add(port)
  }
  const tlsFiles = {
    certificate: at('tls.certificate').read(kinds.text),
    certificateAuthority: at('tls.certificateAuthority').read(kinds.text),
    privateKey: at('tls.privateKey').read(kinds.text),
  }
  const tls = {
    insecure: at('tls.insecure').read(kinds.flag) ?? false,
    verify: at('tls.verify').read(kinds.flag) ?? true,
  }
  const { certificate, certificateAuthority, privateKey } = tlsFiles
  const isSecure = certificate !== undefined && certificateAuthority !== undefined && privateKey !== undefined
  // An incomplete section would silently disable TLS.
  if (!isSecure && Object.values(tlsFiles).some((path) => path !== undefined))
    for (const name of ['certificate', 'certificateAuthority', 'privateKey'] as const)
      if (at(`tls.${name}`).unset)
        at(`tls.${name}`).addFault('is missing: TLS requires certificate, certificateAuthority and privateKey')
  return Object.freeze({
    user: at('user').read(kinds.text),
    logLevel: at('logLevel').read(kinds.logLevel) ?? 'error',
    republishMessages: at('republishMessages').read(kinds.flag) ?? false,
    compatibility: at('compatibility').read(kinds.compatibility),
    clusterName: at('clusterName').read(kinds.token) ?? 'harperdb',
    routeCompression: at('routeCompression').read(kinds.routeCompression),
    clusterHost: at('clusterHost').read(kinds.host),
    ports: Object.freeze(ports),
    operationsApiPort: hostSections.at(settingPaths.operationsApiPort).read(kinds.port),
    streams: Object.freeze(
      defined({
        maxAge: at('streams.maxAge').read(kinds.age),
        maxBytes: at('streams.maxBytes').read(kinds.count),
        maxMsgs: at('streams.maxMsgs').read(kinds.count),
        trim: at('streams.trim').read(kinds.trim),
        trimAfter: at('streams.trimAfter').read(kinds.age),
        path: at('streams.path').read(kinds.text),
        sync: at('streams.sync').read(kinds.syncInterval),
      }),
    ),
    ...(isSecure && { tls: Object.freeze({ certificate, certificateAuthority, privateKey, ...tls }) }),
    rootPath: hostSections.at(settingPaths.rootPath).read(kinds.text),
  })
}

const settingOf = (settings: Settings, name: SettingName): unknown =>
  name.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], settings)

const limits = [
  'streams.maxAge',
  'streams.maxBytes',
  'streams.maxMsgs',
  'streams.trim',
  'streams.trimAfter',
] as const satisfies SettingName[]
const liveSettings: readonly SettingName[] = ['operationsApiPort', ...limits]

const differs = (running: Settings, edited: Settings) => (name: SettingName) =>
  settingOf(running, name) !== settingOf(edited, name)

/** Paths in the file of settings that differ and require a restart. */
export const restartRequiredPaths = (running: Settings, edited: Settings): string[] =>
  (Object.keys(settingPaths) as SettingName[])
    .filter((name) => !liveSettings.includes(name) && differs(running, edited)(name))
    .map((name) => settingPaths[name])

export const limitsDiffer = (running: Settings, edited: Settings): boolean => limits.some(differs(running, edited))
