// Fields that several operations share: routes, node names, databases and tables, subscriptions. The texts are HarperDB's.

import { type Static, Type } from 'typebox'
import { clusterError, type Issue, invalidRequest } from '../errors.ts'
import { tableKey } from '../manifest/manifest.ts'
import { isHost, isNodeName } from '../manifest/names.ts'
import type { NameCheck } from '../mesh/mesh.ts'
import type { SkippedSubscription, SubscriptionRequest } from '../peers/negotiator.ts'
import { systemTimers } from '../util/timers.ts'
import { withRule } from './body.ts'
import type { NameRules } from './context.ts'
import { isDateTime, toUtc } from './time.ts'

// typebox enforces a refinement only if it has a function that returns the message.
const refined = <Schema extends ReturnType<typeof Type.String>>(
  schema: Schema,
  test: (text: string) => boolean,
  message: string,
) =>
  Type.Refine(
    schema,
    (value) => typeof value !== 'string' || value === '' || test(value),
    () => message,
  )

const name = () => Type.String({ minLength: 1 })

export const nodeName = () =>
  refined(Type.String({ minLength: 1, nullIsMissing: true }), isNodeName, 'invalid, must not contain ., * or >')

export const route = Type.Object({
  host: refined(name(), isHost, 'must be a valid host'),
  port: Type.Integer({ minimum: 1, maximum: 65535 }),
})
export const routes = Type.Array(route, { nullIsMissing: true })
export const serverName = Type.Enum(['hub', 'leaf'])

/** `database` and `schema` are synonyms. */
export const databaseFields = { database: Type.Optional(name()), schema: Type.Optional(name()) }
type DatabaseFields = { database?: string; schema?: string }

/** Issue for two synonymous fields with different values. */
export const mustAgree = (path: string, first: string, second: string): Issue => {
  const prefix = path === '' ? '' : `${path}.`
  return { path: `${prefix}${first}`, message: `'${prefix}${first}' and '${prefix}${second}' must be the same` }
}

export const databasesAgree = ({ database, schema }: DatabaseFields, path: string): Issue | undefined =>
  database !== undefined && schema !== undefined && database !== schema
    ? mustAgree(path, 'database', 'schema')
    : undefined

export const databaseOf = ({ database, schema }: DatabaseFields): string => database ?? schema ?? 'data'

const startTime = Type.Unsafe<string>(
  Type.Refine(
    Type.Unknown(),
    (value) => typeof value === 'string' && isDateTime(value),
    (value) => (typeof value === 'string' ? 'must be in ISO 8601 date format' : 'must be a valid date'),
  ),
)

/** The issue of fields that do not go together. */
function startIssue({ publish, subscribe, copy, replace }: SubscriptionBody, path: string): Issue | undefined {
  const issue = (field: string, text: string) => ({ path: `${path}.${field}`, message: `'${path}.${field}' ${text}` })
  if (replace && !copy) return issue('replace', "requires 'copy' to be true")
  if (replace && !subscribe) return issue('replace', "requires 'subscribe' to be true: the local table is replaced")
  if (copy && !subscribe && !publish) return issue('copy', "requires 'subscribe' or 'publish' to be true")
  return undefined
}

const subscriptionFields = () =>
  Type.Object({
    table: name(),
    ...databaseFields,
    subscribe: Type.Boolean(),
    publish: Type.Boolean(),
    start_time: Type.Optional(startTime),
    copy: Type.Optional(Type.Boolean()),
    replace: Type.Optional(Type.Boolean()),
  })
export type SubscriptionBody = Static<ReturnType<typeof subscriptionFields>>

const fieldsAgree = (value: SubscriptionBody, path: string): Issue | undefined =>
  databasesAgree(value, path) ?? startIssue(value, path)

export const subscription = withRule(subscriptionFields(), fieldsAgree)

/** A subscription of `add_node`: at least one direction is required. */
export const newSubscription = withRule(subscriptionFields(), (value, path) => {
  if (value.publish || value.subscribe) return fieldsAgree(value, path)
  return { path, message: `'${path}' subscribe and/or publish must be set to true when adding a node` }
})

/** A subscription in the form of the JSON API. */
export type SubscriptionResponse = {
  schema: string
  table: string
  publish: boolean
  subscribe: boolean
  start_time?: string
  copy?: boolean
  replace?: boolean
}
/** A subscription that was not made, and why. */
export type SkippedResponse = SubscriptionResponse & { reason: string }

/** Converts to the form of the manifest. If a table occurs twice, the last entry counts. */
export function toSubscriptionRequests(requests: readonly SubscriptionBody[]): SubscriptionRequest[] {
  const byTable = new Map<string, SubscriptionRequest>()
  for (const request of requests) {
    const { table, publish, subscribe, start_time: startTime, copy, replace } = request
    const subscription: SubscriptionRequest = {
      database: databaseOf(request),
      table,
      publish,
      subscribe,
      ...(startTime !== undefined && { startTime: toUtc(startTime, systemTimers.now()) }),
      ...(copy !== undefined && { copy }),
      ...(replace && { replace }),
    }
    byTable.set(tableKey(subscription), subscription)
  }
  return [...byTable.values()]
}

export const toResponse = ({
  database,
  table,
  publish,
  subscribe,
  startTime,
  copy,
  replace,
}: SubscriptionRequest): SubscriptionResponse => ({
  schema: database,
  table,
  publish,
  subscribe,
  ...(startTime === undefined ? {} : { start_time: startTime }),
  ...(copy === undefined ? {} : { copy }),
  ...(replace ? { replace } : {}),
})

export const toSkippedResponse = (skipped: SkippedSubscription): SkippedResponse => ({
  ...toResponse(skipped),
  reason: skipped.reason,
})

/** Throws name_not_replicable for the first name that `nameFault` rejects. */
export function checkReplicable(tables: Iterable<{ database: string; table: string }>, nameFault: NameCheck): void {
  for (const { database, table } of tables)
    for (const text of [database, table]) {
      const reason = nameFault(text)
      if (reason) throw clusterError('name_not_replicable', text, reason)
    }
}

/** Throws invalid_request if the node is the local one, or its name is not allowed. */
export function checkNode(node: string, { localName, nameFault }: NameRules, path = 'node_name'): void {
  checkNotSelf(node, localName, path)
  const reason = nameFault(node)
  if (reason) throw invalidRequest([{ path, message: `'${path}' invalid, ${reason}` }])
}

/** Throws invalid_request if the node is the local one. */
export function checkNotSelf(node: string, localName: string, path = 'node_name'): void {
  if (node === localName) throw invalidRequest([{ path, message: "'node_name' cannot be this nodes name" }])
}
