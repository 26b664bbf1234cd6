// add_node, update_node, set_node_replication and remove_node: the subscriptions with one node.

import { type Static, Type } from 'typebox'
import { clusterError } from '../errors.ts'
import { findNode } from '../manifest/manifest.ts'
import type { SubscribeResult } from '../peers/negotiator.ts'
import { withRule } from './body.ts'
import type { HandlerOptions, NameRules, Operation, OperationContext } from './context.ts'
import {
  checkNode,
  checkNotSelf,
  checkReplicable,
  mustAgree,
  newSubscription,
  nodeName,
  type SkippedResponse,
  type SubscriptionBody,
  type SubscriptionResponse,
  subscription,
  toResponse,
  toSkippedResponse,
  toSubscriptionRequests,
} from './fields.ts'

const addNodeSchema = Type.Object({
  node_name: nodeName(),
  subscriptions: Type.Array(newSubscription, { minItems: 1 }),
})
const updateNodeSchema = Type.Object({
  node_name: nodeName(),
  subscriptions: Type.Array(subscription, { minItems: 1 }),
})
const removeNodeSchema = withRule(
  Type.Object({ node_name: Type.Optional(nodeName()), name: Type.Optional(nodeName()) }),
  (value) => {
    if (value.node_name === undefined && value.name === undefined)
      return { path: 'node_name', message: "'node_name' is required" }
    const differ = value.node_name !== undefined && value.name !== undefined && value.node_name !== value.name
    return differ ? mustAgree('', 'node_name', 'name') : undefined
  },
)

export type AddNodeRequest = Static<typeof addNodeSchema>
/** A removed subscription that has not ended yet, because the database does not answer or rejects it; it is retried. */
export type PendingSubscription = { node_name: string; schema: string; table: string; reason: string }
/** Only present when the change is not in effect yet, although it is committed. */
export type Pending = { pending?: PendingSubscription[] }
export type AddNodeResponse = Pending & { message: string; added: SubscriptionResponse[]; skipped: SkippedResponse[] }
export type UpdateNodeRequest = Static<typeof updateNodeSchema>
export type UpdateNodeResponse = Pending & {
  message: string
  updated: SubscriptionResponse[]
  skipped: SkippedResponse[]
}
/** One of the two names is required; both must be equal. */
export type RemoveNodeRequest = { node_name: string; name?: string } | { node_name?: string; name: string }
export type RemoveNodeResponse = Pending & { message: string }

// HarperDB's texts.
export const addedText = (node: string): string => `Successfully added '${node}' to manifest`

/** `success` if no table was skipped; otherwise a text for some or for all of them. */
export function resultText({ agreed, skipped }: SubscribeResult, verb: 'create' | 'update', success: string): string {
  if (skipped.length === 0) return success
  return agreed.length === 0
    ? `Unable to ${verb} subscriptions due to schema and/or tables not existing on the local or remote node`
    : 'Some subscriptions were unsuccessful due to schema and/or tables not existing on the local or remote node'
}

type NodeRequest = { node_name: string; subscriptions: SubscriptionBody[] }

const checkNames = ({ node_name, subscriptions }: NodeRequest, rules: NameRules): void => {
  checkNode(node_name, rules)
  checkReplicable(toSubscriptionRequests(subscriptions), rules.nameFault)
}
const queue = ({ node_name }: NodeRequest) => ({ node: node_name })

export const addNode: Operation<AddNodeRequest, AddNodeResponse> = {
  method: 'addNode',
  schema: addNodeSchema,
  requiresEnabled: true,
  checkNames,
  queue,
  async handler({ store, negotiator }, { node_name: node, subscriptions }, { signal, user }) {
    if (findNode(store.manifest, node)) throw clusterError('node_exists', node)
    const result = await negotiator.subscribe(node, toSubscriptionRequests(subscriptions), {
      operation: 'add_node',
      signal,
      user,
    })
    return {
      message: resultText(result, 'create', addedText(node)),
      added: result.agreed.map(toResponse),
      skipped: result.skipped.map(toSkippedResponse),
    }
  },
}

/** Adds the node if it is missing. Subscriptions to other tables do not change. */
const update =
  (operation: 'update_node' | 'set_node_replication') =>
  async (
    { negotiator }: OperationContext,
    { node_name: node, subscriptions }: UpdateNodeRequest,
    { signal, user }: HandlerOptions,
  ): Promise<UpdateNodeResponse> => {
    const result = await negotiator.subscribe(node, toSubscriptionRequests(subscriptions), { operation, signal, user })
    return {
      message: resultText(result, 'update', `Successfully updated '${node}'`),
      updated: result.agreed.map(toResponse),
      skipped: result.skipped.map(toSkippedResponse),
    }
  }

export const updateNode: Operation<UpdateNodeRequest, UpdateNodeResponse> = {
  method: 'updateNode',
  schema: updateNodeSchema,
  requiresEnabled: true,
  checkNames,
  queue,
  handler: update('update_node'),
}

export const setNodeReplication: Operation<UpdateNodeRequest, UpdateNodeResponse> = {
  ...updateNode,
  method: 'setNodeReplication',
  handler: update('set_node_replication'),
}

const removedName = ({ node_name, name }: RemoveNodeRequest): string => node_name ?? name ?? ''

export const removeNode: Operation<RemoveNodeRequest, RemoveNodeResponse> = {
  method: 'removeNode',
  schema: removeNodeSchema,
  requiresEnabled: true,
  checkNames: (request, { localName }) => checkNotSelf(removedName(request), localName),
  queue: (request) => ({ node: removedName(request) }),
  async handler({ store, negotiator }, request, { signal, user }) {
    const node = removedName(request)
    if (!findNode(store.manifest, node)) throw clusterError('node_not_found', node)
    const { reached } = await negotiator.remove(node, { operation: 'remove_node', signal, user })
    return {
      message: reached
        ? `Successfully removed '${node}' from manifest`
        : `Successfully removed '${node}' from local manifest, however there was an error reaching remote node. Check the logs for more details.`,
    }
  },
}
