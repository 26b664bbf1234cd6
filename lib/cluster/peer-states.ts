// Which nodes of the manifest are up. Heartbeats show it; a node of HarperDB sends none, and is known by what is read from it.

import type { Manifest } from '../manifest/manifest.ts'
import type { Peers } from '../peers/peers.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'

export type PeerState = { node: string; up: boolean }

export type PeerStatesOptions = {
  manifest(): Manifest
  /** Parts that are built later. */
  parts(): {
    peers: Pick<Peers, 'isUp' | 'isHarper' | 'wasHeard'>
    replicator: { summaries: Pick<Replicator['summaries'], 'readNodes'> }
  }
}

export class PeerStates {
  readonly #options: PeerStatesOptions

  constructor(options: PeerStatesOptions) {
    this.#options = options
  }

  /**
   * The nodes of the manifest, in its order. `up`: heartbeats arrive. A node of HarperDB is up while one of its tables is read, and also if none is to
   * be read from it: then nothing tells more.
   */
  all(): PeerState[] {
    return this.#all().map(({ node, up }) => ({ node, up }))
  }

  /** Those of which heartbeats are expected, without nodes of HarperDB; `up`: heartbeats arrive. */
  expected(): PeerState[] {
    return this.#all().flatMap(({ node, isHeard, isSilent }) => (isSilent ? [] : [{ node, up: isHeard }]))
  }

  #all(): (PeerState & { isHeard: boolean; isSilent: boolean })[] {
    const { manifest, parts } = this.#options
    const { peers, replicator } = parts()
    let read: ReadonlyMap<string, boolean> | undefined
    return manifest().nodes.map(({ name: node }) => {
      if (peers.isUp(node)) return { node, up: true, isHeard: true, isSilent: false }
      read ??= replicator.summaries.readNodes()
      const isRead = read.get(node)
      // After a restart it is known as a node of HarperDB by its first answer only.
      const isSilent = peers.isHarper(node) || (!peers.wasHeard(node) && isRead === true)
      return { node, up: isSilent && isRead !== false, isHeard: false, isSilent }
    })
  }
}
