// Rows of tables between nodes: serves those of the local node, and asks for those of remote nodes.

import type { Host } from '../host/host.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Peers } from '../peers/peers.ts'
import type { RowsPeerRequest } from '../peers/protocol.ts'
import type { Tables } from '../peers/tables.ts'
import { PeerRows } from '../replication/copy/peer-rows.ts'
import { RowSource } from '../replication/copy/row-source.ts'
import type { Timers } from '../util/timers.ts'

export type RowExchangeOptions = {
  host: Host
  store: Pick<ManifestStore, 'manifest' | 'listen'>
  timers: Timers
  /** Parts that are built later. */
  peers(): Pick<Peers, 'request'>
  tables(): Pick<Tables, 'servesRows' | 'refresh'>
}

/** ms for which a request waits until its table is published to the node: the node has committed the subscription first. */
const MAX_WAIT_MS = 2_000
/** Every holder of the credentials can send such requests. */
const MAX_WAITING = 1_000

export class RowExchange {
  /** Rows of remote nodes. */
  readonly peers: PeerRows
  readonly #source: RowSource
  readonly #timers: Timers
  /** Called after each commit. */
  readonly #waiting = new Set<() => void>()

  constructor({ host, store, timers, peers, tables }: RowExchangeOptions) {
    this.#timers = timers
    this.#source = new RowSource({ host, timers, manifest: () => store.manifest })
    store.listen({
      committed: () => {
        for (const check of [...this.#waiting]) check()
      },
    })
    this.peers = new PeerRows({
      timers,
      request: (node, operation, rows, options) =>
        peers().request(node, { operation, rows }, { operation, ...options }),
      servesRows: (node) => tables().servesRows(node),
      refresh: (node) => tables().refresh(node),
    })
  }

  /** Answers a request of a remote node. Rejects with the reason of the refusal. */
  async answer(node: string, request: RowsPeerRequest): Promise<unknown> {
    if (!this.#source.isPublished(node, request)) await this.#untilPublished(node, request)
    return this.#source.answer(node, request)
  }

  /** Resolves at the latest after `MAX_WAIT_MS`. */
  async #untilPublished(node: string, request: RowsPeerRequest): Promise<void> {
    if (this.#waiting.size >= MAX_WAITING) return
    let end = () => {}
    const ended = new Promise<void>((resolve) => {
      end = resolve
    })
    const check = () => {
      if (this.#source.isPublished(node, request)) end()
    }
    this.#waiting.add(check)
    const cancel = this.#timers.after(MAX_WAIT_MS, end)
    await ended
    cancel()
    this.#waiting.delete(check)
  }
}
