// A context for operations: a real store on a temporary file, and fakes that record their calls.

import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { ClusterError } from '../../lib/errors.ts'
import type { RemoteTable, TableDescription } from '../../lib/host/host.ts'
import { removeNode, setSubscriptions } from '../../lib/manifest/manifest.ts'
import { tokenFault } from '../../lib/manifest/names.ts'
import type { ManifestStore } from '../../lib/manifest/store.ts'
import type { Member, NameCheck } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import type { OperationContext, PeerStatus, ReplicaStatus } from '../../lib/operations/context.ts'
import type { NegotiateOptions, SubscribeResult, SubscriptionRequest } from '../../lib/peers/negotiator.ts'
import { openStore } from './store-fixture.ts'

export const enabledText = 'clustering:\n  enabled: true\n  nodeName: node1\n'
export const superUser = { superUser: true, username: 'admin' }

/** The status and message of the ClusterError that a call rejects with. */
export async function errorOf(answer: Promise<unknown>): Promise<[status: number, message: string]> {
  try {
    await answer
  } catch (error) {
    assert.ok(error instanceof ClusterError, String(error))
    return [error.statusCode, error.message]
  }
  assert.fail('the call did not reject')
}

/** The answers of the fakes, which a test may change, and their recorded calls. */
export class Fakes {
  readonly calls: unknown[][] = []
  tables: TableDescription[] = [{ database: 'dev', table: 'dog', primaryKey: 'id', attributes: ['id'] }]
  /** Names of tables that the negotiation skips. */
  unknownTables = new Set<string>()
  /** Errors of `subscribe`, by node. */
  failures = new Map<string, Error>()
  /** `subscribe` waits for this, by node. */
  gates = new Map<string, Promise<void>>()
  /** Nodes that do not answer `remove`. */
  unreachable = new Set<string>()
  /** The mesh's check of names. */
  unsupported: NameCheck = () => undefined
  peers = new Map<string, PeerStatus>()
  /** By `node table`. */
  replicas = new Map<string, ReplicaStatus>()
  losses = new Map<string, { gaps: number; lost: number }>()
  problems = new Map<string, { state: string; reason: string }>()
  members: () => Promise<Member[]> = async () => []

  async subscribe(
    store: ManifestStore,
    node: string,
    desired: readonly SubscriptionRequest[],
    options: NegotiateOptions,
  ): Promise<SubscribeResult> {
    this.calls.push(['subscribe', node, desired, options])
    await this.gates.get(node)
    const failure = this.failures.get(node)
    if (failure) throw failure
    const agreed = desired.filter(({ table }) => !this.unknownTables.has(table))
    const skipped = desired
      .filter(({ table }) => this.unknownTables.has(table))
      .map((each) => ({ ...each, reason: 'the table exists on neither node' }))
    const { replace = false } = options
    if (agreed.length > 0) await store.commit((current) => setSubscriptions(current, node, agreed, { replace }), 'api')
    return { agreed, skipped }
  }

  async remove(store: ManifestStore, node: string, options: NegotiateOptions): Promise<{ reached: boolean }> {
    this.calls.push(['remove', node, options])
    await store.commit((current) => removeNode(current, node), 'api')
    return { reached: !this.unreachable.has(node) }
  }
}

export async function openContext(test: TestContext, text = enabledText) {
  const { store, path, listener } = await openStore(test, text)
  const fakes = new Fakes()
  const context = {
    store,
    host: { describe: async () => fakes.tables },
    mesh: {
      members: async (options: unknown) => {
        fakes.calls.push(['members', options])
        return fakes.members()
      },
    },
    logger: silentLogger,
    nameFault: (name: string) => tokenFault(name) ?? fakes.unsupported(name),
    negotiator: {
      subscribe: (node: string, desired: readonly SubscriptionRequest[], options: NegotiateOptions) =>
        fakes.subscribe(store, node, desired, options),
      remove: (node: string, options: NegotiateOptions) => fakes.remove(store, node, options),
      commitPending: async (pending: readonly { node: string }[], commit: () => Promise<unknown>) => {
        await commit()
        for (const { node } of pending) fakes.calls.push(['pending', node])
      },
    },
    peers: { status: async (node: string) => fakes.peers.get(node) ?? { status: 'NoResponders' } },
    streams: {
      purge: async (...call: unknown[]) => {
        fakes.calls.push(['purge', ...call])
      },
      replica: ({ node, table }: RemoteTable) => fakes.replicas.get(`${node} ${table}`),
      losses: ({ node, table }: RemoteTable) => fakes.losses.get(`${node} ${table}`) ?? { gaps: 0, lost: 0 },
      problem: ({ node, table }: RemoteTable) => fakes.problems.get(`${node} ${table}`),
    },
  } as unknown as OperationContext
  return { context, store, path, fakes, listener }
}
