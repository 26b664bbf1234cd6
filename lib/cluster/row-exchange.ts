// Rows of tables between nodes: serves those of the local node, and asks for those of remote nodes.

import type { Host, KeyedRow, RemoteTable, TableName } from '../host/host.ts'
import type { VerifyResult } from '../host/verify-result.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Peers } from '../peers/peers.ts'
import type { RowsPeerRequest } from '../peers/protocol.ts'
import type { Tables } from '../peers/tables.ts'
import { HashSource } from '../replication/copy/hash-source.ts'
import { PeerHashes } from '../replication/copy/peer-hashes.ts'
import { PeerRows, type RowTransport } from '../replication/copy/peer-rows.ts'
import type { TableStatus } from '../replication/copy/row-messages.ts'
import { RowSource } from '../replication/copy/row-source.ts'
import type { TableStatuses } from '../replication/copy/table-replacement.ts'
import { Verifier, type VerifierOptions, type VerifyOptions } from '../replication/copy/verifier.ts'
import type { Timers } from '../util/timers.ts'

export type RowExchangeOptions = Pick<VerifierOptions, 'progress' | 'verified'> & {
  host: Host
  store: Pick<ManifestStore, 'manifest' | 'listen'>
  timers: Timers
  /** Parts that are built later. */
  peers(): Pick<Peers, 'request'>
  tables(): Pick<Tables, 'servesRows' | 'refresh'>
  status(table: TableName): Promise<TableStatus>
  /** See VerifierOptions. */
  applyRows(source: RemoteTable, rows: readonly KeyedRow[]): Promise<void>
}

/** ms for which a request waits until its table is published to the node: the node has committed the subscription first. */
const MAX_WAIT_MS = 2_000
/** Every holder of the credentials can send such requests. */
const MAX_WAITING = 1_000

export class RowExchange {
  /** Rows of remote nodes. */
  readonly peers: PeerRows
  /** Compares tables with those of remote nodes. */
  readonly #peerHashes: PeerHashes
  readonly #source: RowSource
  readonly #hashes: HashSource
  readonly #verifier: Verifier
  readonly #statuses: TableStatuses
  readonly #timers: Timers
  /** Called after each commit. */
  readonly #waiting = new Set<() => void>()

  constructor(options: RowExchangeOptions) {
    const { host, store, timers, peers, tables, status, applyRows } = options
    this.#timers = timers
    this.#source = new RowSource({ host, timers, manifest: () => store.manifest })
    store.listen({
      committed: () => {
        for (const check of [...this.#waiting]) check()
      },
    })
    const transport: RowTransport = {
      timers,
      request: (node, operation, rows, options) =>
        peers().request(node, { operation, rows }, { operation, ...options }),
    }
    this.peers = new PeerRows({
      ...transport,
      servesRows: (node) => tables().servesRows(node),
      refresh: (node) => tables().refresh(node),
    })
    const rows = this.peers
    this.#peerHashes = new PeerHashes(transport)
    this.#hashes = new HashSource({ host, source: this.#source, status, rows, applyRows })
    this.#statuses = { here: status, there: (source, asking) => this.#peerHashes.status(source, asking) }
    const manifest = () => store.manifest
    this.#verifier = new Verifier({
      ...options,
      node: store.manifest.nodeName,
      manifest,
      peers: this.#peerHashes,
      rows,
    })
  }

  /** What a replicator needs to copy rows. */
  get requests(): { rows: PeerRows; hashes: PeerHashes; statuses: TableStatuses } {
    return { rows: this.peers, hashes: this.#peerHashes, statuses: this.#statuses }
  }

  /** See Verifier.verify. */
  verify(source: RemoteTable, options: VerifyOptions): Promise<VerifyResult> {
    return this.#verifier.verify(source, options)
  }

  /** Answers a request of a remote node. Rejects with the reason of the refusal. */
  async answer(node: string, request: RowsPeerRequest): Promise<unknown> {
    if (request.operation !== 'read_rows') return this.#hashes.answer(node, request.operation, request)
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
