// Snapshots as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Monitor } from './monitor.ts'

/** Open streams of one page; a browser tab has one. */
const MAX_STREAMS = 50
/** Bytes that a slow reader may leave unread before it misses snapshots. Each snapshot is complete, so the next one makes up for it. */
const MAX_UNREAD_BYTES = 1_000_000
/** ms after which a browser connects again. */
const RETRY_MS = 2_000

export class EventStreams {
  readonly #monitor: Monitor
  readonly #open = new Set<ServerResponse>()

  constructor(monitor: Monitor) {
    this.#monitor = monitor
    monitor.ended.addEventListener('abort', () => this.#end(), { once: true })
  }

  /** `headers`: those of every answer. */
  serve({ method }: IncomingMessage, response: ServerResponse, headers: Readonly<Record<string, string>>): void {
    // The reader left while its rights were looked up: no `close` will come.
    if (response.closed) return
    if (this.#open.size >= MAX_STREAMS) {
      response.writeHead(503, { ...headers, 'retry-after': '5' }).end()
      return
    }
    // Proxies must neither collect nor compress what is sent.
    response.writeHead(200, {
      ...headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store, no-transform',
      'x-accel-buffering': 'no',
    })
    if (method === 'HEAD') {
      response.end()
      return
    }
    response.write(`retry: ${RETRY_MS}\n\n`)
    send(response, 'history', JSON.stringify(this.#monitor.nodeHistory()))
    send(response, 'snapshot', this.#monitor.snapshot())
    if (this.#monitor.ended.aborted) {
      response.end()
      return
    }
    this.#open.add(response)
    const unwatch = this.#monitor.watch((snapshot) => send(response, 'snapshot', snapshot))
    response.once('close', () => {
      this.#open.delete(response)
      unwatch()
    })
  }

  #end(): void {
    for (const response of this.#open) {
      // One that reads nothing would keep its connection, and with it the server.
      if (response.writableLength > 0) response.destroy()
      else response.end()
    }
  }
}

/** JSON has no line feeds outside of strings, and none inside. */
function send(response: ServerResponse, event: 'history' | 'snapshot', json: string): void {
  if (response.destroyed || response.writableEnded || response.writableLength > MAX_UNREAD_BYTES) return
  response.write(`event: ${event}\ndata: ${json}\n\n`)
}
