// A small database for containers: rows in LMDB, an HTTP API, probes and metrics. Yours takes its place.

import { timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { type ClusterError, ClusterManager, type ClusterOptions, type Logger } from '../../../lib/index.ts'
import { LmdbHost } from '../lmdb-host.ts'
import { ensureConfigFile, type Ports, type Settings } from './settings.ts'

type Answer = [statusCode: number, body?: unknown]

const line = (level: string) => (fields: object, message: string) =>
  void process.stdout.write(`${JSON.stringify({ level, time: new Date().toISOString(), message, ...fields })}\n`)
const stdoutLogger: Logger = { debug() {}, info: line('info'), warn: line('warn'), error: line('error') }

export type NodeOptions = Pick<ClusterOptions, 'mesh' | 'logger'> & { ports?: Ports }

/** Resolves when the node is open and listens. `port`: where it listens. */
export async function startNode(settings: Settings, { ports, ...options }: NodeOptions = {}) {
  const configFile = await ensureConfigFile(settings, ports)
  const host = new LmdbHost(join(settings.dataDirectory, 'rows'))
  for (const table of settings.tables) await host.createTable({ ...table, primaryKey: 'id', attributes: ['id'] })
  const exporter = new PrometheusExporter({ preventServerStart: true, withoutTargetInfo: true })
  const provider = new MeterProvider({ readers: [exporter] })
  const { clusterPassword: password } = settings
  const meter = provider.getMeter('enmesh')
  const cluster = await ClusterManager.open({ configFile, host, password, meter, logger: stdoutLogger, ...options })
  host.cluster = cluster

  const isAllowed = ({ headers }: IncomingMessage) => {
    const [expected, received] = [`Bearer ${settings.apiToken}`, headers.authorization ?? ''].map((each) =>
      Buffer.from(each),
    )
    return expected!.length === received!.length && timingSafeEqual(expected!, received!)
  }
  async function answer(request: IncomingMessage): Promise<Answer> {
    const [, first = '', table = '', key = ''] = new URL(request.url ?? '', 'http://host').pathname
      .split('/')
      .map(decodeURIComponent)
    if (first === 'healthz') return [200]
    if (first === 'readyz') return [cluster.health().ready ? 200 : 503]
    if (!isAllowed(request)) return [401]
    if (request.method === 'POST' && first === '')
      return [200, await cluster.execute(await json(request), { superUser: true })]
    if (request.method === 'GET') {
      const record = host.get(first, table, key)
      return record ? [200, record] : [404]
    }
    if (request.method !== 'PUT') return [405]
    const record = { ...((await json(request)) as object), id: key }
    await host.commit([{ operation: 'upsert', database: first, table, records: [record] }])
    return [204]
  }
  const send = (response: ServerResponse, [statusCode, body]: Answer) => {
    response.writeHead(statusCode, { 'content-type': 'application/json' })
    response.end(body === undefined ? undefined : JSON.stringify(body))
  }
  const server = createServer((request, response) => {
    if (request.url === '/metrics') return exporter.getMetricsRequestHandler(request, response)
    answer(request).then(
      (each) => send(response, each),
      ({ statusCode = 500, message }: ClusterError) => send(response, [statusCode, { error: message }]),
    )
  })
  server.listen(settings.port)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const close = async () => {
    server.close()
    server.closeAllConnections()
    await cluster.close()
    await provider.shutdown()
    await host.close()
  }
  return { cluster, host, port, close }
}
