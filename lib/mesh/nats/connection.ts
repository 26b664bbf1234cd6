// One client connection to one of our own servers, its errors told in the mesh's terms.

import { setMaxListeners } from 'node:events'
import { connect, createInbox, ErrorCode, Events, type Msg, type MsgHdrs, type NatsConnection, NatsError } from 'nats'
import { type Headers, MeshError, type MeshErrorCode, type RequestOptions } from '../mesh.ts'

export type ConnectionOptions = {
  port: number
  user: string
  /** Asked for at every attempt to connect: it may have been renewed. */
  password(): string
  name: string
  /** Called with false when the connection is lost and with true when it is back. */
  onChange(up: boolean): void
}

const CONNECT_TIMEOUT_MS = 2_000
/** ms between two looks at the time, and how late one may be before we were asleep: stopped, or kept from our sockets. */
const SUSPEND_CHECK_INTERVAL_MS = 500
const SUSPEND_THRESHOLD_MS = 1_000
/** ms between two connections made anew for that: who sleeps again and again must get something done in between. */
const MIN_RECONNECT_INTERVAL_MS = 5_000

const codes: Record<string, MeshError['code']> = {
  [ErrorCode.NoResponders]: 'no_responders',
  [ErrorCode.Timeout]: 'timeout',
  [ErrorCode.ConnectionClosed]: 'disconnected',
  [ErrorCode.ConnectionDraining]: 'disconnected',
  [ErrorCode.Disconnect]: 'disconnected',
  [ErrorCode.MaxPayloadExceeded]: 'too_large',
}

export const toMeshError = (error: unknown): MeshError => {
  if (error instanceof MeshError) return error
  const code = error instanceof NatsError ? codes[error.code] : undefined
  const message = error instanceof Error ? error.message : String(error)
  return new MeshError(code ?? 'rejected', message, { cause: error })
}

/** `extraHeaders`: headers that are added to the others. */
export type PublishOptions = { reply?: string; headers?: Headers; extraHeaders?: Headers }

/** What the client asks of headers when it sends them. Its own check every key and value, and take longer than all the rest. */
class SentHeaders {
  readonly #bytes: Uint8Array

  constructor(...all: (Headers | undefined)[]) {
    let text = 'NATS/1.0\r\n'
    for (const values of all)
      for (const key in values) {
        const value = values[key]!
        if (value.includes('\n') || value.includes('\r'))
          throw new MeshError('rejected', `the header ${key} has several lines`)
        text += `${key}: ${value}\r\n`
      }
    this.#bytes = Buffer.from(`${text}\r\n`)
  }

  encode(): Uint8Array {
    return this.#bytes
  }
}

/** Bytes of the longest answer of a server that is read: ours to a list of streams takes a fraction of it. */
const MAX_JSON_BYTES = 4 * 1024 * 1024

/** What a server, or whoever poses as one, answered. Throws for what is no JSON, or would take long to be read. */
export function parseJson<T>({ data }: Pick<Msg, 'data'>, maxBytes = MAX_JSON_BYTES): T {
  if (data.byteLength > maxBytes) throw new MeshError('rejected', `an answer of ${data.byteLength} bytes is not read`)
  try {
    return JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString()) as T
  } catch (error) {
    throw new MeshError('rejected', 'an answer is no JSON', { cause: error })
  }
}

/** Settles as `work` does, or rejects with `code` as soon as the signal says so. */
export async function abortable<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  code: MeshErrorCode = 'aborted',
): Promise<T> {
  if (!signal) return work
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(new MeshError(code, `the request was ${code}`))
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** As many wait for it as requests are under way. */
const createAbortController = (): AbortController => {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  return controller
}

export class Connection {
  readonly nats: NatsConnection
  #up = true
  #disconnected = createAbortController()
  #closed = false
  readonly #suspendTimer: NodeJS.Timeout

  private constructor(nats: NatsConnection, onChange: (up: boolean) => void) {
    this.nats = nats
    this.#suspendTimer = this.#watchForSuspend()
    void this.#watchStatus(onChange)
  }

  /** Rejects when the server does not take us; once connected it reconnects for ever. */
  static async open({ port, user, password, name, onChange }: ConnectionOptions): Promise<Connection> {
    const nats = await connect({
      servers: `127.0.0.1:${port}`,
      authenticator: () => ({ user, pass: password() }),
      name,
      timeout: CONNECT_TIMEOUT_MS,
      reconnect: true,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 50,
      reconnectJitter: 50,
      pingInterval: 2_000,
      maxPingOut: 2,
      ignoreClusterUpdates: true,
      // Whoever holds our server's port for a moment must not end our attempts.
      ignoreAuthErrorAbort: true,
    })
    return new Connection(nats, onChange)
  }

  /**
   * While we are asleep our socket's buffer fills up, and TCP sends what did not fit again after ever longer pauses: for as
   * long as we slept nothing may arrive now. A new connection has all of it at once.
   */
  #watchForSuspend(): NodeJS.Timeout {
    let last = performance.now()
    let reconnectedAt = Number.NEGATIVE_INFINITY
    const timer = setInterval(() => {
      const now = performance.now()
      if (
        now - last > SUSPEND_CHECK_INTERVAL_MS + SUSPEND_THRESHOLD_MS &&
        now - reconnectedAt > MIN_RECONNECT_INTERVAL_MS
      ) {
        reconnectedAt = now
        this.nats.reconnect().catch(() => {})
      }
      last = now
    }, SUSPEND_CHECK_INTERVAL_MS)
    return timer.unref()
  }

  get up(): boolean {
    return this.#up && !this.#closed
  }

  get serverId(): string {
    return this.nats.info?.server_id ?? ''
  }

  async #watchStatus(onChange: (up: boolean) => void): Promise<void> {
    for await (const status of this.nats.status()) {
      const up = status.type === Events.Reconnect ? true : status.type === Events.Disconnect ? false : this.#up
      if (up === this.#up || this.#closed) continue
      this.#up = up
      if (!up) {
        this.#disconnected.abort()
        this.#disconnected = createAbortController()
      }
      onChange(up)
    }
  }

  /** While disconnected the client would buffer in silence; we refuse instead. */
  #requireConnected(): void {
    if (!this.#up || this.#closed) throw new MeshError('disconnected', 'the local server is not connected')
  }

  /** What is under way when the connection is lost gets no answer any more: it rejects `disconnected` at once. */
  async request(subject: string, data: Uint8Array | string, { timeout, signal }: RequestOptions): Promise<Msg> {
    this.#requireConnected()
    // An inbox of its own: interest in an old one may have been lost on the way to the other node, for good (2.9.10).
    const answer = this.nats.request(subject, data, { timeout, noMux: true })
    return abortable(abortable(answer, signal), this.#disconnected.signal, 'disconnected').catch((error) => {
      throw toMeshError(error)
    })
  }

  publish(subject: string, data: Uint8Array | string, options: PublishOptions = {}): void {
    this.#requireConnected()
    const { reply = '', headers, extraHeaders } = options
    if (!headers) return this.nats.publish(subject, data, { reply })
    this.nats.publish(subject, data, { reply, headers: new SentHeaders(headers, extraHeaders) as object as MsgHdrs })
  }

  /** Messages to `callback`, whose errors end nothing (a callback that throws would leave the connection deaf). */
  subscribe(subject: string, callback: (message: Msg) => void): { unsubscribe(): void } {
    return this.nats.subscribe(subject, {
      callback: (error, message) => {
        if (error) return
        try {
          callback(message)
        } catch {
          // Handlers report their own failures; this is the last line that keeps the connection hearing.
        }
      },
    })
  }

  inbox(): string {
    return createInbox()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#suspendTimer)
    await this.nats.close()
  }
}
