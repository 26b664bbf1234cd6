// Which nodes of the manifest are up. Heartbeats show it; a node of HarperDB sends none, and is known by what is read from it.

import type { Manifest } from '../manifest/manifest.ts'
import type { Peers } from '../peers/peers.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { Timers } from '../util/timers.ts'

export type PeerState = { node: string; up: boolean }

export type PeerStatesOptions = {
  timers: Pick<Timers, 'elapsed'>
  manifest(): Manifest
  /** Parts that are built later. */
  parts(): {
    peers: Pick<Peers, 'isUp' | 'isHarper' | 'wasHeard'>
    replicator: Pick<Replicator, 'readNodes'>
  }
}

/** A reader that is interrupted begins again within seconds; a request that was lost on the way to HarperDB is noticed after 11 s. */
const UNREAD_AFTER_MS = 15_000

export class PeerStates {
  readonly #options: PeerStatesOptions
  /** Since when (`Timers.elapsed`) nothing is read from a node of HarperDB, as seen at each question. */
  readonly #unreadSince = new Map<string, number>()

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

  /** The nodes of HarperDB from which nothing was read for 15 s, of several questions in that time, although something is to come. */
  unread(): string[] {
    const now = this.#options.timers.elapsed()
    const unread = new Set(this.#all().flatMap(({ node, up, isSilent }) => (isSilent && !up ? [node] : [])))
    for (const node of this.#unreadSince.keys()) if (!unread.has(node)) this.#unreadSince.delete(node)
    for (const node of unread) if (!this.#unreadSince.has(node)) this.#unreadSince.set(node, now)
    return [...unread].filter((node) => now - this.#unreadSince.get(node)! >= UNREAD_AFTER_MS)
  }

  #all(): (PeerState & { isHeard: boolean; isSilent: boolean })[] {
    const { manifest, parts } = this.#options
    const { peers, replicator } = parts()
    let read: ReadonlyMap<string, boolean> | undefined
    return manifest().nodes.map(({ name: node }) => {
      if (peers.isUp(node)) return { node, up: true, isHeard: true, isSilent: false }
      read ??= replicator.readNodes()
      const isRead = read.get(node)
      // After a restart it is known as a node of HarperDB by its first answer only.
      const isSilent = peers.isHarper(node) || (!peers.wasHeard(node) && isRead === true)
      return { node, up: isSilent && isRead !== false, isHeard: false, isSilent }
    })
  }
}
