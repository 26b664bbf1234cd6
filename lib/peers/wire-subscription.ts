// A subscription in messages between nodes. A message describes it as its receiver holds it: mirrored.

import type { TableDescription, Timestamp } from '../host/host.ts'
import { type StartFields, startRequest } from '../manifest/start-request.ts'
import { mirrorFields, pickFields, type Subscription } from '../manifest/subscription.ts'
import type { RegisterEntry, WireSubscription } from './protocol.ts'
import type { Register } from './register.ts'
import { withKey } from './table-descriptions.ts'

/** A subscription as requested. */
export type SubscriptionRequest = Subscription & StartFields

/** The new value of a register, valid from `revision` on. */
export const toRegister = (
  { database, table, startTime, copy, replace, ...subscription }: SubscriptionRequest,
  revision: Timestamp,
): Register => {
  const start = startRequest(revision, { startTime, copy, replace })
  return { database, table, ...pickFields(subscription), removed: false, revision, ...(start && { start }) }
}

/** `described` lets the receiver create a missing table. */
export const toWire = (
  { database, table, startTime, copy, replace, ...subscription }: SubscriptionRequest,
  described?: TableDescription,
): WireSubscription => ({
  schema: database,
  table,
  ...mirrorFields(subscription),
  ...(startTime ? { start_time: startTime } : {}),
  // Rows that are about to be replaced here are no use to the remote node.
  ...(copy === undefined ? {} : { copy: copy && !replace }),
  ...(described ? { hash_attribute: described.primaryKey, attributes: attributesOf(described) } : {}),
})

const attributesOf = ({ primaryKey, attributes }: TableDescription) =>
  withKey(attributes, primaryKey).map((name) => ({ name, ...(name === primaryKey && { isPrimaryKey: true }) }))

export const toEntry = (register: Register, described: TableDescription | undefined): RegisterEntry => ({
  ...toWire({ ...register, ...register.start }, described),
  removed: register.removed,
  revision: register.revision,
  ...(register.start === undefined ? {} : { start_id: register.start.id }),
  ...(register.publishSince === undefined ? {} : { since: register.publishSince }),
})

/** An invalid start time is ignored. */
export const fromWire = (
  {
    schema,
    table,
    start_time,
    copy,
    start_id,
    removed = false,
    since,
    ...subscription
  }: WireSubscription & Partial<Pick<RegisterEntry, 'removed' | 'since' | 'start_id'>>,
  revision: Timestamp,
): Register => {
  const startTime = start_time && !Number.isNaN(Date.parse(start_time)) ? start_time : undefined
  // No request may be later than the change that it came with.
  const id = start_id && start_id < revision ? start_id : revision
  const start = removed ? undefined : startRequest(id, { startTime, copy: copy ?? undefined })
  return {
    database: schema,
    table,
    ...pickFields(subscription),
    removed,
    revision,
    ...(since === undefined || !subscription.subscribe ? {} : { subscribeSince: since }),
    ...(start && { start }),
  }
}

/** Items in one request; each request has its own time-out. */
const PAGE_SIZE = 100

export const toPages = <T>(items: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(items.length / PAGE_SIZE) }, (_, index) =>
    items.slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE),
  )
