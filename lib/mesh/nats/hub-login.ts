// Logs in to the hub of a node whose servers run already, of HarperDB or of enmesh, and asks it for the hubs it is linked with.

import { connect, createInbox, ErrorCode, type NatsConnection, NatsError } from 'nats'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import { delay, systemTimers } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { adminOf, hubName, type Tls } from './configuration.ts'
import { parseJson } from './connection.ts'

export type HubLogin = {
  host: string
  /** For clients: `hubServer.network.port`. */
  port: number
  /** Name of the cluster user. */
  user: string
  password: string
  /** Paths of PEM files, for a hub that requires TLS of its clients, as that of HarperDB does when it has certificates. */
  tls?: Pick<Tls, 'certificate' | 'certificateAuthority' | 'privateKey'> | undefined
  /** ms for the login, and again for the answers of the other hubs. Default 5,000. */
  timeout?: number
  /** Nodes whose hubs and addresses are waited for until the time is over. Hubs that are far or busy answer late. */
  expected?: readonly string[]
}

/** `address`: of its port for other hubs, as the local hub sees it; undefined if it is not linked directly. */
export type LinkedHub = { node: string; address: Route | undefined }

/** `accepted`: with the version of the server and the hubs that answered, the local one included. */
export type HubLoginResult =
  | { outcome: 'accepted'; serverVersion: string; hubs: LinkedHub[] }
  | { outcome: 'rejected'; reason: string }
  | { outcome: 'unreachable'; reason: string }

const ServerType = Type.Object({ name: Type.String(), id: Type.String() })
/** `routes` is a number in VARZ. */
const VarzType = Type.Object({
  server: ServerType,
  data: Type.Object({ cluster: Type.Object({ cluster_port: Type.Integer() }) }),
})
const RoutezType = Type.Object({
  server: ServerType,
  data: Type.Object({ routes: Type.Array(Type.Object({ remote_id: Type.String(), ip: Type.String() })) }),
})
type Varz = Type.Static<typeof VarzType>
type Routez = Type.Static<typeof RoutezType>
const validators = { VARZ: Compile(VarzType), ROUTEZ: Compile(RoutezType) }

const HUB_SUFFIX = hubName('')
const DEFAULT_TIMEOUT_MS = 5_000
/** ms without another answer after which no more are waited for, unless an expected one is missing. */
const QUIET_MS = 300
/** Of one question. Two servers a node answer, each with a few kB for each of its routes. */
const MAX_ANSWERS = 10_000
const MAX_ANSWER_BYTES = 64 * 1024 * 1024

/** Logs in as the administrator, as the hubs of HarperDB do. Changes nothing. */
export async function logInToHub(options: HubLogin): Promise<HubLoginResult> {
  const { timeout = DEFAULT_TIMEOUT_MS, expected = [] } = options
  let connection: NatsConnection
  try {
    connection = await connectTo(options)
  } catch (error) {
    const isRejected = error instanceof NatsError && error.code === ErrorCode.AuthorizationViolation
    return { outcome: isRejected ? 'rejected' : 'unreachable', reason: reasonOf(error) }
  }
  try {
    const [varz, routez]: [Varz[], Routez[]] = [[], []]
    const isComplete = () => {
      const hubs = expected.length > 0 ? linkedHubs(varz, routez) : []
      return expected.every((name) => hubs.some(({ node, address }) => node === name && address))
    }
    await Promise.all([
      ask(connection, 'VARZ', varz, { timeout, isComplete }),
      ask(connection, 'ROUTEZ', routez, { timeout, isComplete }),
    ])
    const { version = '', server_id } = connection.info ?? {}
    // What the local hub sees comes first: other hubs may see an address that does not lead there from here.
    routez.sort((a, b) => Number(b.server.id === server_id) - Number(a.server.id === server_id))
    return { outcome: 'accepted', serverVersion: version, hubs: linkedHubs(varz, routez) }
  } finally {
    await connection.close().catch(() => {})
  }
}

async function connectTo({ host, port, user, password, tls, timeout = DEFAULT_TIMEOUT_MS }: HubLogin) {
  const servers = `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}`
  const login = { servers, user: adminOf(user), pass: password, timeout, reconnect: false, name: 'enmesh-migrate' }
  if (!tls) return connect(login)
  const { certificate: certFile, privateKey: keyFile, certificateAuthority: caFile } = tls
  // On this machine the certificate is that of another name.
  const secure = { certFile, keyFile, caFile, rejectUnauthorized: false }
  return connect({ ...login, tls: secure }).catch((error) => {
    // The hub requires no TLS of clients: the hubs of enmesh listen on this machine only.
    if (error instanceof NatsError && error.code === ErrorCode.ServerOptionNotAvailable) return connect(login)
    throw error
  })
}

/**
 * Adds the valid answers of all servers. There is no end to wait for: it comes after a pause without answers, if what is expected is
 * there, or with more than any cluster has.
 */
async function ask(
  connection: NatsConnection,
  kind: keyof typeof validators,
  answers: object[],
  { timeout, isComplete }: { timeout: number; isComplete: () => boolean },
): Promise<void> {
  let [received, bytes] = [0, 0]
  let last = systemTimers.elapsed()
  const inbox = createInbox()
  const isFull = () => received >= MAX_ANSWERS || bytes >= MAX_ANSWER_BYTES
  const subscription = connection.subscribe(inbox, {
    callback: (error, message) => {
      if (isFull()) return
      last = systemTimers.elapsed()
      received++
      bytes += message?.data.byteLength ?? 0
      const answer = error || message.headers?.code ? undefined : readJson(message)
      if (validators[kind].Check(answer)) answers.push(answer as object)
    },
  })
  connection.publish(`$SYS.REQ.SERVER.PING.${kind}`, '', { reply: inbox })
  const end = last + timeout
  for (let now = last; !isFull() && now < end; now = systemTimers.elapsed()) {
    if (now >= last + QUIET_MS && isComplete()) break
    await delay(20)
  }
  subscription.unsubscribe()
}

function readJson(message: Parameters<typeof parseJson>[0]): unknown {
  try {
    return parseJson(message)
  } catch {
    return undefined
  }
}

/** nats-server 2.9 names no servers in ROUTEZ, only their ids. */
function linkedHubs(varz: readonly Varz[], routez: readonly Routez[]): LinkedHub[] {
  const hubs = varz.filter(({ server }) => server.name.endsWith(HUB_SUFFIX) && server.name !== HUB_SUFFIX)
  const addresses = new Map<string, string>()
  for (const { data } of routez)
    for (const { remote_id, ip } of data.routes) if (!addresses.has(remote_id)) addresses.set(remote_id, ip)
  return hubs.map(({ server, data }) => {
    const host = addresses.get(server.id)
    const address = host === undefined ? undefined : { host, port: data.cluster.cluster_port }
    return { node: server.name.slice(0, -HUB_SUFFIX.length), address }
  })
}
