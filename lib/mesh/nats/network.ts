// Who is in the mesh, asked of the servers themselves through the system account: hubs answer even when their database hangs.

import type { Member, RequestOptions, Route } from '../mesh.ts'
import { hubName } from './configuration.ts'
import { abortable, type Connection } from './connection.ts'

type Statsz = {
  server: { name: string; id: string }
  statsz?: { active_servers?: number; routes?: { name?: string }[] }
}
type Varz = { server: { name: string; id: string }; data?: { cluster?: { urls?: string[] } } }
type Answers = { name: string; responseTime: number; statsz?: Statsz['statsz']; varz?: Varz['data'] }

const HUB = hubName('')
const nodeOf = (server: string) => server.slice(0, -HUB.length)

/** Asks every server and is done as soon as all that are known have answered, or after the time-out. */
export async function members(connection: Connection, node: string, options: RequestOptions): Promise<Member[]> {
  const started = performance.now()
  const answers = new Map<string, Answers>()
  let expected = Number.POSITIVE_INFINITY
  let done = () => {}
  const complete = new Promise<void>((resolve) => {
    done = resolve
  })
  const inbox = connection.inbox()
  const take = (part: Statsz & Varz) => {
    const { id, name } = part.server
    const known = answers.get(id) ?? { name, responseTime: performance.now() - started }
    if (part.statsz) known.statsz = part.statsz
    if (part.data) known.varz = part.data
    answers.set(id, known)
    // The count is of all servers, leaves too; it under-reports at start-up, so the largest is believed.
    const active = Math.max(0, ...[...answers.values()].map(({ statsz }) => statsz?.active_servers ?? 0))
    expected = active > 0 ? active : expected
    const whole = [...answers.values()].filter(({ statsz, varz }) => statsz && varz)
    if (whole.length >= expected) done()
  }
  const subscription = connection.subscribe(inbox, (message) => {
    if (!message.headers?.code) take(message.json<Statsz & Varz>())
  })
  const timer = setTimeout(done, options.timeout)
  try {
    connection.publish('$SYS.REQ.SERVER.PING', '', { reply: inbox })
    connection.publish('$SYS.REQ.SERVER.PING.VARZ', '', { reply: inbox })
    await abortable(complete, options.signal)
  } finally {
    clearTimeout(timer)
    subscription.unsubscribe()
  }
  return [...answers.values()]
    .filter(({ name }) => name.endsWith(HUB))
    .map(memberOf)
    .sort((a, b) => Number(b.node === node) - Number(a.node === node) || (a.node < b.node ? -1 : 1))
}

const memberOf = ({ name, responseTime, statsz, varz }: Answers): Member => ({
  node: nodeOf(name),
  responseTime: Math.round(responseTime),
  connectedNodes: [
    ...new Set((statsz?.routes ?? []).flatMap((route) => (route.name ? [nodeOf(route.name)] : []))),
  ].sort(),
  routes: (varz?.cluster?.urls ?? []).flatMap(routeOf),
})

/** `host:port`, as VARZ lists the configured routes. */
function routeOf(url: string): Route[] {
  const match = /^(.*):(\d+)$/.exec(url.replace(/^.*@/, '').replace(/^[a-z-]+:\/\//, ''))
  return match ? [{ host: match[1]!.replace(/^\[(.*)\]$/, '$1'), port: Number(match[2]) }] : []
}
