// The events of a manager as a plugin is handed them: listened to, awaited or iterated, never emitted.

import { clusterError } from './errors.ts'
import { type ClusterEvents, type EventName, eventNames, type Payload, type SafeEmitter } from './events.ts'
import { Fifo } from './fifo.ts'

/** Payloads that an iteration holds while whoever iterates is busy. */
const MOST_UNREAD = 10_000

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
export function readOnly(emitter: SafeEmitter): ClusterEventSource {
  const registrations = new Map<EventName, Set<Registration>>()
  const listen = <Name extends EventName>(
    how: 'on' | 'once',
    event: Name,
    listener: (...args: ClusterEvents[Name]) => void,
    { signal }: ListenOptions = {},
  ) => {
    checkEvent(event)
    if (typeof listener !== 'function')
      throw new TypeError(`a listener must be a function, received ${String(listener)}`)
    checkSignal(signal)
    if (signal?.aborted) return source
    const own = registrations.get(event) ?? new Set()
    registrations.set(event, own)
    const told = (...args: ClusterEvents[Name]) => {
      if (how === 'once') registration.end()
      return listener(...args)
    }
    const registration: Registration = {
      listener,
      end() {
        emitter.off(event, told)
        own.delete(registration)
        forget()
      },
    }
    own.add(registration)
    emitter.on(event, told)
    const forget = whenAborted(signal, () => registration.end())
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
      const events = new Events(emitter, event, signal)
      for await (const payload of events) if (where?.(payload) ?? true) return payload
      throw clusterError('closed')
    },
    iterate: (event, { signal } = {}) => new Events(emitter, event, signal),
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
const pending = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls back once, at once if that is so already. What it returns has it forgotten. */
function whenAborted(signal: AbortSignal | undefined, work: () => void): () => void {
  if (!signal) return () => {}
  if (signal.aborted) {
    work()
    return () => {}
  }
  const known = pending.get(signal)
  const works = known ?? new Set()
  works.add(work)
  if (!known) {
    pending.set(signal, works)
    signal.addEventListener('abort', () => [...works].forEach((each) => void (works.delete(each) && each())), {
      once: true,
    })
  }
  return () => void works.delete(work)
}

type Taker<T> = { resolve(result: IteratorResult<T, undefined>): void; reject(error: unknown): void }

/** It listens from the moment it is made. */
class Events<Name extends EventName> implements AsyncIterableIterator<Payload<Name>> {
  #unread = new Fifo<Payload<Name>>()
  readonly #takers = new Fifo<Taker<Payload<Name>>>()
  readonly #forget: (() => void)[]
  #over = false
  /** Told to whoever asks next, once. */
  #fault: { error: unknown } | undefined

  constructor(emitter: SafeEmitter, event: Name, signal: AbortSignal | undefined) {
    checkEvent(event)
    checkSignal(signal)
    const listener = (...[payload]: ClusterEvents[Name]) => this.#add(payload)
    emitter.on(event, listener)
    this.#forget = [() => emitter.off(event, listener)]
    this.#forget.push(
      whenAborted(signal, () => this.#end({ error: signal!.reason })),
      whenAborted(emitter.ended, () => this.#end()),
    )
    // One of the two may have been so already.
    if (this.#over) this.#end()
  }

  next(): Promise<IteratorResult<Payload<Name>, undefined>> {
    const value = this.#unread.shift()
    if (value !== undefined) return Promise.resolve({ value, done: false })
    if (!this.#over) return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }))
    const fault = this.#fault
    this.#fault = undefined
    return fault ? Promise.reject(fault.error) : Promise.resolve({ value: undefined, done: true })
  }

  return(): Promise<IteratorResult<Payload<Name>, undefined>> {
    this.#end()
    this.#unread = new Fifo()
    this.#fault = undefined
    return Promise.resolve({ value: undefined, done: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  #add(payload: Payload<Name>): void {
    const taker = this.#takers.shift()
    if (taker) return taker.resolve({ value: payload, done: false })
    this.#unread.push(payload)
    if (this.#unread.length >= MOST_UNREAD)
      this.#end({ error: new RangeError(`${MOST_UNREAD} events wait to be taken`) })
  }

  #end(fault?: { error: unknown }): void {
    this.#over = true
    for (const forget of this.#forget) forget()
    let told = fault
    for (let taker = this.#takers.shift(); taker; taker = this.#takers.shift()) {
      if (told) taker.reject(told.error)
      else taker.resolve({ value: undefined, done: true })
      told = undefined
    }
    if (told) this.#fault = told
  }
}
