// Whether this node reaches others: the mesh knows if the local streams are writable, heartbeats show which nodes are reached.

import type { ClusterMeshState, MeshState } from '../mesh/mesh.ts'
import type { Timers } from '../util/timers.ts'

export type ReachabilityOptions = {
  timers: Timers
  /** The nodes of the manifest that send heartbeats; `up`: they arrive. */
  peers(): readonly { node: string; up: boolean }[]
  /** Also called when only the reason changes. */
  changed(state: ClusterMeshState, reason: string | undefined): void
}

/** Four heartbeats: as long as a node that was up may be silent. */
const GRACE_MS = 4_000

export class Reachability {
  readonly #options: ReachabilityOptions
  /** What the mesh reported last. */
  #mesh: { state: MeshState; reason: string | undefined } = { state: 'stopped', reason: undefined }
  #state: ClusterMeshState = 'stopped'
  #reason: string | undefined
  #isSettled = false
  #cancelGrace: (() => void) | undefined
  /** Until when (`Timers.elapsed`) each node of the manifest may not have been heard yet. */
  readonly #awaitedUntil = new Map<string, number>()

  constructor(options: ReachabilityOptions) {
    this.#options = options
  }

  get state(): ClusterMeshState {
    return this.#state
  }

  /** Why the node is isolated, or its streams are not writable. */
  get reason(): string | undefined {
    return this.#reason
  }

  /** False while other nodes may not have been heard yet, because the local servers have just started. */
  get isSettled(): boolean {
    return this.#isSettled
  }

  /** The nodes of the manifest, without those that were added a moment ago and have not been heard yet. */
  peers(): { node: string; up: boolean }[] {
    const peers = this.#options.peers()
    const now = this.#options.timers.elapsed()
    const nodes = new Set(peers.map(({ node }) => node))
    for (const node of this.#awaitedUntil.keys()) if (!nodes.has(node)) this.#awaitedUntil.delete(node)
    for (const { node, up } of peers)
      if (up) this.#awaitedUntil.set(node, 0)
      else if (!this.#awaitedUntil.has(node)) this.#awaitedUntil.set(node, now + GRACE_MS)
    return peers.filter(({ node, up }) => up || now >= this.#awaitedUntil.get(node)!)
  }

  /** The mesh reports a state or a reason. `connected` with a reason: the local hub does not work. */
  onMesh(state: MeshState, reason?: string): void {
    const wasConnected = this.#mesh.state === 'connected'
    this.#mesh = { state, reason }
    if (state !== 'connected') this.#endGrace()
    else if (!wasConnected) this.#beginGrace()
    this.#report()
  }

  /** A node of the manifest was added, removed, heard or missed. */
  onPeers(): void {
    this.#report()
  }

  close(): void {
    this.#endGrace()
  }

  #beginGrace(): void {
    this.#isSettled = false
    this.#cancelGrace = this.#options.timers.after(GRACE_MS, () => {
      this.#isSettled = true
      this.#report()
    })
  }

  #endGrace(): void {
    this.#cancelGrace?.()
    this.#isSettled = false
  }

  #report(): void {
    const { state, reason } = this.#current()
    if (state === this.#state && reason === this.#reason) return
    this.#state = state
    this.#reason = reason
    this.#options.changed(state, reason)
  }

  #current(): { state: ClusterMeshState; reason: string | undefined } {
    if (this.#mesh.state !== 'connected') return this.#mesh
    const peers = this.peers()
    if (peers.some(({ up }) => up)) return { state: 'connected', reason: undefined }
    if (this.#mesh.reason !== undefined) return { state: 'isolated', reason: this.#mesh.reason }
    if (peers.length === 0 || !this.#isSettled) return { state: 'connected', reason: undefined }
    return { state: 'isolated', reason: 'no node of the manifest sends heartbeats' }
  }
}
