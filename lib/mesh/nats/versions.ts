// Differences between versions of nats-server: each configuration key that only some versions accept, and why it is used.

/** Version of a nats-server binary, as `--version` prints it. */
export type Version = readonly [major: number, minor: number, patch: number]

export const versionText = (version: Version): string => version.join('.')

export function isAtLeast(version: Version, minimum: Version): boolean {
  const differing = version.findIndex((part, index) => part !== minimum[index])
  return differing < 0 || version[differing]! > minimum[differing]!
}

type Feature = { readonly since: Version; readonly why: string }

/** A server does not start with an unknown key: each key is written from its version on. */
export const FEATURES = {
  routePools: {
    since: [2, 10, 0],
    why: '`cluster.pool_size`: pooled routes are on by default, and one node with a wrong password then costs every hub half a core',
  },
  leafNodeCompression: {
    since: [2, 10, 0],
    why: '`leafnodes.compression`: on by default, and its negotiation before authentication crashes servers (CVE-2026-33218 and others)',
  },
  routeCompression: { since: [2, 10, 0], why: '`cluster.compression`: an option of the configuration file' },
  syncInterval: {
    since: [2, 10, 0],
    why: '`jetstream.sync_interval`: an option of the configuration file; before, two minutes, fixed',
  },
  ingestLimit: {
    since: [2, 11, 0],
    why: '`jetstream.max_buffered_msgs` and `max_buffered_size`: the default of 2.11, 128 MB, is less than the messages of `publishWindow` may have, and what exceeds it is dropped',
  },
  ignoresDiscoveredServers: {
    since: [2, 14, 0],
    why: '`ignore_discovered_servers`: keeps a leaf at the local hub although hubs advertise others',
  },
  advertisesLeafNodes: {
    since: [2, 15, 0],
    why: '`leafnodes.no_advertise` is left out: with it a hub sends no `leafnode_urls`, and older leaves refuse the connection ("attempted to connect to wrong port")',
  },
} as const satisfies Record<string, Feature>

export const supports = (version: Version, feature: keyof typeof FEATURES): boolean =>
  isAtLeast(version, FEATURES[feature].since)

/** Settings that servers of this version ignore: the key of the configuration file, and the first version that accepts it. */
export function ignoredSettings(
  version: Version,
  settings: { readonly sync?: string | undefined; readonly routeCompression?: string | undefined },
): { key: string; since: string }[] {
  const needs: [key: string, value: string | undefined, feature: keyof typeof FEATURES][] = [
    ['clustering.leafServer.streams.sync', settings.sync, 'syncInterval'],
    ['clustering.hubServer.cluster.compression', settings.routeCompression, 'routeCompression'],
  ]
  return needs
    .filter(([, value, feature]) => value !== undefined && !supports(version, feature))
    .map(([key, , feature]) => ({ key, since: versionText(FEATURES[feature].since) }))
}
