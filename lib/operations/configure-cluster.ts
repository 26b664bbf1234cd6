// configure_cluster: replaces all nodes and subscriptions. Applied as a difference, so unchanged subscriptions keep flowing,
// and a node that does not answer does not stop the others.

import { type Static, Type } from 'typebox'
import { ClusterError, type ErrorCode, reasonOf } from '../errors.ts'
import { findNode, type Manifest, type ManifestNode, replaceNodes, setSubscriptions } from '../manifest/manifest.ts'
import type { SubscribeResult } from '../peers/negotiator.ts'
import { withRule } from './body.ts'
import type { HandlerOptions, Operation, OperationContext } from './context.ts'
import {
  checkNode,
  checkReplicable,
  nodeName,
  type SkippedResponse,
  type SubscriptionResponse,
  subscription,
  toResponse,
  toSkippedResponse,
  toSubscriptionRequests,
} from './fields.ts'
import { addedText, type Pending, resultText } from './nodes.ts'
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
  subscriptions: { message: string; added: SubscriptionResponse[]; skipped: SkippedResponse[] }
}
export type ConfigureClusterResponse = Pending & {
  message: string
  connections?: ConfiguredConnection[]
  /** Nodes that did not answer or rejected the request. They are in the manifest and their subscriptions are pending. */
  failed_nodes?: string[]
  /** Only in the answer to `dry_run`. */
  plan?: PlanEntry[]
}

const operation = 'configure_cluster'

// HarperDB's texts.
const CONFIGURED = 'Cluster successfully configured.'
const PARTIALLY_CONFIGURED =
  'Configure cluster was partially successful. Errors occurred when attempting to configure the following nodes. Check the logs for more details.'

/** Failures of the peer: its subscriptions become pending. Any other failure rejects the operation. */
const peerErrorCodes: ReadonlySet<ErrorCode> = new Set(['node_not_listening', 'node_timeout', 'peer_rejected'])

/** Undefined if the peer failed. */
async function configure(
  { store, negotiator, logger }: OperationContext,
  { node, subscriptions }: DesiredConnection,
  { signal, user }: HandlerOptions,
): Promise<SubscribeResult | undefined> {
  try {
    const result = await negotiator.subscribe(node, subscriptions, { operation, replace: true, signal, user })
    // `subscribe` commits nothing if all tables are skipped, so the old subscriptions are removed here.
    if (result.agreed.length === 0 && findNode(store.manifest, node))
      await negotiator.remove(node, { operation, signal, user })
    return result
  } catch (error) {
    if (!(error instanceof ClusterError && peerErrorCodes.has(error.code))) throw error
    logger.warn(
      { peer: node, reason: reasonOf(error) },
      'peer failed during configure_cluster, its subscriptions are pending',
    )
    return undefined
  }
}

async function remove({ negotiator, logger }: OperationContext, node: string, { signal, user }: HandlerOptions) {
  const { reached } = await negotiator.remove(node, { operation, signal, user })
  if (!reached) logger.warn({ peer: node }, 'removed node did not answer, it learns of the removal on the next contact')
}

/** Sorts the nodes in the order of `connections`, others after them, and sets the requested subscriptions of the `pending` ones. */
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
    const [settled, removals] = await Promise.all([
      Promise.allSettled(connections.map((one) => configure(context, one, options))),
      Promise.allSettled(removedNodes.map(({ name }) => remove(context, name, options))),
    ])
    const failure = [...settled, ...removals].find((result) => result.status === 'rejected')
    if (failure) throw failure.reason

    const results = settled.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
    const pending = connections.filter((_, index) => !results[index])
    await context.negotiator.commitPending(pending, () =>
      store.commit((current) => orderNodes(current, connections, pending), 'api', { user: options.user }),
    )
    const response: ConfigureClusterResponse = {
      message: CONFIGURED,
      connections: connections.flatMap(({ node }, index) => {
        const result = results[index]
        if (!result) return []
        const message = resultText(result, 'create', addedText(node))
        const added = result.agreed.map(toResponse)
        return [{ node_name: node, subscriptions: { message, added, skipped: result.skipped.map(toSkippedResponse) } }]
      }),
    }
    if (pending.length === 0) return response
    return { ...response, message: PARTIALLY_CONFIGURED, failed_nodes: pending.map(({ node }) => node) }
  },
}
