// Remote nodes that are reachable again: which of their subscriptions are read again, and which only go on.

import { ANNOUNCE_FOR_MS } from '../publish/local-streams.ts'
import { NodeGates, type RemoteStreams } from './node-gates.ts'
import type { Subscriber } from './subscriber.ts'

/** ms. Heartbeats carry a position for `ANNOUNCE_FOR_MS` after the last message; some of them may be lost. */
const POSITIONS_KNOWN_FOR_MS = ANNOUNCE_FOR_MS - 5_000

export class ReturningNodes {
  readonly #subscribers: () => Iterable<Subscriber>
  readonly #gates: NodeGates

  constructor(streams: RemoteStreams, subscribers: () => Iterable<Subscriber>) {
    this.#subscribers = subscribers
    // A probe was answered: the subscriptions that wait for the node do not wait any longer.
    this.#gates = new NodeGates(streams, (node) => {
      for (const subscriber of this.#ofNode(node)) subscriber.retryNow()
    })
  }

  /** The streams as subscribers read them. */
  get streams(): RemoteStreams {
    return this.#gates
  }

  /** The connection of the local servers is a new one: every subscription reads again. */
  restart(): void {
    this.#gates.open()
    for (const subscriber of this.#subscribers()) subscriber.restart()
  }

  /**
   * Heartbeats of a node arrive again after `silence` ms. `restarted`: its server is another one, so consumers and requests are gone.
   * After a short silence nothing is asked: messages that were lost show by the positions in the heartbeats.
   */
  onPeerReturned(node: string, { restarted, silence }: { restarted: boolean; silence: number }): void {
    this.#gates.open(node)
    for (const subscriber of this.#ofNode(node)) {
      if (restarted || !subscriber.isReading) subscriber.restart()
      else if (silence > POSITIONS_KNOWN_FOR_MS) subscriber.restartIfStuck()
    }
  }

  #ofNode(node: string): Subscriber[] {
    return [...this.#subscribers()].filter(({ source }) => source.node === node)
  }
}
