// The HTTP operations API: `POST /` with a JSON body that contains `operation`.

import type { Socket } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import type { Caller, Health, Logger, Transaction } from '../../lib/index.ts'
import type { StatusPage } from '../../lib/status-page.ts'
import type { Database } from './database.ts'
import { HostError } from './errors.ts'
import { toJson } from './json.ts'
import { isAccepted, MESSAGE_PACK, toMessagePack } from './message-pack.ts'
import { executeData } from './operations.ts'
import { addProbes } from './probes.ts'
import { addStatusPage } from './status-page.ts'
import type { Users } from './users.ts'
import { abortedWith, readWaitingHeaders, type WaitingCluster, waitForNodes } from './waiting-headers.ts'

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller | undefined
  }
}

const MAX_BODY_BYTES = 100 * 1024 * 1024

export type ServerOptions = {
  database: Database
  /** Answers what the data operations do not know, unknown and missing operations included. */
  cluster: WaitingCluster & { execute(request: unknown, caller: Caller): Promise<object>; health(): Health }
  users: Users
  logger: Logger
  /** Mounted at `/status`. The server ends its streams when it closes. */
  statusPage?: StatusPage
}

/** Creates the server; the caller calls `listen`. */
export function createServer({ database, cluster, users, logger, statusPage }: ServerOptions): FastifyInstance {
  const toAnswer = (error: unknown): [statusCode: number, body: ErrorBody] => {
    const [statusCode, body] = describeError(error)
    if (statusCode >= 500) logger.error({ error }, 'A request failed')
    return [statusCode, body]
  }
  const server = fastify({
    bodyLimit: MAX_BODY_BYTES,
    clientErrorHandler: answerInvalidHttp,
    frameworkErrors: (error, _request, reply) => {
      const [statusCode, body] = toAnswer(error)
      void (reply as FastifyReply).code(statusCode).send(body)
    },
  })
  server.decorateRequest('caller', undefined)
  server.setReplySerializer(toJson)

  // Before the body is read: a caller without valid credentials cannot send 100 MB.
  server.addHook('onRequest', async (request) => {
    const { authorization } = request.headers
    const isAnonymousProbe = request.routeOptions.config.isProbe === true && authorization === undefined
    if (!isAnonymousProbe) request.caller = users.authenticate(authorization)
  })
  server.setErrorHandler((error, _request, reply) => {
    const [statusCode, body] = toAnswer(error)
    if (statusCode === 401) void reply.header('www-authenticate', 'Basic realm="operations API"')
    return reply.code(statusCode).send(body)
  })
  server.setNotFoundHandler(() => {
    throw new HostError(404, 'Not found: send operations as POST /')
  })
  server.post('/', async ({ body, caller, headers }, reply) => {
    const { nodes, token } = readWaitingHeaders(headers)
    // Few requests wait: an unused signal would be a tenth of the time of a write.
    const waiting = token === undefined && nodes === undefined ? undefined : { signal: abortedWith(reply.raw) }
    if (token) await cluster.caughtUp(token, waiting)
    let committed: Transaction | undefined
    const onCommit = (transaction: Transaction) => {
      committed = transaction
    }
    const answer =
      (await executeData(database, body, { ...caller!, onCommit })) ?? (await cluster.execute(body, caller!))
    void reply.type('application/json; charset=utf-8')
    if (committed === undefined && isAccepted(headers.accept))
      return reply.type(MESSAGE_PACK).send(toMessagePack(answer))
    if (committed === undefined || nodes === undefined || !waiting) return reply.send(answer)
    const { token: written, error } = await waitForNodes(cluster, committed, { nodes, ...waiting })
    if (written !== undefined) void reply.header('x-write-token', written)
    if (error === undefined) return reply.send(answer)
    const [statusCode, { error: message }] = toAnswer(error)
    return reply.code(statusCode).send({ ...answer, error: message })
  })
  addProbes(server, cluster)
  if (statusPage) addStatusPage(server, statusPage)
  endUnusedConnections(server)
  return server
}

/** Browsers and `fetch` open connections in advance. Node.js does not count them as idle: `close` would wait more than a minute for each. */
function endUnusedConnections(server: FastifyInstance): void {
  const unused = new Set<Socket>()
  server.server.on('connection', (socket) => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })
  server.server.on('request', ({ socket }) => unused.delete(socket))
  server.addHook('preClose', async () => {
    for (const socket of unused) socket.destroy()
  })
}

type ErrorBody = { error: string; [field: string]: unknown }

/** HostError, ClusterError and fastify's errors have a status and a message for the caller. Any other error is internal: 500. */
function describeError(error: unknown): [statusCode: number, body: ErrorBody] {
  const { statusCode, message } = error as { statusCode?: unknown; message?: unknown }
  if (typeof statusCode !== 'number' || typeof message !== 'string') {
    return [500, { error: 'There was an error processing your request. Check logs and try again.' }]
  }
  if (statusCode !== 403) return [statusCode, { error: message }]
  return [statusCode, { error: message, unauthorized_access: [], invalid_schema_items: [] }]
}

/** Fastify has no reply object for data that is not HTTP, so the answer is written to the socket. */
function answerInvalidHttp(error: { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return
  const body = toJson({ error: `Bad request: ${error.code ?? 'not HTTP'}` })
  const head = [
    'HTTP/1.1 400 Bad Request',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
  ]
  socket.end([...head, 'Connection: close', '', body].join('\r\n'))
}
