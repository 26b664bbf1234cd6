// The events of a manager for plugins: to listen to, await or iterate, not to emit.

import { clusterError } from '../errors.ts'
import { Fifo } from '../util/fifo.ts'
import { type ClusterEvents, type EventName, eventNames, type Payload, type SafeEmitter } from './events.ts'

/** Payloads that an iteration buffers while the consumer is busy. */
const MAX_UNREAD_EVENTS = 10_000

export type ListenOptions = {
  /** Removes the listener, or rejects the promise, when it aborts. */
  readonly signal?: AbortSignal | undefined
}

export type AwaitOptions<Name extends EventName> = ListenOptions & {
  /** Skips payloads for which it returns false. */
  readonly where?: ((payload: Payload<Name>) => boolean) | undefined
}

export interface ClusterEventSource {
  /** Calls `listener` for each event, until `off` or until the signal aborts. */
  on<Name extends EventName>(
    event: Name,
    listener: (...args: ClusterEvents[Name]) => void,
    options?: ListenOptions,
  ): this
  off<Name extends EventName>(event: Name, listener: (...args: ClusterEvents[Name]) => void): this
  /** Resolves with the next event. Rejects with the signal's reason, and with `closed` when the manager is closed first. */
  once<Name extends EventName>(event: Name, options?: AwaitOptions<Name>): Promise<Payload<Name>>
  /**
   * Every event from now on, in order, for `for await`. Events that occur while the consumer is busy are buffered. Ends with `break`
   * and when the manager is closed. Rejects with the signal's reason, and with a RangeError when 10,000 events are buffered.
   */
  iterate<Name extends EventName>(event: Name, options?: ListenOptions): AsyncIterableIterator<Payload<Name>>
}

type Registration = { readonly listener: unknown; end(): void }

/** A frozen source of the emitter's events. Listeners get no `this`, and `off` removes only listeners that were added through this source. */
export function createEventSource(emitter: SafeEmitter): ClusterEventSource {
  const registrations = new Map<EventName, Set<Registration>>()
  const source: ClusterEventSource = {
    on(event, listener, { signal } = {}) {
      checkEvent(event)
      if (typeof listener !== 'function')
        throw new TypeError(`listener must be a function, received ${String(listener)}`)
      checkSignal(signal)
      if (signal?.aborted) return source
      const ofEvent = registrations.get(event) ?? new Set()
      registrations.set(event, ofEvent)
      const withoutThis = (...args: ClusterEvents[typeof event]) => listener(...args)
      const registration: Registration = {
        listener,
        end() {
          emitter.off(event, withoutThis)
          ofEvent.delete(registration)
          removeAbortHandler()
        },
      }
      ofEvent.add(registration)
      emitter.on(event, withoutThis)
      const removeAbortHandler = onAbort(signal, () => registration.end())
      return source
    },
    off(event, listener) {
      for (const registration of [...(registrations.get(event) ?? [])])
        if (registration.listener === listener) registration.end()
      return source
    },
    once: async (event, { signal, where } = {}) => {
      const events = new EventIterator(emitter, event, signal)
      for await (const payload of events) if (where?.(payload) ?? true) return payload
      throw clusterError('closed')
    },
    iterate: (event, { signal } = {}) => new EventIterator(emitter, event, signal),
  }
  return Object.freeze(source)
}

/** A mistyped event would never occur. */
function checkEvent(event: string): void {
  if (!(eventNames as readonly string[]).includes(event)) throw new TypeError(`unknown event '${event}'`)
}

function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new TypeError(`'signal' must be an AbortSignal, received ${String(signal)}`)
}

/** The handlers of each signal. A signal gets one listener only, because Node warns about more than ten. */
const abortHandlers = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls `handler` once when the signal aborts, immediately if it has aborted. The returned function removes the handler. */
function onAbort(signal: AbortSignal | undefined, handler: () => void): () => void {
  if (!signal) return () => {}
  if (signal.aborted) {
    handler()
    return () => {}
  }
  const registered = abortHandlers.get(signal)
  const handlers = registered ?? new Set()
  handlers.add(handler)
  if (!registered) {
    abortHandlers.set(signal, handlers)
    signal.addEventListener('abort', () => [...handlers].forEach((each) => void (handlers.delete(each) && each())), {
      once: true,
    })
  }
  return () => void handlers.delete(handler)
}

type PendingRead<T> = { resolve(result: IteratorResult<T, undefined>): void; reject(error: unknown): void }

/** Buffers events from its construction on. */
class EventIterator<Name extends EventName> implements AsyncIterableIterator<Payload<Name>> {
  #unread = new Fifo<Payload<Name>>()
  readonly #pendingReads = new Fifo<PendingRead<Payload<Name>>>()
  readonly #unsubscribe: (() => void)[]
  #ended = false
  /** The next read rejects with it, once. */
  #failure: { error: unknown } | undefined

  constructor(emitter: SafeEmitter, event: Name, signal: AbortSignal | undefined) {
    checkEvent(event)
    checkSignal(signal)
    const listener = (...[payload]: ClusterEvents[Name]) => this.#add(payload)
    emitter.on(event, listener)
    this.#unsubscribe = [() => emitter.off(event, listener)]
    this.#unsubscribe.push(
      onAbort(signal, () => this.#end({ error: signal!.reason })),
      onAbort(emitter.ended, () => this.#end()),
    )
    // A handler may have run before `#unsubscribe` was complete.
    if (this.#ended) this.#end()
  }

  next(): Promise<IteratorResult<Payload<Name>, undefined>> {
    const value = this.#unread.shift()
    if (value !== undefined) return Promise.resolve({ value, done: false })
    if (!this.#ended) return new Promise((resolve, reject) => this.#pendingReads.push({ resolve, reject }))
    const failure = this.#failure
    this.#failure = undefined
    return failure ? Promise.reject(failure.error) : Promise.resolve({ value: undefined, done: true })
  }

  return(): Promise<IteratorResult<Payload<Name>, undefined>> {
    this.#end()
    this.#unread = new Fifo()
    this.#failure = undefined
    return Promise.resolve({ value: undefined, done: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  #add(payload: Payload<Name>): void {
    const pendingRead = this.#pendingReads.shift()
    if (pendingRead) return pendingRead.resolve({ value: payload, done: false })
    this.#unread.push(payload)
    if (this.#unread.length >= MAX_UNREAD_EVENTS)
      this.#end({ error: new RangeError(`${MAX_UNREAD_EVENTS} unread events`) })
  }

  #end(error?: { error: unknown }): void {
    this.#ended = true
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    let failure = error
    for (let pendingRead = this.#pendingReads.shift(); pendingRead; pendingRead = this.#pendingReads.shift()) {
      if (failure) pendingRead.reject(failure.error)
      else pendingRead.resolve({ value: undefined, done: true })
      failure = undefined
    }
    if (failure) this.#failure = failure
  }
}
