// The events of a manager as a plugin is handed them: listened to, awaited or iterated, never emitted.

import { clusterError } from '../errors.ts'
import { Fifo } from '../util/fifo.ts'
import { type ClusterEvents, type EventName, eventNames, type Payload, type SafeEmitter } from './events.ts'

/** Payloads that an iteration holds while whoever iterates is busy. */
const MAX_UNREAD_EVENTS = 10_000

export type ListenOptions = {
  /** Ends the listening. */
  readonly signal?: AbortSignal | undefined
}

export type AwaitOptions<Name extends EventName> = ListenOptions & {
  /** Payloads for which this is false are passed over. */
  readonly where?: ((payload: Payload<Name>) => boolean) | undefined
}

export interface ClusterEventSource {
  /** Calls `listener` at each, until `off` or until the signal aborts. */
  on<Name extends EventName>(
    event: Name,
    listener: (...args: ClusterEvents[Name]) => void,
    options?: ListenOptions,
  ): this
  /** Calls it at the next one only. */
  once<Name extends EventName>(
    event: Name,
    listener: (...args: ClusterEvents[Name]) => void,
    options?: ListenOptions,
  ): this
  off<Name extends EventName>(event: Name, listener: (...args: ClusterEvents[Name]) => void): this
  /** The first from now on. Rejects with the signal's reason, and `closed` when the manager is closed before. */
  next<Name extends EventName>(event: Name, options?: AwaitOptions<Name>): Promise<Payload<Name>>
  /**
   * Each from now on, in order, for `for await`: none is lost while one is dealt with. Ends with `break` and when the manager is closed; rejects
   * with the signal's reason, and with a RangeError when 10,000 wait to be taken.
   */
  iterate<Name extends EventName>(event: Name, options?: ListenOptions): AsyncIterableIterator<Payload<Name>>
}

type Registration = { readonly listener: unknown; end(): void }

/** That side of an emitter, frozen. What is registered through it is told by itself: no `this`, and nobody else's registration ends with it. */
export function createEventSource(emitter: SafeEmitter): ClusterEventSource {
  const registrations = new Map<EventName, Set<Registration>>()
  const listen = <Name extends EventName>(
    method: 'on' | 'once',
    event: Name,
    listener: (...args: ClusterEvents[Name]) => void,
    { signal }: ListenOptions = {},
  ) => {
    checkEvent(event)
    if (typeof listener !== 'function')
      throw new TypeError(`a listener must be a function, received ${String(listener)}`)
    checkSignal(signal)
    if (signal?.aborted) return source
    const ofEvent = registrations.get(event) ?? new Set()
    registrations.set(event, ofEvent)
    const wrapped = (...args: ClusterEvents[Name]) => {
      if (method === 'once') registration.end()
      return listener(...args)
    }
    const registration: Registration = {
      listener,
      end() {
        emitter.off(event, wrapped)
        ofEvent.delete(registration)
        removeAbortHandler()
      },
    }
    ofEvent.add(registration)
    emitter.on(event, wrapped)
    const removeAbortHandler = onAbort(signal, () => registration.end())
    return source
  }
  const source: ClusterEventSource = {
    on: (event, listener, options) => listen('on', event, listener, options),
    once: (event, listener, options) => listen('once', event, listener, options),
    off(event, listener) {
      for (const registration of [...(registrations.get(event) ?? [])])
        if (registration.listener === listener) registration.end()
      return source
    },
    next: async (event, { signal, where } = {}) => {
      const events = new EventIterator(emitter, event, signal)
      for await (const payload of events) if (where?.(payload) ?? true) return payload
      throw clusterError('closed')
    },
    iterate: (event, { signal } = {}) => new EventIterator(emitter, event, signal),
  }
  return Object.freeze(source)
}

/** A name that is none would be waited for without end. */
function checkEvent(event: string): void {
  if (!(eventNames as readonly string[]).includes(event)) throw new TypeError(`there is no event '${event}'`)
}

function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new TypeError(`'signal' must be an AbortSignal, received ${String(signal)}`)
}

/** What is to be done when a signal aborts: one listener each, however much there is, because Node warns of more than ten. */
const abortHandlers = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls back once, at once if that is so already. What it returns has it forgotten. */
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

/** It listens from the moment it is made. */
class EventIterator<Name extends EventName> implements AsyncIterableIterator<Payload<Name>> {
  #unread = new Fifo<Payload<Name>>()
  readonly #pendingReads = new Fifo<PendingRead<Payload<Name>>>()
  readonly #unsubscribe: (() => void)[]
  #ended = false
  /** Told to whoever asks next, once. */
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
    // One of the two may have been so already.
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
      this.#end({ error: new RangeError(`${MAX_UNREAD_EVENTS} events wait to be taken`) })
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
