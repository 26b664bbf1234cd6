// The members of the mesh, requested from the servers through the system account: hubs answer even when their database hangs.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { withAbort } from '../../util/abort.ts'
import { clearInterval, delay, setInterval, systemTimers } from '../../util/timers.ts'
import type { Member, RequestOptions, Route } from '../mesh.ts'
import { hubName } from './configuration.ts'
import { type Connection, endedBy, parseJson } from './connection.ts'

const PartType = Type.Object({
  server: Type.Object({ name: Type.String({ maxLength: 1_000 }) }),
  statsz: Type.Optional(
    Type.Object({ routes: Type.Optional(Type.Array(Type.Object({ name: Type.Optional(Type.String()) }))) }),
  ),
  data: Type.Optional(
    Type.Object({ cluster: Type.Optional(Type.Object({ urls: Type.Optional(Type.Array(Type.String())) })) }),
  ),
})
type Part = Type.Static<typeof PartType>
const schema = Compile(PartType)
type Hub = { name: string; responseTime: number; statsz?: Part['statsz']; varz?: Part['data'] }

/** A hub reports a route to a node that has just ended until it has noticed, and a message may be lost: both are right the next time. */
const REPEAT_INTERVAL_MS = 500
/** A peer may answer with any number of invented names. */
const MAX_HUBS = 2_000
const HUB_SUFFIX = hubName('')
const nodeOf = (server: string) => server.slice(0, -HUB_SUFFIX.length)

/**
 * Asks every server, again and again. Resolves when all hubs have answered that the local hub is routed to, directly or indirectly, or after the
 * time-out. (The count of active servers in the answers is wrong for seconds after a crash.)
 */
export async function members(connection: Connection, node: string, options: RequestOptions): Promise<Member[]> {
  const started = systemTimers.elapsed()
  const hubs = new Map<string, Hub>()
  const inbox = connection.inbox()
  let done = () => {}
  const complete = new Promise<void>((resolve) => {
    done = resolve
  })
  const subscription = connection.subscribe(inbox, (message) => {
    if (message.headers?.code) return
    const part = parseJson<unknown>(message)
    if (!schema.Check(part)) return
    const { server, statsz, data } = part as Part
    if (!server.name.endsWith(HUB_SUFFIX) || (hubs.size >= MAX_HUBS && !hubs.has(server.name))) return
    const hub = hubs.get(server.name) ?? { name: server.name, responseTime: systemTimers.elapsed() - started }
    if (statsz) hub.statsz = statsz
    if (data) hub.varz = data
    hubs.set(server.name, hub)
    if (isComplete(hubs, hubName(node))) done()
  })
  const timeout = new AbortController()
  let repeat: NodeJS.Timeout | undefined
  try {
    const ask = () => {
      connection.publish('$SYS.REQ.SERVER.PING', '', { reply: inbox })
      connection.publish('$SYS.REQ.SERVER.PING.VARZ', '', { reply: inbox })
    }
    ask()
    repeat = setInterval(() => {
      try {
        ask()
      } catch {
        // The connection was closed: nobody answers any more.
        done()
      }
    }, REPEAT_INTERVAL_MS)
    const expired = delay(options.timeout, undefined, { signal: timeout.signal }).catch(() => {})
    await withAbort(Promise.race([complete, expired]), options.signal, endedBy('aborted'))
  } finally {
    clearInterval(repeat)
    timeout.abort()
    subscription.unsubscribe()
  }
  return [...hubs.values()]
    .map(memberOf)
    .sort((a, b) => Number(b.node === node) - Number(a.node === node) || (a.node < b.node ? -1 : 1))
}

/** True when every hub has answered that is reachable from this one through hubs that have answered. */
function isComplete(hubs: ReadonlyMap<string, Hub>, name: string, visited = new Set<string>()): boolean {
  if (visited.has(name)) return true
  visited.add(name)
  const hub = hubs.get(name)
  if (!hub?.statsz || !hub.varz) return false
  return (hub.statsz.routes ?? []).every((route) => !route.name || isComplete(hubs, route.name, visited))
}

const memberOf = ({ name, responseTime, statsz, varz }: Hub): Member => ({
  node: nodeOf(name),
  responseTime: Math.round(responseTime),
  connectedNodes: [
    ...new Set((statsz?.routes ?? []).flatMap((route) => (route.name ? [nodeOf(route.name)] : []))),
  ].sort(),
  routes: (varz?.cluster?.urls ?? []).flatMap(routeOf),
})

/** The configured route that VARZ lists as `host:port`; empty if unreadable. */
function routeOf(url: string): Route[] {
  const match = /^(.*):(\d+)$/.exec(url.replace(/^.*@/, '').replace(/^[a-z-]+:\/\//, ''))
  return match ? [{ host: match[1]!.replace(/^\[(.*)\]$/, '$1'), port: Number(match[2]) }] : []
}
