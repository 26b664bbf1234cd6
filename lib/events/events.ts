// The event map, and an emitter that isolates its listeners from each other and from the code that emits.

import { EventEmitter } from 'eventemitter3'
import type { CopyReason, RemoteTable } from '../host/host.ts'
import type { SlowHostCall } from '../host/host-calls.ts'
import type { VerifyResult } from '../host/verify-result.ts'
import type { Problem } from '../manifest/config-file.ts'
import type { ChangeAuthor, Manifest, ManifestChange, ManifestNode, Route, ServerName } from '../manifest/manifest.ts'
import type { ClusterMeshState } from '../mesh/mesh.ts'
import type { Health, HealthCondition } from '../observe/health.ts'
import type { Progress } from '../observe/progress.ts'

export type SubscriptionState = 'pending' | 'copying' | 'catching-up' | 'live' | 'stalled' | 'paused' | 'ended'
export type GapReason = 'purged' | 'expired' | 'recreated' | 'rewound' | 'unrecorded' | 'checkpoint_lost'

/** `wall-clock`: the clock of this node is ahead of those of all its peers. `timestamps`: its last timestamp is ahead of its own clock. */
export type ClockReason = 'wall-clock' | 'timestamps'

/** Every event has one payload object, frozen. An event is emitted after the state has changed. */
export type ClusterEvents = {
  /** One for each commit, before the events of its changes. */
  'manifest:changed': [ChangeAuthor & { previous: Manifest; current: Manifest; changes: readonly ManifestChange[] }]
  'route:added': [ChangeAuthor & { server: ServerName; route: Route }]
  'route:removed': [ChangeAuthor & { server: ServerName; route: Route }]
  'node:added': [ChangeAuthor & { node: ManifestNode }]
  'node:updated': [ChangeAuthor & { node: ManifestNode; previous: ManifestNode }]
  'node:removed': [ChangeAuthor & { node: ManifestNode }]
  /** The configuration file is invalid: the last valid manifest stays in effect. */
  'config:rejected': [{ problems: readonly Problem[] }]
  /** The configuration file was deleted: the manifest stays in effect. */
  'config:missing': [{ problems: readonly Problem[] }]
  /** The section has unknown keys, probably misspelt; they have no effect. */
  'config:warning': [{ problems: readonly Problem[] }]
  'peer:up': [{ node: string; reason?: string }]
  'peer:down': [{ node: string; reason?: string }]
  /** The mesh rejected a connection, in either direction; `node` is a name or an address. */
  'connection:rejected': [{ node: string; reason?: string }]
  /** New certificates are in use, also for new connections of the servers that run. */
  'certificates:replaced': [Record<string, never>]
  /** The certificates on disk are not usable: the previous ones stay in use. */
  'certificates:rejected': [{ reason: string }]
  /**
   * Another process used the name of this node first: this one takes no part, and tries again when the other one has been silent.
   * `superseded` is false when it takes part again.
   */
  'node:superseded': [{ superseded: boolean; reason?: string }]
  /** The remote node cannot accept a subscription now; once for each change of the reason. It is asked again until it accepts. */
  'subscription:refused': [{ node: string; database: string; table: string; reason: string }]
  'subscription:state': [{ source: RemoteTable; state: SubscriptionState; previous: SubscriptionState; error?: string }]
  /** A batch was applied and committed; `sequence` is that of its last message. */
  'replication:applied': [{ source: RemoteTable; transactions: number; sequence: number }]
  /**
   * The transactions `from` to `to`, by their running numbers in the epoch, were gone from the stream before they were read, or before
   * they could be read again: `lost` of them. What is not known is absent. With `checkpoint_lost`, `to` is 0 when the stream still
   * has its first message: what is lost beside the stream is unknown. `repair`: a copy of the source's rows follows, and
   * `replication:repaired` when it has ended.
   */
  'replication:gap': [
    { source: RemoteTable; from?: number; to?: number; lost?: number; reason: GapReason; repair: boolean },
  ]
  /** All rows of the table were copied from `node`; `ms` since the copy began, or was resumed by this process. */
  'replication:copied': [RemoteTable & { rows: number; reason: CopyReason; ms: number }]
  /** As `replication:copied`, which comes first: a loss is repaired. Not for the copies of new subscriptions and of operators. */
  'replication:repaired': [RemoteTable & { rows: number; reason: CopyReason }]
  /** The table was compared with that of `node`. As `ClusterManager.verify` resolves. */
  'replication:verified': [RemoteTable & VerifyResult]
  /** Writes of a batch to rows that do not exist here are older than tombstones that were dropped: they were ignored. */
  'replication:refused-old': [RemoteTable & { writes: number }]
  /**
   * The subscription was not caught up since `since` (ms since 1970), for longer than `tombstoneAge`: deletes that it missed may be lost,
   * and rows of the table may be here that no other node has. `copy` with `replace` is the way back.
   */
  'replication:stale': [RemoteTable & { since: number }]
  /**
   * The local stream of a table has, or had, the messages `from` to `to`, and the database does not have them in its outbox: it was
   * restored from an older copy, or they were deleted before they were confirmed. The stream continues in the new `epoch`. The
   * table is copied from every node that it is subscribed from, unless the option `repair` is false.
   */
  'replication:diverged': [{ database: string; table: string; epoch: string; from: number; to: number; reason: string }]
  /** `index`, `id`: the transaction that is refused; absent when the reason is not one transaction. */
  'replication:stalled': [
    { source: RemoteTable; sequence: number; error: string; attempts: number; index?: number; id?: string },
  ]
  /** `count` transactions from `index` on: more than one if a whole message is unreadable. */
  'replication:quarantined': [
    { source: RemoteTable; epoch: string; index: number; count: number; sequence: number; error: string },
  ]
  /** A negotiation created a local table, as `node` describes it. */
  'table:created': [{ database: string; table: string; node: string }]
  /**
   * The table of `node` has attributes that the local one lacked. A host with `alterTable` has added them; otherwise they may come with
   * the next rows.
   */
  'table:attributes': [{ node: string; database: string; table: string; attributes: readonly string[] }]
  /** Peers quarantine what this node commits: `aheadMs` is more than `maxClockDrift`. Once for each change of the state or its reason. */
  'clock:ahead': [{ node: string; aheadMs: number; reason: ClockReason; peers: readonly string[] }]
  /** The clock is no longer ahead. */
  'clock:ok': [{ node: string }]
  /** The database has not answered a call for `ms`; with `answered`, it has now. `node`, `database` and `table` where the call has them. */
  'host:slow': [SlowHostCall]
  /** `isolated`: local streams are writable, no node of the manifest is reached; `reason` says why. Also when only the reason changes. */
  'mesh:state': [{ state: ClusterMeshState; reason?: string }]
  /**
   * A condition of `ClusterManager.health` began or ended. Checked once a second: shorter ones are in no event. Another message of a
   * condition is no change.
   */
  'health:changed': [Health & { began: readonly HealthCondition[]; ended: readonly HealthCondition[] }]
  /** Work that takes longer than 250 ms, at most four times a second; at its end `done` equals `total`. */
  progress: [Progress]
  /** A listener threw or rejected. */
  'listener:failed': [{ event: string; error: unknown }]
}

export type EventName = keyof ClusterEvents
const eventNameSet: Record<EventName, true> = {
  'manifest:changed': true,
  'route:added': true,
  'route:removed': true,
  'node:added': true,
  'node:updated': true,
  'node:removed': true,
  'config:rejected': true,
  'config:missing': true,
  'config:warning': true,
  'peer:up': true,
  'peer:down': true,
  'connection:rejected': true,
  'certificates:replaced': true,
  'certificates:rejected': true,
  'node:superseded': true,
  'subscription:refused': true,
  'subscription:state': true,
  'replication:applied': true,
  'replication:gap': true,
  'replication:copied': true,
  'replication:repaired': true,
  'replication:verified': true,
  'replication:refused-old': true,
  'replication:stale': true,
  'replication:diverged': true,
  'replication:stalled': true,
  'replication:quarantined': true,
  'table:created': true,
  'table:attributes': true,
  'clock:ahead': true,
  'clock:ok': true,
  'host:slow': true,
  'mesh:state': true,
  'health:changed': true,
  progress: true,
  'listener:failed': true,
}
/** All events. */
export const eventNames = Object.keys(eventNameSet) as readonly EventName[]
export type Payload<Name extends EventName> = ClusterEvents[Name][0]

/** The message on the diagnostics channel `enmesh:<event>`: the payload of the event and the name of the node that emitted it. */
export type EventMessage<Name extends EventName = EventName> = { readonly localNode: string } & Payload<Name>

type Listener = (...args: unknown[]) => unknown
type ListenerOf<Name extends EventName> = (...args: ClusterEvents[Name]) => void

/**
 * eventemitter3, typed, with every listener wrapped: one that throws or rejects is reported as `listener:failed` and affects
 * neither other listeners nor the code that emits. Payloads are frozen.
 */
export class SafeEmitter extends EventEmitter<ClusterEvents> {
  /** The wrapper of each listener by event, so that `off` finds it. */
  readonly #wrappers = new Map<EventName, WeakMap<Listener, Listener>>()
  readonly #ended = new AbortController()

  /** Aborts when no more events will be emitted. */
  get ended(): AbortSignal {
    return this.#ended.signal
  }

  protected end(): void {
    this.#ended.abort()
  }

  override on<Name extends EventName>(event: Name, listener: ListenerOf<Name>, context?: unknown): this {
    return super.on(event, this.#wrap(event, listener) as never, context)
  }

  override once<Name extends EventName>(event: Name, listener: ListenerOf<Name>, context?: unknown): this {
    return super.once(event, this.#wrap(event, listener) as never, context)
  }

  override off<Name extends EventName>(
    event: Name,
    listener?: ListenerOf<Name>,
    context?: unknown,
    once?: boolean,
  ): this {
    const wrapper = listener && this.#wrappers.get(event)?.get(listener as Listener)
    return super.off(event, (wrapper ?? listener) as never, context, once)
  }

  override addListener<Name extends EventName>(event: Name, listener: ListenerOf<Name>, context?: unknown): this {
    return this.on(event, listener, context)
  }

  override removeListener<Name extends EventName>(
    event: Name,
    listener?: ListenerOf<Name>,
    context?: unknown,
    once?: boolean,
  ): this {
    return this.off(event, listener, context, once)
  }

  override emit<Name extends EventName>(event: Name, ...args: ClusterEvents[Name]): boolean {
    Object.freeze(args[0])
    return super.emit(event, ...(args as never))
  }

  #wrap(event: EventName, listener: unknown): Listener {
    const original = listener as Listener
    const ofEvent = this.#wrappers.get(event) ?? new WeakMap<Listener, Listener>()
    this.#wrappers.set(event, ofEvent)
    const report = (error: unknown) => {
      if (event !== 'listener:failed') this.emit('listener:failed', { event, error })
    }
    const wrapper =
      ofEvent.get(original) ??
      function (this: unknown, ...args: unknown[]) {
        try {
          const result = original.apply(this, args)
          // Any thenable, not only native promises.
          if (typeof (result as PromiseLike<unknown> | undefined)?.then === 'function')
            Promise.resolve(result).catch(report)
        } catch (error) {
          report(error)
        }
      }
    ofEvent.set(original, wrapper)
    return wrapper
  }
}
