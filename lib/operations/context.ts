// The parts of an open cluster manager that operations use, as narrow interfaces, and the shape of an operation.

import type { TSchema } from 'typebox'
import type { Host, RemoteTable } from '../host/host.ts'
import type { VerifyResult } from '../host/verify-result.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh, NameCheck } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import type { NegotiateOptions, SubscribeResult, SubscriptionRequest } from '../peers/negotiator.ts'
import type { PeerStatus } from '../peers/peers.ts'

export type { PeerStatus }

/** See `Replica`, in replication/positions/replica-positions.ts. */
export type ReplicaStatus = {
  appliedIndex?: number
  lag?: number
  lagSeconds?: number
  missing?: number
  copying?: true
  paused?: true
  reportedAt?: number
}

export interface OperationContext {
  readonly store: ManifestStore
  readonly host: Host
  readonly mesh: Mesh
  readonly logger: Logger
  /** Another process uses the name of this node: it takes no part now. */
  readonly isSuperseded?: boolean
  /** Why a node, database or table of this name cannot take part in the cluster; undefined if it can. */
  readonly nameFault: NameCheck
  readonly negotiator: {
    /**
     * Negotiates with the node, creates missing tables on both sides, and commits the manifest. Commits nothing if all tables are
     * skipped. Rejects with node_not_listening, node_timeout, peer_rejected or aborted.
     */
    subscribe(
      node: string,
      requests: readonly SubscriptionRequest[],
      options: NegotiateOptions,
    ): Promise<SubscribeResult>
    /** Ends all subscriptions with the node and removes it from the manifest. `reached` is false if the node did not answer. Rejects with aborted. */
    remove(node: string, options: NegotiateOptions): Promise<{ reached: boolean }>
    /**
     * Commits subscriptions with nodes that do not answer now. Each node is asked again until it agrees: then `copy` and `start_time`
     * take effect.
     */
    commitPending(
      pending: readonly { node: string; subscriptions: readonly SubscriptionRequest[] }[],
      commit: () => Promise<unknown>,
    ): Promise<void>
  }
  readonly peers: {
    /** The state of one connection, bounded by the request time-out. Rejects only with aborted. */
    status(node: string, options: { signal?: AbortSignal | undefined }): Promise<PeerStatus>
  }
  /** See `ClusterManager.verify`. */
  verify(
    source: RemoteTable,
    options: { repair: boolean; values: boolean; signal?: AbortSignal | undefined },
  ): Promise<VerifyResult>
  readonly streams: {
    /** Removes all but the last `keep` messages, or all before sequence `before`, or all. Rejects with mesh_unavailable. */
    purge(database: string, table: string, options: { keep?: number; before?: number }): Promise<void>
    /** Number of gaps since the subscription began, and of the transactions lost in them. Both are 0 without a subscription. */
    losses(source: RemoteTable): { gaps: number; lost: number }
    /** How far this node is with the local table, by its last report; undefined if it does not subscribe to it. */
    replica(subscriber: RemoteTable): ReplicaStatus | undefined
    /** Pauses a subscription, or ends its pause. Rejects with subscription_not_found. */
    setPaused(source: RemoteTable, isPaused: boolean): Promise<void>
    /** What the remote node has not agreed to yet, or why its transactions are not applied; undefined if all is well. */
    problem(source: RemoteTable): { state: string; reason: string } | undefined
  }
}

export type OperationOptions = { signal?: AbortSignal | undefined }

/** `user`: the name of the caller, for events and logs; undefined when code calls the method. */
export type HandlerOptions = OperationOptions & { user?: string | undefined }

/** The rules for names in a body. */
export type NameRules = { readonly localName: string; readonly nameFault: NameCheck }

/** One operation of the JSON API. */
export type Operation<Request, Response> = {
  /** Name of the `ClusterManager` method. */
  readonly method: string
  /** Schema of the body, without `operation`. */
  readonly schema: TSchema
  /** Rejected with clustering_disabled while clustering is disabled. */
  readonly requiresEnabled: boolean
  /** Throws for names that are valid in the body but not in this cluster. Runs before the manifest is read. */
  readonly checkNames?: (request: Request, rules: NameRules) => void
  /** Requests about the same node run one after the other; 'all' excludes every other queued request. */
  readonly queue?: (request: Request) => { node: string } | 'all'
  readonly handler: (context: OperationContext, request: Request, options: HandlerOptions) => Promise<Response>
}
