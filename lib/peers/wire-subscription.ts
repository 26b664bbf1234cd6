// A subscription in messages between nodes. A message describes it as its receiver holds it: mirrored.

import type { TableDescription, Timestamp } from '../host/host.ts'
import { mirrorFields, pickFields, type Subscription } from '../manifest/subscription.ts'
import type { RegisterEntry, WireSubscription } from './protocol.ts'
import type { Register } from './registers.ts'

/** A subscription as requested; `startTime` in ISO 8601, UTC. */
export type SubscriptionRequest = Subscription & { readonly startTime?: string }

/** The new value of a register, valid from its revision on. */
export type RegisterChange = Register & { readonly startTime?: string | undefined }

/** `described` lets the receiver create a missing table. */
export const toWire = (
  { database, table, startTime, ...subscription }: SubscriptionRequest,
  described?: TableDescription,
): WireSubscription => ({
  schema: database,
  table,
  ...mirrorFields(subscription),
  ...(startTime ? { start_time: startTime } : {}),
  ...(described ? { hash_attribute: described.primaryKey, attributes: described.attributes } : {}),
})

export const toEntry = (register: Register, described: TableDescription | undefined): RegisterEntry => ({
  ...toWire(register, described),
  removed: register.removed,
  revision: register.revision,
  ...(register.publishSince === undefined ? {} : { since: register.publishSince }),
})

/** An invalid start time is ignored. */
export const fromWire = (
  {
    schema,
    table,
    start_time,
    removed = false,
    since,
    ...subscription
  }: WireSubscription & Partial<Pick<RegisterEntry, 'removed' | 'since'>>,
  revision: Timestamp,
): RegisterChange => ({
  database: schema,
  table,
  ...pickFields(subscription),
  removed,
  revision,
  ...(since === undefined || !subscription.subscribe ? {} : { subscribeSince: since }),
  ...(start_time && !Number.isNaN(Date.parse(start_time)) ? { startTime: start_time } : {}),
})

/** Items in one request; each request has its own time-out. */
const PAGE_SIZE = 100

export const toPages = <T>(items: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(items.length / PAGE_SIZE) }, (_, index) =>
    items.slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE),
  )
