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
  store: Pick<ManifestStore, 'manifest'>
  timers: Timers
  /** Parts that are built later. */
  peers(): Pick<Peers, 'request'>
  tables(): Pick<Tables, 'servesRows' | 'refresh'>
}

export class RowExchange {
  /** Rows of remote nodes. */
  readonly peers: PeerRows
  readonly #source: RowSource

  constructor({ host, store, timers, peers, tables }: RowExchangeOptions) {
    this.#source = new RowSource({ host, manifest: () => store.manifest })
    this.peers = new PeerRows({
      timers,
      request: (node, operation, rows, options) =>
        peers().request(node, { operation, rows }, { operation, ...options }),
      servesRows: (node) => tables().servesRows(node),
      refresh: (node) => tables().refresh(node),
    })
  }

  /** Answers a request of a remote node. Rejects with the reason of the refusal. */
  answer(node: string, request: RowsPeerRequest): Promise<unknown> {
    return this.#source.answer(node, request)
  }
}
