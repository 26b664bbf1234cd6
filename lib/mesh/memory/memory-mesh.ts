// One node's mesh in memory: what it asks of others and of its own streams travels as messages over the network's wires.

import type { Timers } from '../../timers.ts'
import {
  type Entry,
  type Expected,
  type Member,
  type Mesh,
  MeshError,
  type MeshListener,
  type MeshState,
  type Message,
  type Reader,
  type RequestOptions,
  type Routes,
  type Source,
  type StreamLimits,
  type StreamState,
  type TableName,
} from '../mesh.ts'
import { Appender, MAX_PAYLOAD } from './appender.ts'
import { Calls } from './calls.ts'
import { Consumer } from './consumer.ts'
import type { Disk } from './disk.ts'
import type { Fabric, Handler, Station } from './fabric.ts'
import { MemoryReader } from './reader.ts'
import { existing } from './stream.ts'

export class MemoryMesh implements Mesh {
  readonly maxPayload = MAX_PAYLOAD
  readonly #fabric: Fabric
  readonly timers: Timers
  readonly #calls: Calls
  readonly #readers = new Set<MemoryReader>()
  readonly #hearers: ((data: Uint8Array) => void)[] = []
  #node = ''
  #address = ''
  #state: MeshState = 'stopped'
  #session = ''
  #listener: MeshListener | undefined
  #station: Station | undefined
  #appender: Appender | undefined
  #limits: StreamLimits = {}

  constructor(fabric: Fabric) {
    this.#fabric = fabric
    this.timers = fabric.timers
    this.#calls = new Calls(fabric.timers)
  }

  get state(): MeshState {
    return this.#state
  }

  get session(): string {
    return this.#session
  }

  // --- life -------------------------------------------------------------------------------------------------------------

  async open(node: string, routes: Routes, listener: MeshListener): Promise<void> {
    if (this.#station) throw new MeshError('refused', 'a mesh is opened once')
    this.#node = node
    this.#listener = listener
    this.#station = this.#stationOf(listener, routes)
    this.#address = this.#fabric.join(node, this.#station)
    this.#appender = new Appender(this.#fabric, this.#address)
    this.#become('connecting')
    await new Promise((resolve) => setImmediate(resolve))
    if (this.state === 'stopped') throw new MeshError('disconnected', 'closed while it was being opened')
    this.#come()
    this.#fabric.compareNames(node, this.#address)
  }

  async close(): Promise<void> {
    if (this.#state === 'stopped') return
    this.#become('stopped')
    this.#loseAll('the mesh is closed')
    this.#fabric.leave(this.#address)
  }

  async setRoutes(routes: Routes): Promise<void> {
    if (this.#station) this.#station.routes = routes.hub
  }

  #become(state: MeshState, reason?: string): void {
    this.#state = state
    if (this.#station) this.#station.connected = state === 'connected'
    this.#listener?.state(state, reason)
  }

  #come(): void {
    this.#fabric.disk(this.#address).limits = this.#limits
    this.#session = this.#fabric.unique()
    this.#become('connected')
  }

  #loseAll(reason: string): void {
    const error = new MeshError('disconnected', reason)
    this.#calls.fail(error)
    this.#appender?.fail(error)
    for (const reader of [...this.#readers]) reader.lose(reason)
  }

  /** What the network and the other nodes see of us, and do to us. */
  #stationOf(listener: MeshListener, routes: Routes): Station {
    return {
      connected: false,
      routes: routes.hub,
      handler: undefined,
      hear: (data) => {
        for (const hearer of this.#hearers) hearer(data.slice())
      },
      loseReaders: (reason, peer, silently) => {
        for (const reader of [...this.#readers])
          if (reader.peer === peer) silently ? reader.forget() : reader.lose(reason)
      },
      linked: () => listener.linked(),
      refused: (peer, reason) => listener.refused(peer, reason),
      disconnect: (reason) => {
        this.#become('disconnected', reason)
        this.#loseAll(reason)
      },
      reconnect: () => {
        if (this.#state === 'disconnected') this.#come()
      },
      close: () => this.close(),
    }
  }

  // --- messages between nodes -------------------------------------------------------------------------------------------

  /** Our side, while it is connected. Throws disconnected. */
  #connected(): Station {
    if (this.#station?.connected) return this.#station
    throw new MeshError('disconnected', `the mesh is ${this.#state}`)
  }

  #addressOf(node: string): string {
    return node === this.#node ? this.#address : node
  }

  #send(address: string, work: () => void): void {
    this.#fabric.send(this.#address, address, work)
  }

  /** Has `work` done at a node and resolves with what it gives. Rejects as `request`, or as the work does. */
  async #ask<T>(
    node: string,
    options: Partial<RequestOptions>,
    work: (disk: Disk, station: Station) => T | Promise<T>,
    listening: (station: Station) => boolean = () => true,
  ): Promise<T> {
    this.#connected()
    const address = this.#addressOf(node)
    const way = this.#fabric.way(this.#address, address)
    return this.#calls.call<T>(options, (call) => {
      if (way === 'none' || (way === 'open' && !listening(this.#fabric.at(address)!)))
        return call.reject(new MeshError('no_responders', `nobody listens as '${node}'`))
      this.#send(address, async () => {
        const answer = (how: () => void) => this.#fabric.send(address, this.#address, how)
        try {
          const value = await work(this.#fabric.disk(address), this.#fabric.at(address)!)
          answer(() => call.resolve(value))
        } catch (error) {
          answer(() => call.reject(error))
        }
      })
    })
  }

  async request(node: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    const question = data.slice()
    const work = (_: Disk, { handler }: Station) =>
      // Who fails to answer is silent.
      handler!(question).then(
        (answer) => answer.slice(),
        () => new Promise<never>(() => {}),
      )
    return this.#ask(node, options, work, ({ handler }) => handler !== undefined)
  }

  serve(handler: Handler): void {
    this.#connected().handler = handler
  }

  announce(data: Uint8Array): void {
    if (this.#state !== 'connected') return
    const copy = data.slice()
    for (const address of [this.#address, ...this.#fabric.neighbours(this.#address)])
      this.#send(address, () => this.#fabric.at(address)?.hear(copy))
  }

  listen(handler: (data: Uint8Array) => void): void {
    this.#connected()
    this.#hearers.push(handler)
  }

  // --- our own streams --------------------------------------------------------------------------------------------------

  async setLimits(limits: StreamLimits): Promise<void> {
    this.#limits = limits
    if (this.#state !== 'connected') return
    await this.#ask(this.#node, {}, (disk) => {
      disk.limits = limits
    })
  }

  async ensureStream(table: TableName, description: string): Promise<StreamState> {
    const created = () => `${new Date(this.timers.now()).toISOString().slice(0, -1)}${this.#fabric.unique()}Z`
    return this.#ask(this.#node, {}, (disk) => disk.ensure(table, description, created).state)
  }

  async describeStream(table: TableName, description: string): Promise<void> {
    await this.#ask(this.#node, {}, (disk) => {
      existing(disk.find(table)).description = description
    })
  }

  append(
    table: TableName,
    message: Message,
    expected: Expected,
    done: (error: MeshError | undefined, sequence: number) => void,
  ): void {
    if (this.#state === 'connected') return this.#appender!.append(table, message, expected, done)
    const error = new MeshError('disconnected', `the mesh is ${this.#state}`)
    queueMicrotask(() => done(error, 0))
  }

  async purgeStream(
    table: TableName,
    { keep, before }: { keep?: number | undefined; before?: number | undefined },
  ): Promise<void> {
    await this.#ask(this.#node, {}, (disk) => {
      if (before === undefined) disk.find(table)?.keep(keep ?? 0)
      else if (!keep) disk.find(table)?.purge(before)
      else throw new MeshError('refused', 'keep or before, not both')
    })
  }

  // --- any node's streams -----------------------------------------------------------------------------------------------

  streamState(source: Source, options: RequestOptions): Promise<StreamState | undefined> {
    return this.#ask(source.node, options, (disk) => disk.find(source)?.state)
  }

  sequenceAt(source: Source, time: number, options: RequestOptions): Promise<number> {
    return this.#ask(source.node, options, (disk) => existing(disk.find(source)).sequenceAt(time))
  }

  async read(source: Source, sequence: number, options: RequestOptions & { maxMessages: number }): Promise<Reader> {
    const peer = this.#addressOf(source.node)
    const reader = new MemoryReader({
      peer,
      maxMessages: options.maxMessages,
      post: (work) => this.#send(peer, work),
      ended: () => this.#readers.delete(reader),
    })
    const deliver = (entry: Entry) => this.#fabric.send(peer, this.#address, () => reader.receive(entry))
    this.#readers.add(reader)
    try {
      reader.attach(
        await this.#ask(source.node, options, (disk) => new Consumer(existing(disk.find(source)), sequence, deliver)),
      )
    } catch (error) {
      reader.close()
      throw error
    }
    return reader
  }

  async members(options: RequestOptions): Promise<Member[]> {
    this.#connected()
    const memberAt = async (address: string): Promise<Member | undefined> => {
      const node = address === this.#address ? this.#node : address
      const responseTime = 2 * this.#fabric.wires.delayBetween(this.#address, address)
      try {
        const routes = await this.#ask(node, options, (_, station) => [...station.routes])
        return { node, responseTime, connectedNodes: this.#fabric.neighbours(address), routes }
      } catch (error) {
        if (error instanceof MeshError && error.code === 'aborted') throw error
        return undefined
      }
    }
    const asked = [this.#address, ...this.#fabric.neighbours(this.#address)].map(memberAt)
    return (await Promise.all(asked)).filter((member) => member !== undefined)
  }
}
