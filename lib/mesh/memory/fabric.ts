// The state that the meshes of one network share: their endpoints, links and disks.

import type { Timers } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { Disk } from './disk.ts'
import type { Wires } from './wires.ts'

export type Handler = (data: Uint8Array) => Promise<Uint8Array>

/** The side of a mesh that the network and the other nodes call. */
export interface Endpoint {
  connected: boolean
  routes: readonly Route[]
  /** Answers requests; undefined before `serve`. */
  handler: Handler | undefined
  receiveAnnouncement(data: Uint8Array): void
  /** Ends its readers of streams at `peer`. `silently`: their `next` keeps waiting instead of rejecting. */
  failReaders(reason: string, peer: string, silently?: boolean): void
  linked(): void
  rejected(peer: string, reason: string): void
  /** The servers of this node crash, or are back. */
  disconnect(reason: string): void
  reconnect(): void
  /** The disk is full now, or has room again. */
  diskChanged(): void
  close(): Promise<void>
}

/** `silent`: messages are lost without an error; `none`: the sender knows that the other node is not reachable. */
export type LinkState = 'open' | 'silent' | 'none'

export class Fabric {
  readonly wires: Wires
  readonly timers: Timers
  /** By address: the node's name, or for a duplicate the name with a number. */
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #disks = new Map<string, Disk>()
  /** The nodes that faults may name: those that were declared, or open at some time. */
  readonly names = new Set<string>()
  #count = 0

  constructor(wires: Wires, timers: Timers) {
    this.wires = wires
    this.timers = timers
  }

  /** Returns the address of the endpoint. */
  join(node: string, endpoint: Endpoint): string {
    this.names.add(node)
    let address = node
    for (let number = 2; this.#endpoints.has(address); number++) address = `${node} (${number})`
    if (!isDuplicateName(address)) for (const each of this.#endpoints.keys()) this.wires.join(address, each)
    this.#endpoints.set(address, endpoint)
    return address
  }

  /** Notifies both nodes of one name. The later one stays isolated. */
  compareNames(node: string, address: string): void {
    if (address === node) return
    for (const each of [node, address]) this.#endpoints.get(each)?.rejected(node, 'two nodes have the same name')
  }

  leave(address: string): void {
    this.failServers(address, 'the remote node was closed', false)
    this.#endpoints.delete(address)
  }

  /** The servers of this endpoint ended: drops messages in flight and fails the readers of its streams. */
  failServers(address: string, reason: string, silently: boolean): void {
    this.wires.clear(address)
    for (const [each, endpoint] of this.#endpoints)
      if (each !== address) endpoint.failReaders(reason, address, silently)
  }

  at(address: string): Endpoint | undefined {
    return this.#endpoints.get(address)
  }

  endpoints(): Endpoint[] {
    return [...this.#endpoints.values()]
  }

  linkState(from: string, to: string): LinkState {
    if (!this.#endpoints.get(from)?.connected) return 'none'
    if (from === to) return 'open'
    if (isDuplicateName(from) || isDuplicateName(to)) return 'none'
    const cut = this.wires.cutBetween(from, to)
    if (cut === 'silent') return 'silent'
    return cut === undefined && this.#endpoints.get(to)?.connected ? 'open' : 'none'
  }

  /** The nodes that this node's server takes for linked, by name. A silent cut does not remove them. */
  linkedNodes(address: string): string[] {
    return [...this.#endpoints.keys()]
      .filter((each) => each !== address && this.linkState(address, each) !== 'none')
      .sort()
  }

  /** Delivers later, in order, unless the link is cut or the remote node ends before. */
  send(from: string, to: string, deliver: () => void): void {
    if (this.linkState(from, to) === 'open') this.wires.send(from, to, deliver)
  }

  disk(address: string): Disk {
    const disk = this.#disks.get(address) ?? new Disk(this.timers.now.bind(this.timers))
    this.#disks.set(address, disk)
    return disk
  }

  /** A string that was not returned before. */
  uniqueText(): string {
    return String(++this.#count).padStart(6, '0')
  }
}

/** Names of nodes contain no blank. */
const isDuplicateName = (address: string) => address.includes(' ')
