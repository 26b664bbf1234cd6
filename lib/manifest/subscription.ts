// A subscription and its fields. This file is the only one that names the fields: the manifest value, the configuration file,
// the messages between nodes, the revision file and every comparison are derived from `fields`. To add a field, add it to the
// type and to `fields`.

import { type TSchema, Type } from 'typebox'
import { type ConfigNode, type Kind, kinds } from './config-node.ts'

export type Subscription = {
  readonly database: string
  readonly table: string
  /** Local transactions go to the remote node. */
  readonly publish: boolean
  /** Transactions of the remote node are applied here. */
  readonly subscribe: boolean
}

export type FieldName = Exclude<keyof Subscription, 'database' | 'table'>
/** The fields beside the name of the table. */
export type SubscriptionFields = Pick<Subscription, FieldName>

type Field = {
  /** In messages between nodes; `Type.Optional` makes the field optional everywhere. */
  readonly schema: TSchema
  /** In the configuration file. */
  readonly kind: Kind<unknown>
  /** The field that has this value in the manifest of the remote node. */
  readonly mirror: FieldName
}

const fields = {
  publish: { schema: Type.Boolean(), kind: kinds.flag, mirror: 'subscribe' },
  subscribe: { schema: Type.Boolean(), kind: kinds.flag, mirror: 'publish' },
} as const satisfies { readonly [Name in FieldName]-?: Field }

/** In the order in which the configuration file has them. */
export const fieldNames = Object.keys(fields) as FieldName[]
export const optionalFields = fieldNames.filter((name) => Type.IsOptional(fields[name].schema))
export const requiredFields = fieldNames.filter((name) => !optionalFields.includes(name))

const makeFields = <Value>(read: (name: FieldName) => Value | undefined): { [Name in FieldName]: Value } => {
  const result: Partial<Record<FieldName, Value>> = {}
  for (const name of fieldNames) {
    const value = read(name)
    if (value !== undefined) result[name] = value
  }
  return result as { [Name in FieldName]: Value }
}

/** Schemas of the fields in messages between nodes. */
export const fieldSchemas = makeFields((name) => fields[name].schema) as {
  [Name in FieldName]: (typeof fields)[Name]['schema']
}

/** The fields of a subscription that was removed: every flag is off, optional fields are unset. */
export const emptyFields: SubscriptionFields = makeFields((name) => (optionalFields.includes(name) ? undefined : false))

/** The fields of `value` without its other properties. */
export const pickFields = (value: SubscriptionFields): SubscriptionFields => makeFields((name) => value[name])

/** The fields as the remote node has them, or had them, in its manifest: what is `publish` here is `subscribe` there. */
export const mirrorFields = (value: SubscriptionFields): SubscriptionFields =>
  makeFields((name) => value[fields[name].mirror])

/** The fields of an item of the configuration file; undefined when one is missing or invalid. */
export function readFields(item: ConfigNode): SubscriptionFields | undefined {
  const values = makeFields((name) => {
    const { kind } = fields[name]
    return optionalFields.includes(name) ? item.at(name).read(kind) : item.at(name).require(kind)
  })
  return requiredFields.every((name) => values[name] !== undefined) ? values : undefined
}

export const sameFields = (a: SubscriptionFields, b: SubscriptionFields): boolean =>
  fieldNames.every((name) => a[name] === b[name])

export const sameSubscription = (a: Subscription, b: Subscription): boolean =>
  a.database === b.database && a.table === b.table && sameFields(a, b)

/** A frozen subscription without other properties. */
export const makeSubscription = (value: Subscription): Subscription =>
  Object.freeze({ database: value.database, table: value.table, ...pickFields(value) })

/** `change` on top of `existing`: an optional field that `change` leaves out keeps its value. */
export const mergeSubscription = (existing: Subscription | undefined, change: Subscription): Subscription =>
  existing ? { ...existing, ...change } : change
