// The mesh of one node in memory. Requests to other nodes and calls to the local streams are messages on the wires of the network.

import { queueMicrotask, setImmediate, type Timers } from '../../util/timers.ts'
import {
  type Entry,
  type ExpectedLast,
  type Member,
  type Mesh,
  MeshError,
  type MeshListener,
  type MeshState,
  type Message,
  type Reader,
  type ReadOptions,
  type RemoteTable,
  type RequestOptions,
  type Routes,
  type StreamLimits,
  type StreamState,
  type TableName,
} from '../mesh.ts'
import { Appender, MAX_PAYLOAD } from './appender.ts'
import { Consumer, type ConsumerOutput } from './consumer.ts'
import type { Disk } from './disk.ts'
import type { Endpoint, Fabric, Handler } from './fabric.ts'
import { PendingCalls } from './pending-calls.ts'
import { MemoryReader } from './reader.ts'
import { requireStream } from './stream.ts'

const DISK_FULL = 'the disk is full'

export class MemoryMesh implements Mesh {
  readonly maxPayload = MAX_PAYLOAD
  readonly #fabric: Fabric
  readonly #skewOf: (node: string) => number
  readonly timers: Timers
  readonly #pendingCalls: PendingCalls
  readonly #readers = new Set<MemoryReader>()
  #announcementHandlers: ((data: Uint8Array) => void)[] = []
  #node = ''
  #address = ''
  #state: MeshState = 'stopped'
  #session = ''
  #listener: MeshListener | undefined
  #endpoint: Endpoint | undefined
  #appender: Appender | undefined
  #limits: StreamLimits = {}

  /** `skewOf`: ms by which the wall time of a node is ahead. `node`: its name before `open`. */
  constructor(fabric: Fabric, skewOf: (node: string) => number, node = '') {
    this.#fabric = fabric
    this.#skewOf = skewOf
    this.#node = node
    const { timers } = fabric
    this.timers = {
      now: () => timers.now() + skewOf(this.#node),
      elapsed: () => timers.elapsed(),
      after: (ms, work) => timers.after(ms, work),
      every: (ms, work) => timers.every(ms, work),
    }
    this.#pendingCalls = new PendingCalls(fabric.timers)
  }

  get state(): MeshState {
    return this.#state
  }

  get session(): string {
    return this.#session
  }

  // --- life cycle -------------------------------------------------------------------------------------------------------

  async open(node: string, routes: Routes, listener: MeshListener): Promise<void> {
    if (this.#state !== 'stopped') throw new MeshError('rejected', 'the mesh is open')
    this.#node = node
    this.#listener = listener
    this.#endpoint = this.#createEndpoint(listener, routes)
    this.#address = this.#fabric.join(node, this.#endpoint)
    this.#appender = new Appender(this.#fabric, this.#address)
    this.#setState('connecting')
    await new Promise((resolve) => setImmediate(resolve))
    if (this.state === 'stopped') throw new MeshError('disconnected', 'closed while opening')
    this.#connect()
    this.#fabric.compareNames(node, this.#address)
  }

  async close(): Promise<void> {
    if (this.#state === 'stopped') return
    this.#setReachable(false)
    this.#setState('stopped')
    this.#failAll('the mesh is closed')
    this.#announcementHandlers = []
    this.#fabric.leave(this.#address)
  }

  observer(): Mesh {
    return new MemoryMesh(this.#fabric, this.#skewOf)
  }

  async setRoutes(routes: Routes): Promise<void> {
    if (this.#endpoint) this.#endpoint.routes = routes.hub
  }

  #setState(state: MeshState, reason?: string): void {
    this.#state = state
    this.#listener?.state(state, reason)
  }

  #setReachable(connected: boolean): void {
    if (this.#endpoint) this.#endpoint.connected = connected
  }

  #connect(): void {
    this.#session = this.#fabric.uniqueText()
    this.#setReachable(true)
    this.#checkDisk()
  }

  /** On a full disk the servers run: remote nodes can read the streams, and nothing can be written. */
  #checkDisk(): void {
    const disk = this.#fabric.disk(this.#address)
    if (disk.isFull) {
      if (this.#state === 'disconnected') return
      this.#setState('disconnected', DISK_FULL)
      this.#appender?.fail(new MeshError('disconnected', DISK_FULL))
      return this.#failReaders(DISK_FULL)
    }
    if (this.#state === 'connected') return
    disk.limits = this.#limits
    this.#setState('connected')
  }

  #failAll(reason: string): void {
    const error = new MeshError('disconnected', reason)
    this.#pendingCalls.fail(error)
    this.#appender?.fail(error)
    this.#failReaders(reason)
  }

  #failReaders(reason: string): void {
    for (const reader of [...this.#readers]) reader.fail(reason)
  }

  #createEndpoint(listener: MeshListener, routes: Routes): Endpoint {
    return {
      connected: false,
      routes: routes.hub,
      handler: undefined,
      receiveAnnouncement: (data) => {
        for (const announcementHandler of this.#announcementHandlers) announcementHandler(data.slice())
      },
      failReaders: (reason, peer, silently) => {
        // Not copied: a reader that fails is removed, and another one is added later at the earliest.
        for (const reader of this.#readers)
          if (reader.peer === peer) silently ? reader.endConsumer() : reader.fail(reason)
      },
      linked: () => listener.linked(),
      rejected: (peer, reason) => listener.rejected(peer, reason),
      disconnect: (reason) => {
        this.#setReachable(false)
        this.#setState('disconnected', reason)
        this.#failAll(reason)
      },
      reconnect: () => {
        if (this.#state === 'disconnected' && !this.#endpoint?.connected) this.#connect()
      },
      diskChanged: () => {
        if (this.#endpoint?.connected) this.#checkDisk()
      },
      close: () => this.close(),
    }
  }

  // --- messages between nodes -------------------------------------------------------------------------------------------

  /** The local endpoint. Throws disconnected. */
  #connected(): Endpoint {
    if (this.#endpoint?.connected) return this.#endpoint
    throw new MeshError('disconnected', `the mesh is ${this.#state}`)
  }

  #addressOf(node: string): string {
    return node === this.#node ? this.#address : node
  }

  #send(address: string, work: () => void): void {
    this.#fabric.send(this.#address, address, work)
  }

  /** Runs `work` at a node and resolves with its result. Rejects as `request`, or as `work` does. */
  async #call<T>(
    node: string,
    options: Partial<RequestOptions>,
    work: (disk: Disk, endpoint: Endpoint) => T | Promise<T>,
    listening: (endpoint: Endpoint) => boolean = () => true,
  ): Promise<T> {
    this.#connected()
    const address = this.#addressOf(node)
    const linkState = this.#fabric.linkState(this.#address, address)
    return this.#pendingCalls.call<T>(options, (call) => {
      if (linkState === 'none' || (linkState === 'open' && !listening(this.#fabric.at(address)!)))
        return call.reject(new MeshError('no_responders', `no node '${node}' responds`))
      this.#send(address, async () => {
        const answer = (complete: () => void) => this.#fabric.send(address, this.#address, complete)
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
    const work = (_: Disk, { handler }: Endpoint) =>
      // A handler that fails sends no answer.
      handler!(question).then(
        (answer) => answer.slice(),
        () => new Promise<never>(() => {}),
      )
    return this.#call(node, options, work, ({ handler }) => handler !== undefined)
  }

  serve(handler: Handler): void {
    this.#connected().handler = handler
  }

  announce(data: Uint8Array): void {
    if (this.#state !== 'connected') return
    const copy = data.slice()
    for (const address of [this.#address, ...this.#fabric.linkedNodes(this.#address)])
      this.#send(address, () => this.#fabric.at(address)?.receiveAnnouncement(copy))
  }

  listen(handler: (data: Uint8Array) => void): void {
    this.#connected()
    this.#announcementHandlers.push(handler)
  }

  // --- local streams ----------------------------------------------------------------------------------------------------

  async setLimits(limits: StreamLimits): Promise<void> {
    this.#limits = limits
    if (this.#state !== 'connected') return
    await this.#call(this.#node, {}, (disk) => {
      disk.limits = limits
    })
  }

  /** Throws disconnected. */
  #requireWritable(): void {
    if (this.#state !== 'connected') throw new MeshError('disconnected', `the mesh is ${this.#state}`)
  }

  async ensureStream(table: TableName, description: string): Promise<StreamState> {
    this.#requireWritable()
    const created = () => `${new Date(this.timers.now()).toISOString().slice(0, -1)}${this.#fabric.uniqueText()}Z`
    return this.#call(this.#node, {}, (disk) => disk.ensure(table, description, created).state)
  }

  async describeStream(table: TableName, description: string): Promise<void> {
    this.#requireWritable()
    await this.#call(this.#node, {}, (disk) => {
      requireStream(disk.find(table)).description = description
    })
  }

  append(
    table: TableName,
    message: Message,
    expected: ExpectedLast | undefined,
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
    this.#requireWritable()
    await this.#call(this.#node, {}, (disk) => {
      if (before === undefined) disk.find(table)?.keep(keep ?? 0)
      else if (!keep) disk.find(table)?.purge(before)
      else throw new MeshError('rejected', `'keep' and 'before' exclude each other`)
    })
  }

  // --- streams of any node ----------------------------------------------------------------------------------------------

  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined> {
    return this.#call(source.node, options, (disk) => disk.find(source)?.state)
  }

  sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number> {
    return this.#call(source.node, options, (disk) => requireStream(disk.find(source)).sequenceAt(time))
  }

  messageAt(source: RemoteTable, sequence: number, options: RequestOptions): Promise<Entry | undefined> {
    return this.#call(source.node, options, (disk) => {
      const message = disk.find(source)?.firstFrom(sequence)
      return message?.sequence === sequence ? { ...message, delivery: 0 } : undefined
    })
  }

  async read(source: RemoteTable, sequence: number, options: ReadOptions): Promise<Reader> {
    const peer = this.#addressOf(source.node)
    const reader = new MemoryReader({
      peer,
      maxMessages: options.maxMessages,
      maxMessageBytes: MAX_PAYLOAD,
      budget: options.budget,
      post: (work) => this.#send(peer, work),
      ended: () => this.#readers.delete(reader),
    })
    const toReader = (work: () => void) => this.#fabric.send(peer, this.#address, work)
    const output: ConsumerOutput = {
      send: (entry, pending) => toReader(() => reader.receive(entry, pending)),
      ended: (missing, bySize) => toReader(() => reader.pullEnded(missing, bySize)),
    }
    this.#readers.add(reader)
    try {
      reader.attach(
        await this.#call(
          source.node,
          options,
          (disk) => new Consumer(requireStream(disk.find(source)), sequence, output),
        ),
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
        const routes = await this.#call(node, options, (_, endpoint) => [...endpoint.routes])
        return { node, responseTime, connectedNodes: this.#fabric.linkedNodes(address), routes }
      } catch (error) {
        if (error instanceof MeshError && error.code === 'aborted') throw error
        return undefined
      }
    }
    const pending = [this.#address, ...this.#fabric.linkedNodes(this.#address)].map(memberAt)
    return (await Promise.all(pending)).filter((member) => member !== undefined)
  }
}
