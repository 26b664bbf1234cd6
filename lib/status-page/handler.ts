// The request handler: static files, JSON, server-sent events and probes. Read only.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { pathToFileURL } from 'node:url'
import type { ClusterView } from '../cluster/view.ts'
import { type Asset, Assets } from './assets.ts'
import { EventStreams } from './event-stream.ts'
import { Monitor } from './monitor.ts'

export type StatusPageOptions = {
  /**
   * Where the page is, such as `/status`, if the addresses of requests begin with it; they are relative to a mount point in Express and
   * Connect. Default: ''. The page itself uses relative addresses only, so a proxy may add another prefix.
   */
  path?: string
  /**
   * Whether this request may see the page and its data. May answer the request itself, for example with 401. Default: every request may, so
   * the embedder decides before it calls the handler. The probes are answered without it.
   */
  authorize?: (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>
  /** Directory of the static files, for a bundle that does not have them beside it. Default: that of the package. */
  directory?: string
}

export type StatusPage = {
  /** For `http.createServer`, or as middleware: `next` is called for addresses that are not of the page. */
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void
  /** Ends open streams and the collection of history. Idempotent; it also happens by itself after the manager is closed. */
  close(): void
}

/** No script, style or image from elsewhere, and nothing inline: a name that contains HTML stays text. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const HEADERS = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
}
const PROBES: readonly string[] = ['healthz', 'readyz']

/**
 * The status page of one manager: `statusPage(cluster.view)`. It keeps the history of the last ten minutes from now on. Throws a TypeError for an
 * invalid option.
 */
export function statusPage(view: ClusterView, options: StatusPageOptions = {}): StatusPage {
  const { path, directory, authorize = () => true } = checkOptions(options)
  const monitor = new Monitor(view)
  const streams = new EventStreams(monitor)
  const assets = new Assets(directory)
  const answer = async (name: string, request: IncomingMessage, response: ServerResponse, query: URLSearchParams) => {
    if (PROBES.includes(name)) return sendProbe(name, monitor.health().ready, response)
    if (!(await authorize(request, response))) {
      if (!response.headersSent && !response.writableEnded) sendText(response, 403, 'Forbidden')
      return
    }
    if (name === 'events') return streams.serve(request, response, HEADERS)
    if (name === 'snapshot.json') return sendJson(response, 200, monitor.snapshot())
    if (name === 'history.json') return sendHistory(monitor, query, response)
    if (assets.has(name)) sendAsset(await assets.load(name), request, response)
  }
  const handle = (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void => {
    const found = findName(request.url ?? '/', path, assets)
    if (found === undefined) return next ? next() : sendText(response, 404, 'Not found')
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      return sendText(response, 405, 'Only GET and HEAD')
    }
    if (found.name === '') return redirect(request, response)
    answer(found.name, request, response, found.query).catch((error: unknown) => {
      if (next) next(error)
      else if (response.headersSent) response.destroy()
      else sendText(response, 500, 'The status page cannot be shown')
    })
  }
  return Object.assign(handle, { close: () => monitor.close() })
}

function checkOptions({ path = '', authorize, directory }: StatusPageOptions) {
  if (typeof path !== 'string' || (path !== '' && !/^\/.*[^/]$/.test(path)))
    throw new TypeError(`'path' must be '' or begin with a slash and end without one, received '${path}'`)
  if (authorize !== undefined && typeof authorize !== 'function')
    throw new TypeError(`'authorize' must be a function, received ${typeof authorize}`)
  if (directory !== undefined && typeof directory !== 'string')
    throw new TypeError(`'directory' must be a path, received ${typeof directory}`)
  const address = directory === undefined ? undefined : new URL(`${pathToFileURL(directory).href.replace(/\/$/, '')}/`)
  return { path, authorize, directory: address }
}

const DATA: readonly string[] = ['events', 'snapshot.json', 'history.json', ...PROBES]

/** The name below the mount point; '' for the mount point without a slash; undefined for what is not of the page. */
function findName(url: string, path: string, assets: Assets): { name: string; query: URLSearchParams } | undefined {
  const [pathname = '', search = ''] = url.split('?', 2)
  if (!pathname.startsWith(path)) return undefined
  const rest = pathname.slice(path.length)
  const query = new URLSearchParams(search)
  if (rest === '') return { name: '', query }
  if (!rest.startsWith('/')) return undefined
  const name = rest === '/' ? 'index.html' : rest.slice(1)
  return DATA.includes(name) || assets.has(name) ? { name, query } : undefined
}

/** To the same address with a slash, so that relative addresses are below it. `originalUrl`: before a mount point was removed. */
function redirect(request: IncomingMessage & { originalUrl?: string }, response: ServerResponse): void {
  const [pathname = ''] = (request.originalUrl ?? request.url ?? '').split('?', 1)
  const last = pathname.slice(pathname.lastIndexOf('/') + 1)
  response.writeHead(308, { ...HEADERS, location: `${last}/`, 'content-length': 0 }).end()
}

function sendProbe(name: string, ready: boolean, response: ServerResponse): void {
  sendJson(response, name === 'healthz' || ready ? 200 : 503, JSON.stringify({ ready }))
}

function sendHistory(monitor: Monitor, query: URLSearchParams, response: ServerResponse): void {
  const [node, database, table] = ['node', 'database', 'table'].map((name) => query.get(name))
  if (node == null && database == null && table == null)
    return sendJson(response, 200, JSON.stringify(monitor.nodeHistory()))
  if (node == null || database == null || table == null)
    return sendText(response, 400, 'node, database and table belong together')
  const series = monitor.tableHistory({ node, database, table })
  return series ? sendJson(response, 200, JSON.stringify(series)) : sendText(response, 404, 'Not found')
}

function sendAsset(asset: Asset, request: IncomingMessage, response: ServerResponse): void {
  const headers = { ...HEADERS, 'cache-control': 'no-cache', etag: asset.etag, 'content-type': asset.type }
  if (request.headers['if-none-match'] === asset.etag) response.writeHead(304, headers).end()
  else response.writeHead(200, { ...headers, 'content-length': asset.content.length }).end(asset.content)
}

const sendJson = (response: ServerResponse, status: number, json: string): void =>
  sendBody(response, status, 'application/json; charset=utf-8', json)

const sendText = (response: ServerResponse, status: number, text: string): void =>
  sendBody(response, status, 'text/plain; charset=utf-8', `${text}\n`)

/** Node sends no body in an answer to HEAD. */
function sendBody(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    ...HEADERS,
    'content-type': type,
    'cache-control': 'no-store',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}
