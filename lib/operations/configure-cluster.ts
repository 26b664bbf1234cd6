// All nodes and subscriptions at once, as a difference: what stays keeps flowing, and a node that does not answer stops no other.

import { type Static, Type } from 'typebox'
import { ClusterError, type ErrorCode, reasonOf } from '../errors.ts'
import { findNode, type Manifest, type Node, replaceNodes, setSubscriptions } from '../manifest/manifest.ts'
import type { Outcome } from '../peers/agreement.ts'
import { withRule } from './body.ts'
import type { Operation, OperationContext, OperationOptions } from './context.ts'
import {
  checkNode,
  checkReplicable,
  nodeName,
  type SubscriptionResponse,
  subscription,
  toResponse,
  toWanted,
} from './fields.ts'
import { outcomeText } from './nodes.ts'
import { type Connection, type PlanEntry, planCluster } from './plan.ts'

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
const remoteFailures: ReadonlySet<ErrorCode> = new Set(['node_not_listening', 'node_timeout', 'remote_refused'])

/** Undefined when the other node failed. */
async function configure(
  { store, agreement, logger }: OperationContext,
  { node, wanted }: Connection,
  { signal }: OperationOptions,
): Promise<Outcome | undefined> {
  try {
    const outcome = await agreement.subscribe(node, wanted, { operation, replace: true, signal })
    // Nothing could be agreed, so nothing was committed: what the manifest held before goes all the same.
    if (outcome.agreed.length === 0 && findNode(store.manifest, node))
      await agreement.remove(node, { operation, signal })
    return outcome
  } catch (error) {
    if (!(error instanceof ClusterError && remoteFailures.has(error.code))) throw error
    logger.warn({ node, reason: reasonOf(error) }, 'Configured without an answer: its subscriptions are pending')
    return undefined
  }
}

async function remove({ agreement, logger }: OperationContext, node: string, { signal }: OperationOptions) {
  const { reached } = await agreement.remove(node, { operation, signal })
  if (!reached) logger.warn({ node }, 'Removed from the local manifest; the node could not be told yet')
}

/** The nodes in the order of the connections, others behind them; `pending` with what is wanted of them. */
function settle(manifest: Manifest, connections: readonly Connection[], pending: readonly Connection[]): Manifest {
  const all = pending.reduce(
    (next, { node, wanted }) => setSubscriptions(next, node, wanted, { replace: true }),
    manifest,
  )
  const left = new Map(all.nodes.map((node) => [node.name, node]))
  const ordered: Node[] = []
  for (const { node } of connections) {
    const found = left.get(node)
    if (found) ordered.push(found)
    left.delete(node)
  }
  return replaceNodes(all, [...ordered, ...left.values()])
}

export const configureCluster: Operation<ConfigureClusterRequest, ConfigureClusterResponse> = {
  method: 'configureCluster',
  schema: configureClusterSchema,
  enabledOnly: true,
  checkNames({ connections }, rules) {
    for (const [index, { node_name }] of connections.entries())
      checkNode(node_name, rules, `connections[${index}].node_name`)
    for (const { subscriptions } of connections) checkReplicable(toWanted(subscriptions), rules.nameFault)
  },
  turn: () => 'all',
  async handler(context, request, options) {
    const { store } = context
    const connections = request.connections.map(({ node_name, subscriptions }) => ({
      node: node_name,
      wanted: toWanted(subscriptions),
    }))
    if (request.dry_run)
      return { message: 'Cluster configuration planned.', plan: planCluster(store.manifest, connections) }

    const named = new Set(connections.map(({ node }) => node))
    const gone = store.manifest.nodes.filter(({ name }) => !named.has(name))
    const [outcomes, removals] = await Promise.all([
      Promise.allSettled(connections.map((one) => configure(context, one, options))),
      Promise.allSettled(gone.map(({ name }) => remove(context, name, options))),
    ])
    const broken = [...outcomes, ...removals].find((result) => result.status === 'rejected')
    if (broken) throw broken.reason

    const answered = outcomes.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
    const pending = connections.filter((_, index) => !answered[index])
    for (const { node } of pending) context.agreement.postpone(node)
    await store.commit((current) => settle(current, connections, pending), 'api')
    const response: ConfigureClusterResponse = {
      message: 'Cluster successfully configured.',
      connections: connections.flatMap(({ node }, index) => {
        const outcome = answered[index]
        if (!outcome) return []
        const message = outcomeText(outcome, 'create', `Successfully added '${node}' to manifest`)
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
