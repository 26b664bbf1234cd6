// The routes of the migrated node: one to every other node, because a route that HarperDB learned from another hub carries no login.

import { lookup } from 'node:dns/promises'
import { type Route, routeKey } from '../manifest/manifest.ts'
import type { LinkedHub } from '../mesh/nats/hub-login.ts'

export type RouteInputs = {
  /** Names of the other nodes. */
  nodes: readonly string[]
  /** Of `harperdb-config.yaml`. */
  configured: readonly Route[]
  /** Of all nodes, from `cluster_network`. */
  ofMembers: readonly Route[]
  /** As the running hub sees them. */
  hubs: readonly LinkedHub[]
  /** From the operator. */
  given: Readonly<Record<string, Route>>
  /** Addresses of a host. Default: of the system. Resolves with none for an unknown host. */
  resolve?: (host: string) => Promise<string[]>
}

export type PlannedRoutes = {
  routes: Route[]
  /** Of each node whose address is known. */
  addresses: Map<string, Route>
  /** Nodes whose address is not known. */
  missing: string[]
}

const resolveHost = (host: string): Promise<string[]> =>
  lookup(host, { all: true }).then(
    (found) => found.map(({ address }) => address),
    () => [],
  )

/** Keeps every configured route. An address gets the name that some node has for it: certificates name hosts, not addresses. */
export async function planRoutes(inputs: RouteInputs): Promise<PlannedRoutes> {
  const { nodes, configured, ofMembers, hubs, given, resolve = resolveHost } = inputs
  const routes = new Map(configured.map((route) => [routeKey(route), route]))
  const addresses = new Map<string, Route>()
  const missing: string[] = []
  for (const node of nodes) {
    const seen = hubs.find((hub) => hub.node === node)?.address
    const route = given[node] ?? (seen && ((await named(seen, [...configured, ...ofMembers], resolve)) ?? seen))
    if (!route) {
      missing.push(node)
      continue
    }
    addresses.set(node, route)
    if (!routes.has(routeKey(route))) routes.set(routeKey(route), { host: route.host, port: route.port })
  }
  return { routes: [...routes.values()], addresses, missing }
}

/** The first of these routes that leads to the address. */
async function named(
  address: Route,
  routes: readonly Route[],
  resolve: (host: string) => Promise<string[]>,
): Promise<Route | undefined> {
  for (const route of routes)
    if (
      route.port === address.port &&
      (route.host === address.host || (await resolve(route.host)).includes(address.host))
    )
      return route
  return undefined
}
