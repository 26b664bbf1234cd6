// One register: a subscription with its revision, and the form that it has in the revision file.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import type { Timestamp } from '../host/host.ts'
import type { StartRequest } from '../manifest/start-request.ts'
import {
  emptyFields,
  fieldSchemas,
  optionalFields,
  requiredFields,
  type Subscription,
  sameFields,
} from '../manifest/subscription.ts'
import type { TableName } from '../mesh/mesh.ts'

/**
 * `removed`: the subscription was removed at that revision. The revision '' is lower than any other. `publishSince` and
 * `subscribeSince`: since when each direction is on, in ms since 1970: where a side without a position begins to read. `start`: the last
 * request for a copy or a start time; it stays until a direction is switched on again, and each side that subscribes begins it once.
 */
export type Register = Subscription & {
  readonly removed: boolean
  readonly revision: Timestamp
  readonly publishSince?: number | undefined
  readonly subscribeSince?: number | undefined
  readonly start?: StartRequest | undefined
}

/** A row of the revision file: the values of a register in the order of `columns`. */
const columns = [
  'database',
  'table',
  ...requiredFields,
  'removed',
  'revision',
  ...optionalFields,
  'publishSince',
  'subscribeSince',
  'start',
] as const
/** `node`: the name of the local node. `firstNode`: its first name, which stays. `earlierNodes`: all that it had before, oldest first. */
export const fileSchema = Compile(
  Type.Object({
    node: Type.Optional(Type.String()),
    firstNode: Type.Optional(Type.String()),
    earlierNodes: Type.Optional(Type.Array(Type.String())),
    nodes: Type.Record(Type.String(), Type.Array(Type.Array(Type.Unknown()))),
    begun: Type.Optional(Type.Record(Type.String(), Type.Array(Type.Array(Type.String(), { minItems: 2 })))),
    paused: Type.Optional(Type.Record(Type.String(), Type.Array(Type.Tuple([Type.String(), Type.String()])))),
  }),
)
const registerSchema = Compile(
  Type.Object({
    database: Type.String(),
    table: Type.String(),
    ...fieldSchemas,
    removed: Type.Boolean(),
    revision: Type.String(),
    publishSince: Type.Optional(Type.Number()),
    subscribeSince: Type.Optional(Type.Number()),
    start: Type.Optional(
      Type.Object({
        id: Type.String(),
        startTime: Type.Optional(Type.String()),
        copy: Type.Optional(Type.Boolean()),
        replace: Type.Optional(Type.Boolean()),
      }),
    ),
  }),
)

/** JSON writes an unset value as null. */
export const toRow = (register: Register): unknown[] => columns.map((column) => register[column])

export function fromRow(row: readonly unknown[]): Register {
  const register = Object.fromEntries(
    columns.map((column, index) => [column, row[index] ?? undefined]).filter(([, value]) => value !== undefined),
  )
  if (!registerSchema.Check(register)) throw new Error('unexpected content')
  return register
}

/** A direction that stays on keeps its time. */
export function withTimes(register: Register, now: number, before: Register | undefined): Register {
  const since = (isOn: boolean, given: number | undefined, known: number | undefined) =>
    isOn ? (given ?? known ?? now) : undefined
  return {
    ...register,
    publishSince: since(register.publish, register.publishSince, before?.publishSince),
    subscribeSince: since(register.subscribe, register.subscribeSince, before?.subscribeSince),
  }
}

/** The latest request stays with the register, unless a direction was switched on: that is a new subscription. */
export function withStart({ start, ...register }: Register, before: Register | undefined): Register {
  const isNew = (register.subscribe && !before?.subscribe) || (register.publish && !before?.publish)
  const known = isNew ? undefined : before?.start
  const latest = start && known && start.id < known.id ? known : (start ?? known)
  return register.removed || !latest ? register : { ...register, start: latest }
}

export const removedRegister = ({ database, table }: TableName, revision: Timestamp = ''): Register => ({
  database,
  table,
  ...emptyFields,
  removed: true,
  revision,
})

export const sameValue = (a: Omit<Register, 'revision'>, b: Omit<Register, 'revision'>): boolean =>
  a.removed === b.removed && sameFields(a, b)
