// Requests about the streams of remote nodes. A node that does not answer costs one probe at a time, not one request for each of its
// tables: all others fail at once with the reason of the last one. A node that is back is asked by a limited number at a time.

import type { RemoteTable } from '../../host/host.ts'
import {
  type Entry,
  type Mesh,
  MeshError,
  type Reader,
  type RequestOptions,
  type StreamState,
} from '../../mesh/mesh.ts'
import { Backoff } from '../../util/backoff.ts'
import { Fifo } from '../../util/fifo.ts'

/** The requests that pass a gate. They reject as those of the mesh. */
export type RemoteStreams = Pick<Mesh, 'streamState' | 'sequenceAt' | 'messageAt' | 'read' | 'timers'>

/** `streams` are answered by the node's server, `readers` by its process: one may be up without the other. */
type Kind = 'streams' | 'readers'
type Waiting = { proceed(): void; aborted: boolean }

type Gate = {
  /** Why the node is not asked now. */
  failure: { kind: Kind; error: MeshError } | undefined
  /** ms by `Timers.elapsed`; from then on one request may pass as a probe. */
  probeAt: number
  probing: boolean
  readonly backoff: Backoff
  active: number
  readonly waiting: Fifo<Waiting>
}

/** ms. Shorter than the waits of a subscriber, so that the only subscriber of a node is never kept from its attempt. */
const PROBE_BACKOFF = { first: 25, max: 1_000 }
/** Requests to one node at a time. */
const MAX_ACTIVE = 64

const isUnreachable = (error: unknown): error is MeshError =>
  error instanceof MeshError && (error.code === 'no_responders' || error.code === 'timeout')
/** The request ended here: it says nothing about the remote node. */
const endedLocally = (error: unknown): boolean =>
  error instanceof MeshError && (error.code === 'aborted' || error.code === 'disconnected')

export class NodeGates implements RemoteStreams {
  readonly #mesh: RemoteStreams
  readonly #reachable: (node: string) => void
  readonly #gates = new Map<string, Gate>()

  /** `reachable` is called when a probe of the node was answered. */
  constructor(mesh: RemoteStreams, reachable: (node: string) => void) {
    this.#mesh = mesh
    this.#reachable = reachable
  }

  get timers(): RemoteStreams['timers'] {
    return this.#mesh.timers
  }

  streamState(source: RemoteTable, options: RequestOptions): Promise<StreamState | undefined> {
    return this.#pass(source.node, 'streams', options, () => this.#mesh.streamState(source, options))
  }

  sequenceAt(source: RemoteTable, time: number, options: RequestOptions): Promise<number> {
    return this.#pass(source.node, 'readers', options, () => this.#mesh.sequenceAt(source, time, options))
  }

  messageAt(source: RemoteTable, sequence: number, options: RequestOptions): Promise<Entry | undefined> {
    return this.#pass(source.node, 'streams', options, () => this.#mesh.messageAt(source, sequence, options))
  }

  read(source: RemoteTable, sequence: number, options: Parameters<Mesh['read']>[2]): Promise<Reader> {
    return this.#pass(source.node, 'readers', options, () => this.#mesh.read(source, sequence, options))
  }

  /** The node, or every node, may be back: asks it at once. */
  open(node?: string): void {
    for (const [name, gate] of this.#gates) {
      if (node !== undefined && node !== name) continue
      gate.failure = undefined
      gate.backoff.reset()
    }
  }

  async #pass<T>(node: string, kind: Kind, { signal }: RequestOptions, request: () => Promise<T>): Promise<T> {
    const gate = this.#gateOf(node)
    const isProbe = await this.#enter(gate, signal)
    try {
      const answer = await request()
      this.#onAnswer(node, gate, kind)
      return answer
    } catch (error) {
      if (isUnreachable(error)) this.#onFailure(gate, kind, error, isProbe)
      else if (!endedLocally(error)) this.#onAnswer(node, gate, kind)
      throw error
    } finally {
      if (isProbe) gate.probing = false
      gate.active--
      this.#proceed(gate)
    }
  }

  /** Waits for a turn. True for a probe. Rejects with the last failure while the node is not asked, and `aborted`. */
  async #enter(gate: Gate, signal: AbortSignal | undefined): Promise<boolean> {
    for (;;) {
      if (signal?.aborted) {
        // It may have been its turn.
        this.#proceed(gate)
        throw new MeshError('aborted')
      }
      if (gate.failure) {
        if (gate.probing || this.timers.elapsed() < gate.probeAt) throw gate.failure.error
        gate.probing = true
        gate.active++
        return true
      }
      if (gate.active < MAX_ACTIVE) {
        gate.active++
        return false
      }
      await waitForTurn(gate, signal)
    }
  }

  #onAnswer(node: string, gate: Gate, kind: Kind): void {
    const { failure } = gate
    // A server may answer without its process: only the kind of request that failed shows that the node is back.
    if (!failure || (failure.kind === 'readers' && kind === 'streams')) return
    gate.failure = undefined
    gate.backoff.reset()
    this.#reachable(node)
  }

  #onFailure(gate: Gate, kind: Kind, error: MeshError, isProbe: boolean): void {
    // Requests that were sent together fail together: that is one failure.
    if (gate.failure && !isProbe) return
    gate.failure = { kind, error }
    gate.probeAt = this.timers.elapsed() + gate.backoff.next()
    while (gate.waiting.length > 0) gate.waiting.shift()!.proceed()
  }

  #proceed(gate: Gate): void {
    let next = gate.waiting.shift()
    while (next?.aborted) next = gate.waiting.shift()
    next?.proceed()
  }

  #gateOf(node: string): Gate {
    const gate = this.#gates.get(node) ?? {
      failure: undefined,
      probeAt: 0,
      probing: false,
      backoff: new Backoff(PROBE_BACKOFF),
      active: 0,
      waiting: new Fifo<Waiting>(),
    }
    this.#gates.set(node, gate)
    return gate
  }
}

/** Resolves when another request has ended, or when the signal aborts. */
async function waitForTurn(gate: Gate, signal: AbortSignal | undefined): Promise<void> {
  const waiting: Waiting = { proceed: () => {}, aborted: false }
  const abort = () => {
    waiting.aborted = true
    waiting.proceed()
  }
  signal?.addEventListener('abort', abort, { once: true })
  await new Promise<void>((resolve) => {
    waiting.proceed = resolve
    gate.waiting.push(waiting)
  })
  signal?.removeEventListener('abort', abort)
}
