// What the operations work on: the pieces of an open manager, as narrow as they need them.

import type { TSchema } from 'typebox'
import type { Host, RemoteTable } from '../host/host.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh, NameCheck } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { NegotiateOptions, SubscribeResult, SubscriptionRequest } from '../peers/negotiator.ts'
import type { PeerStatus } from '../peers/peers.ts'

export type { PeerStatus }

export interface OperationContext {
  readonly store: ManifestStore
  readonly host: Host
  readonly mesh: Mesh
  readonly logger: Logger
  /** Why a node, database or table of that name cannot take part in the cluster, by the rules of names and of the network. */
  readonly nameFault: NameCheck
  readonly negotiator: {
    /**
     * Negotiates with the node, creates tables, commits the manifest. Rejects with node_not_listening, node_timeout or
     * peer_rejected. Commits nothing when all are skipped.
     */
    subscribe(
      node: string,
      requests: readonly SubscriptionRequest[],
      options: NegotiateOptions,
    ): Promise<SubscribeResult>
    /** Ends all subscriptions with that node and takes it out of the manifest; `reached` is false when it could not be told. Rejects with aborted. */
    remove(node: string, options: NegotiateOptions): Promise<{ reached: boolean }>
    /** What the manifest is about to hold for this node is still to be agreed on: as soon as it is there. */
    scheduleCompare(node: string): void
  }
  readonly peers: {
    /** One connection's answer, bounded by the request time-out; rejects with aborted, and with nothing else. */
    status(node: string, options: { signal?: AbortSignal | undefined }): Promise<PeerStatus>
  }
  readonly streams: {
    /** Removes all but the last `keep` messages, or all before sequence `before`, or all. */
    purge(database: string, table: string, options: { keep?: number; before?: number }): Promise<void>
    /** Gaps in what came from there since the subscription began, and the transactions in them; both 0 when nothing comes from there. */
    losses(source: RemoteTable): { gaps: number; lost: number }
  }
}

export type OperationOptions = { signal?: AbortSignal | undefined }

/** What names in a body are checked by. */
export type NameRules = { readonly localName: string; readonly nameFault: NameCheck }

/** One operation of the contract. */
export type Operation<Request, Response> = {
  /** Name of the manager's method. */
  readonly method: string
  /** Of the body, without `operation`. */
  readonly schema: TSchema
  /** Refused while clustering is disabled. */
  readonly requiresEnabled: boolean
  /** Names that the body may hold but this node cannot serve; throws. Runs before anything of the manifest is looked at. */
  readonly checkNames?: (request: Request, rules: NameRules) => void
  /** Requests about one node run one after the other: its name; 'all' for every node. */
  readonly queue?: (request: Request) => { node: string } | 'all'
  readonly handler: (context: OperationContext, request: Request, options: OperationOptions) => Promise<Response>
}
