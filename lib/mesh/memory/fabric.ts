// What the meshes of one network have in common: who is there, who reaches whom, and the disks.

import type { Timers } from '../../util/timers.ts'
import type { Route } from '../mesh.ts'
import { Disk } from './disk.ts'
import type { Wires } from './wires.ts'

export type Handler = (data: Uint8Array) => Promise<Uint8Array>

/** A mesh as the network and the other nodes see it. */
export interface Endpoint {
  connected: boolean
  routes: readonly Route[]
  /** What answers requests, once there is something. */
  handler: Handler | undefined
  receiveAnnouncement(data: Uint8Array): void
  /** Its readers at `peer`. `silently`: they end without being told. */
  failReaders(reason: string, peer: string, silently?: boolean): void
  linked(): void
  rejected(peer: string, reason: string): void
  /** Its own servers are gone, or back. */
  disconnect(reason: string): void
  reconnect(): void
  close(): Promise<void>
}

/** `silent`: what is sent vanishes; `none`: nobody of that name, and whoever sends knows. */
export type LinkState = 'open' | 'silent' | 'none'

export class Fabric {
  readonly wires: Wires
  readonly timers: Timers
  /** By address, which is the node's name; of a second node of one name it is another. */
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #disks = new Map<string, Disk>()
  #count = 0

  constructor(wires: Wires, timers: Timers) {
    this.wires = wires
    this.timers = timers
  }

  /** The address that this station has from now on. */
  join(node: string, endpoint: Endpoint): string {
    let address = node
    for (let number = 2; this.#endpoints.has(address); number++) address = `${node} (${number})`
    if (!isDuplicateName(address)) for (const each of this.#endpoints.keys()) this.wires.join(address, each)
    this.#endpoints.set(address, endpoint)
    return address
  }

  /** Nodes compare names: both that have one are told, and the later one stays alone. */
  compareNames(node: string, address: string): void {
    if (address === node) return
    for (const each of [node, address]) this.#endpoints.get(each)?.rejected(node, 'there are two nodes of one name')
  }

  leave(address: string): void {
    this.failServers(address, 'the other node was closed', false)
    this.#endpoints.delete(address)
  }

  /** The servers of this station ended: what was on the way, and who read there. */
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

  /** Whom this node's server believes to be linked to, by name. */
  linkedNodes(address: string): string[] {
    return [...this.#endpoints.keys()]
      .filter((each) => each !== address && this.linkState(address, each) !== 'none')
      .sort()
  }

  /** Delivers later, in order, unless the way is cut or the other side ends before that. */
  send(from: string, to: string, deliver: () => void): void {
    if (this.linkState(from, to) === 'open') this.wires.send(from, to, deliver)
  }

  disk(address: string): Disk {
    const disk = this.#disks.get(address) ?? new Disk(this.timers.now.bind(this.timers))
    this.#disks.set(address, disk)
    return disk
  }

  /** A text that was not given before. */
  uniqueText(): string {
    return String(++this.#count).padStart(6, '0')
  }
}

/** No node's name holds a blank. */
const isDuplicateName = (address: string) => address.includes(' ')
