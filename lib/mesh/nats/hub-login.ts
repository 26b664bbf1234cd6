// Logs in to the hub of a node whose servers run already, of HarperDB or of enmesh, and asks it for the hubs it is linked with.

import { setTimeout as delay } from 'node:timers/promises'
import { connect, createInbox, ErrorCode, type NatsConnection, NatsError } from 'nats'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../../errors.ts'
import type { Route } from '../mesh.ts'
import { adminOf, hubName } from './configuration.ts'
import { parseJson } from './connection.ts'

export type HubLogin = {
  host: string
  /** For clients: `hubServer.network.port`. */
  port: number
  /** Name of the cluster user. */
  user: string
  password: string
  /** ms for the login, and again for the answers of the other hubs. Default 2,000. */
  timeout?: number
}

/** `address`: of its port for other hubs, as the local hub sees it; undefined if it is not linked directly. */
export type LinkedHub = { node: string; address: Route | undefined }

/** `accepted`: with the version of the server and the hubs that answered, the local one included. */
export type HubLoginResult =
  | { outcome: 'accepted'; serverVersion: string; hubs: LinkedHub[] }
  | { outcome: 'rejected'; reason: string }
  | { outcome: 'unreachable'; reason: string }

const AnswerType = Type.Object({
  server: Type.Object({ name: Type.String(), id: Type.String() }),
  data: Type.Optional(
    Type.Object({
      cluster: Type.Optional(Type.Object({ cluster_port: Type.Optional(Type.Integer()) })),
      routes: Type.Optional(Type.Array(Type.Object({ remote_id: Type.String(), ip: Type.String() }))),
    }),
  ),
})
type Answer = Type.Static<typeof AnswerType>
const answerValidator = Compile(AnswerType)

const HUB_SUFFIX = hubName('')
/** ms without another answer after which no more are expected. */
const QUIET_MS = 300

/** Logs in as the administrator, as the hubs of HarperDB do. Changes nothing. */
export async function logInToHub({ host, port, user, password, timeout = 2_000 }: HubLogin): Promise<HubLoginResult> {
  let connection: NatsConnection
  try {
    const login = { user: adminOf(user), pass: password }
    const servers = `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}`
    connection = await connect({ servers, ...login, timeout, reconnect: false, name: 'enmesh-migrate' })
  } catch (error) {
    const isRejected = error instanceof NatsError && error.code === ErrorCode.AuthorizationViolation
    return { outcome: isRejected ? 'rejected' : 'unreachable', reason: reasonOf(error) }
  }
  try {
    const [varz, routez] = await Promise.all(['VARZ', 'ROUTEZ'].map((kind) => ask(connection, kind, timeout)))
    return { outcome: 'accepted', serverVersion: connection.info?.version ?? '', hubs: linkedHubs(varz!, routez!) }
  } finally {
    await connection.close().catch(() => {})
  }
}

/** The answers of all servers. There is no end to wait for: it comes after a pause without answers. */
async function ask(connection: NatsConnection, kind: string, timeout: number): Promise<Answer[]> {
  const answers: Answer[] = []
  let last = performance.now()
  const inbox = createInbox()
  connection.subscribe(inbox, {
    callback: (error, message) => {
      last = performance.now()
      if (error || message.headers?.code) return
      const answer = readAnswer(message)
      if (answer) answers.push(answer)
    },
  })
  connection.publish(`$SYS.REQ.SERVER.PING.${kind}`, '', { reply: inbox })
  const end = last + timeout
  while (performance.now() < Math.min(end, last + QUIET_MS)) await delay(20)
  return answers
}

function readAnswer(message: Parameters<typeof parseJson>[0]): Answer | undefined {
  try {
    const answer = parseJson<unknown>(message)
    return answerValidator.Check(answer) ? (answer as Answer) : undefined
  } catch {
    return undefined
  }
}

/** nats-server 2.9 names no servers in ROUTEZ, only their ids. */
function linkedHubs(varz: readonly Answer[], routez: readonly Answer[]): LinkedHub[] {
  const hubs = varz.filter(({ server }) => server.name.endsWith(HUB_SUFFIX) && server.name !== HUB_SUFFIX)
  const addresses = new Map<string, string>()
  // The address that most hubs see would be better; the first one is enough to be linked.
  for (const { data } of routez)
    for (const { remote_id, ip } of data?.routes ?? []) if (!addresses.has(remote_id)) addresses.set(remote_id, ip)
  return hubs.map(({ server, data }) => {
    const [host, port] = [addresses.get(server.id), data?.cluster?.cluster_port]
    const address = host !== undefined && port !== undefined ? { host, port } : undefined
    return { node: server.name.slice(0, -HUB_SUFFIX.length), address }
  })
}
