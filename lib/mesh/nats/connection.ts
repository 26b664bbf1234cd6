// A client connection to a local server; its errors are mesh errors.

import { setMaxListeners } from 'node:events'
import {
  connect,
  createInbox,
  ErrorCode,
  Events,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  NatsError,
  type Subscription,
} from 'nats'
import { withAbort } from '../../util/abort.ts'
import { clearInterval, setInterval, systemTimers } from '../../util/timers.ts'
import { type Headers, MeshError, type MeshErrorCode, type RequestOptions } from '../mesh.ts'
import { LIST_KEY } from './header-reader.ts'

export type ConnectionOptions = {
  port: number
  user: string
  /** Called at every attempt to connect: the password may have been rotated. */
  password(): string
  name: string
  /** Called with false when the connection is lost and with true when it is back. */
  onChange(up: boolean): void
}

const CONNECT_TIMEOUT_MS = 2_000
const SUSPEND_CHECK_INTERVAL_MS = 500
/** A check that is later than this means that the process was suspended, or kept from its sockets. */
const SUSPEND_THRESHOLD_MS = 1_000
/** A process that is suspended again and again needs time to work in between. */
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

/** Headers as the client encodes them. The client's own class validates each key and value, which costs more than all other work on a message. */
class SentHeaders {
  readonly #bytes: Uint8Array

  constructor(...all: (Headers | undefined)[]) {
    let text = 'NATS/1.0\r\n'
    for (const values of all)
      for (const key in values) {
        const value = values[key]!
        if (value.includes('\n') || value.includes('\r'))
          throw new MeshError('rejected', `header ${key} contains a line break`)
        // HarperDB has one line for each node.
        if (key !== LIST_KEY) text += `${key}: ${value}\r\n`
        else for (const item of value.split(',')) text += `${key}: ${item}\r\n`
      }
    this.#bytes = Buffer.from(`${text}\r\n`)
  }

  encode(): Uint8Array {
    return this.#bytes
  }
}

/** Limit of a server's answer. A list of streams takes a fraction of it. */
const MAX_JSON_BYTES = 4 * 1024 * 1024

/** Parses the answer of a server, or of a peer that poses as one. Throws for invalid JSON and for answers beyond `maxBytes`. */
export function parseJson<T>({ data }: Pick<Msg, 'data'>, maxBytes = MAX_JSON_BYTES): T {
  if (data.byteLength > maxBytes)
    throw new MeshError('rejected', `answer of ${data.byteLength} bytes exceeds the limit of ${maxBytes}`)
  try {
    return JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString()) as T
  } catch (error) {
    throw new MeshError('rejected', 'answer is not valid JSON', { cause: error })
  }
}

/** For `withAbort`: why a request ended before its answer. */
export const endedBy = (code: MeshErrorCode) => () => new MeshError(code, `the request was ${code}`)

/** Every pending request listens to this signal: no limit of listeners. */
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
  readonly #subscriptions = new Set<Subscription>()

  private constructor(nats: NatsConnection, onChange: (up: boolean) => void) {
    this.nats = nats
    this.#suspendTimer = this.#watchForSuspend()
    void this.#watchStatus(onChange)
  }

  /** Rejects when the server rejects the connection; once connected, it reconnects without limit. */
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
      // Another server that briefly holds the port must not end the attempts.
      ignoreAuthErrorAbort: true,
    })
    return new Connection(nats, onChange)
  }

  /**
   * While the process is suspended its socket's buffer fills up, and TCP retries the rest after ever longer pauses: afterwards nothing
   * may arrive for as long as the suspension lasted. A new connection receives data at once.
   */
  #watchForSuspend(): NodeJS.Timeout {
    let last = systemTimers.elapsed()
    let reconnectedAt = Number.NEGATIVE_INFINITY
    const timer = setInterval(() => {
      const now = systemTimers.elapsed()
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

  /** While disconnected the client buffers messages silently; rejecting them is better. */
  #requireConnected(): void {
    if (!this.#up || this.#closed) throw new MeshError('disconnected', 'the local server is not connected')
  }

  /** Rejects `disconnected` as soon as the connection is lost: a pending request would never be answered. */
  async request(subject: string, data: Uint8Array | string, { timeout, signal }: RequestOptions): Promise<Msg> {
    this.#requireConnected()
    // A separate inbox for each request: a remote server (2.9.10) may have lost the interest in an old one for good.
    const answer = this.nats.request(subject, data, { timeout, noMux: true })
    const wanted = withAbort(answer, signal, endedBy('aborted'))
    return withAbort(wanted, this.#disconnected.signal, endedBy('disconnected')).catch((error) => {
      throw toMeshError(error)
    })
  }

  publish(subject: string, data: Uint8Array | string, options: PublishOptions = {}): void {
    this.#requireConnected()
    const { reply = '', headers, extraHeaders } = options
    if (!headers) return this.nats.publish(subject, data, { reply })
    this.nats.publish(subject, data, { reply, headers: new SentHeaders(headers, extraHeaders) as object as MsgHdrs })
  }

  /** What is subscribed to now, with inboxes of readers. */
  get subjects(): string[] {
    return [...this.#subscriptions].map((subscription) => subscription.getSubject())
  }

  /** Errors of `callback` are ignored: a callback that throws would end all subscriptions of the connection. */
  subscribe(subject: string, callback: (message: Msg) => void): { unsubscribe(): void } {
    const subscription = this.nats.subscribe(subject, {
      callback: (error, message) => {
        if (error) return
        try {
          callback(message)
        } catch {
          // Handlers report their own failures.
        }
      },
    })
    this.#subscriptions.add(subscription)
    return {
      unsubscribe: () => {
        this.#subscriptions.delete(subscription)
        subscription.unsubscribe()
      },
    }
  }

  inbox(): string {
    return createInbox()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#suspendTimer)
    // The client forgets pending requests, and their time-outs, when it closes.
    this.#disconnected.abort()
    await this.nats.close()
  }
}
