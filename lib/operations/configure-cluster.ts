// All nodes and subscriptions at once, as a difference: what stays keeps flowing, and a node that does not answer stops no other.

import { type Static, Type } from 'typebox'
import { ClusterError, type ErrorCode, reasonOf } from '../errors.ts'
import { findNode, type Manifest, type ManifestNode, replaceNodes, setSubscriptions } from '../manifest/manifest.ts'
import type { SubscribeResult } from '../peers/negotiator.ts'
import { withRule } from './body.ts'
import type { Operation, OperationContext, OperationOptions } from './context.ts'
import {
  checkNode,
  checkReplicable,
  nodeName,
  type SubscriptionResponse,
  subscription,
  toResponse,
  toSubscriptionRequests,
} from './fields.ts'
import { resultText } from './nodes.ts'
import { type DesiredConnection, type PlanEntry, planCluster } from './plan.ts'

const connection = Type.Object({
  node_name: nodeName(),
  subscriptions: Type.Array(subscription, { minItems: 1 }),
})
const configureClusterSchema = Type.Object({
  connections: withRule(Type.Array(connection), (connections, path) =>
    new Set(connections.map((one) => one.node_name)).size < connections.length
      ? { path, message: "'connections' must not name a node twice" }
      : undefined,
  ),
  dry_run: Type.Optional(Type.Boolean()),
})

export type ConfigureClusterRequest = Static<typeof configureClusterSchema>
export type ConfiguredConnection = {
  node_name: string
  subscriptions: { message: string; added: SubscriptionResponse[]; skipped: SubscriptionResponse[] }
}
export type ConfigureClusterResponse = {
  message: string
  connections?: ConfiguredConnection[]
  /** Nodes that did not answer or refused: in the manifest, pending. */
  failed_nodes?: string[]
  /** Of a dry run. */
  plan?: PlanEntry[]
}

const operation = 'configure_cluster'

/** Failures of the other node; any other one is ours, and the caller's to know. */
const peerErrorCodes: ReadonlySet<ErrorCode> = new Set(['node_not_listening', 'node_timeout', 'peer_rejected'])

/** Undefined when the other node failed. */
async function configure(
  { store, negotiator, logger }: OperationContext,
  { node, subscriptions }: DesiredConnection,
  { signal }: OperationOptions,
): Promise<SubscribeResult | undefined> {
  try {
    const outcome = await negotiator.subscribe(node, subscriptions, { operation, replace: true, signal })
    // Nothing could be agreed, so nothing was committed: what the manifest held before goes all the same.
    if (outcome.agreed.length === 0 && findNode(store.manifest, node))
      await negotiator.remove(node, { operation, signal })
    return outcome
  } catch (error) {
    if (!(error instanceof ClusterError && peerErrorCodes.has(error.code))) throw error
    logger.warn({ node, reason: reasonOf(error) }, 'Configured without an answer: its subscriptions are pending')
    return undefined
  }
}

async function remove({ negotiator, logger }: OperationContext, node: string, { signal }: OperationOptions) {
  const { reached } = await negotiator.remove(node, { operation, signal })
  if (!reached) logger.warn({ node }, 'Removed from the local manifest; the node could not be told yet')
}

/** The nodes in the order of the connections, others behind them; `pending` with what is wanted of them. */
function orderNodes(
  manifest: Manifest,
  connections: readonly DesiredConnection[],
  pending: readonly DesiredConnection[],
): Manifest {
  const all = pending.reduce(
    (next, { node, subscriptions }) => setSubscriptions(next, node, subscriptions, { replace: true }),
    manifest,
  )
  const remaining = new Map(all.nodes.map((node) => [node.name, node]))
  const ordered: ManifestNode[] = []
  for (const { node } of connections) {
    const found = remaining.get(node)
    if (found) ordered.push(found)
    remaining.delete(node)
  }
  return replaceNodes(all, [...ordered, ...remaining.values()])
}

export const configureCluster: Operation<ConfigureClusterRequest, ConfigureClusterResponse> = {
  method: 'configureCluster',
  schema: configureClusterSchema,
  requiresEnabled: true,
  checkNames({ connections }, rules) {
    for (const [index, { node_name }] of connections.entries())
      checkNode(node_name, rules, `connections[${index}].node_name`)
    for (const { subscriptions } of connections) checkReplicable(toSubscriptionRequests(subscriptions), rules.nameFault)
  },
  queue: () => 'all',
  async handler(context, request, options) {
    const { store } = context
    const connections = request.connections.map(({ node_name, subscriptions }) => ({
      node: node_name,
      subscriptions: toSubscriptionRequests(subscriptions),
    }))
    if (request.dry_run)
      return { message: 'Cluster configuration planned.', plan: planCluster(store.manifest, connections) }

    const named = new Set(connections.map(({ node }) => node))
    const removedNodes = store.manifest.nodes.filter(({ name }) => !named.has(name))
    const [outcomes, removals] = await Promise.all([
      Promise.allSettled(connections.map((one) => configure(context, one, options))),
      Promise.allSettled(removedNodes.map(({ name }) => remove(context, name, options))),
    ])
    const failure = [...outcomes, ...removals].find((result) => result.status === 'rejected')
    if (failure) throw failure.reason

    const answered = outcomes.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
    const pending = connections.filter((_, index) => !answered[index])
    for (const { node } of pending) context.negotiator.scheduleCompare(node)
    await store.commit((current) => orderNodes(current, connections, pending), 'api')
    const response: ConfigureClusterResponse = {
      message: 'Cluster successfully configured.',
      connections: connections.flatMap(({ node }, index) => {
        const outcome = answered[index]
        if (!outcome) return []
        const message = resultText(outcome, 'create', `Successfully added '${node}' to manifest`)
        const added = outcome.agreed.map(toResponse)
        return [{ node_name: node, subscriptions: { message, added, skipped: outcome.skipped.map(toResponse) } }]
      }),
    }
    if (pending.length === 0) return response
    return {
      ...response,
      message:
        'Configure cluster was partially successful. Errors occurred when attempting to configure the following nodes. Check the logs for more details.',
      failed_nodes: pending.map(({ node }) => node),
    }
  },
}
