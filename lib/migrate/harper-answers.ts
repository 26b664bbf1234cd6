// The answers of HarperDB's operations API, as far as a migration needs them.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { isHost, isNodeName } from '../manifest/names.ts'
import type { Route, TableName } from '../mesh/mesh.ts'
import { printable } from '../util/printable.ts'
import type { TimedTable } from './imported-row.ts'

/** As HarperDB has it. */
export type HarperRecord = Readonly<Record<string, unknown>>
export type HarperSubscription = TableName & { publish: boolean; subscribe: boolean }

/** A node that the local one is connected with, of `cluster_status`. What is unknown of an unreachable node is left out. */
export type HarperConnection = {
  node: string
  status: string
  clusteringPort?: number
  apiPort?: number
  version?: string
  subscriptions: HarperSubscription[]
}

export type HarperStatus = { nodeName: string; isEnabled: boolean; connections: HarperConnection[] }
export type HarperMember = { node: string; routes: Route[] }

/**
 * `primaryKey` is undefined for a table that was created without one. `rows`: as HarperDB counts or estimates them, and `minRows`: the lower
 * bound of an estimate.
 */
export type HarperTable = TableName & { attributes: string[]; rows: number; minRows?: number } & Omit<
    TimedTable,
    'primaryKey'
  > & { primaryKey: string | undefined }

const optional = <T extends Type.TSchema>(type: T) => Type.Optional(Type.Union([type, Type.Null()]))
const PortType = Type.Integer({ minimum: 1, maximum: 65_535 })
const CountType = Type.Number({ minimum: 0 })
const RouteType = Type.Object({ host: Type.String(), port: PortType })
const StatusType = Type.Object({
  node_name: optional(Type.String()),
  is_enabled: optional(Type.Boolean()),
  connections: optional(
    Type.Array(
      Type.Object({
        node_name: Type.String(),
        status: optional(Type.String()),
        ports: optional(Type.Object({ clustering: optional(PortType), operations_api: optional(PortType) })),
        system_info: optional(Type.Object({ hdb_version: optional(Type.String()) })),
        subscriptions: optional(
          Type.Array(
            Type.Object({
              schema: Type.Optional(Type.String()),
              database: Type.Optional(Type.String()),
              table: Type.String(),
              publish: Type.Boolean(),
              subscribe: Type.Boolean(),
            }),
          ),
        ),
      }),
    ),
  ),
})
const NetworkType = Type.Object({
  nodes: Type.Array(Type.Object({ name: Type.String(), routes: optional(Type.Array(RouteType)) })),
})
const AttributeType = Type.Object({
  attribute: Type.String(),
  is_primary_key: optional(Type.Boolean()),
  assigned_updated_time: optional(Type.Boolean()),
  assigned_created_time: optional(Type.Boolean()),
})
const TableType = Type.Object({
  hash_attribute: optional(Type.String()),
  attributes: optional(Type.Array(AttributeType)),
  record_count: optional(CountType),
  estimated_record_range: optional(Type.Tuple([CountType, CountType])),
})

const validators = { status: Compile(StatusType), network: Compile(NetworkType), table: Compile(TableType) }

/** HarperDB's own database. */
const SYSTEM_DATABASE = 'system'

/** Undefined for an answer of another form, as in the functions below. */
export function readStatus(answer: unknown): HarperStatus | undefined {
  if (!validators.status.Check(answer)) return undefined
  const { node_name, is_enabled, connections } = answer as Type.Static<typeof StatusType>
  const names = [node_name ?? '', ...(connections ?? []).map((each) => each.node_name)]
  if (new Set(names).size < names.length || !names.slice(1).every(isNodeName)) return undefined
  return {
    nodeName: node_name ?? '',
    isEnabled: is_enabled ?? false,
    connections: (connections ?? []).map(({ node_name: node, status, ports, system_info, subscriptions }) => ({
      node,
      status: status ?? '',
      ...(typeof ports?.clustering === 'number' && { clusteringPort: ports.clustering }),
      ...(typeof ports?.operations_api === 'number' && { apiPort: ports.operations_api }),
      ...(typeof system_info?.hdb_version === 'string' && { version: printable(system_info.hdb_version) }),
      subscriptions: (subscriptions ?? []).map(({ schema, database, table, publish, subscribe }) => ({
        database: database ?? schema ?? 'data',
        table,
        publish,
        subscribe,
      })),
    })),
  }
}

export function readNetwork(answer: unknown): HarperMember[] | undefined {
  if (!validators.network.Check(answer)) return undefined
  const { nodes } = answer as Type.Static<typeof NetworkType>
  if (!nodes.every(({ name }) => isNodeName(name))) return undefined
  return nodes.map(({ name: node, routes }) => ({ node, routes: (routes ?? []).filter(({ host }) => isHost(host)) }))
}

export function readDescription(answer: unknown): HarperTable[] | undefined {
  if (typeof answer !== 'object' || answer === null) return undefined
  const found: HarperTable[] = []
  for (const [database, tables] of Object.entries(answer)) {
    if (database === SYSTEM_DATABASE || typeof tables !== 'object' || tables === null) continue
    for (const [table, described] of Object.entries(tables))
      if (validators.table.Check(described)) found.push(readTable({ database, table }, described as never))
  }
  return found
}

function readTable(name: TableName, described: Type.Static<typeof TableType>): HarperTable {
  const attributes = described.attributes ?? []
  const names = attributes.map(({ attribute }) => attribute)
  const named = (usual: string) => (names.includes(usual) ? usual : undefined)
  const minRows = described.estimated_record_range?.[0]
  const primaryKey = described.hash_attribute ?? attributes.find((each) => each.is_primary_key)?.attribute
  return {
    ...name,
    primaryKey,
    attributes: names,
    rows: described.record_count ?? 0,
    ...(minRows !== undefined && { minRows }),
    updatedTime: attributes.find((each) => each.assigned_updated_time)?.attribute ?? named('__updatedtime__'),
    createdTime: attributes.find((each) => each.assigned_created_time)?.attribute ?? named('__createdtime__'),
  }
}

/** Rows of a table by its description, at least. */
export function readCount(answer: unknown): number | undefined {
  if (!validators.table.Check(answer)) return undefined
  const { record_count, estimated_record_range } = answer as Type.Static<typeof TableType>
  return record_count === null || record_count === undefined ? undefined : (estimated_record_range?.[0] ?? record_count)
}

/** What was asked for: `page`, records in order, or `keys`, an entry for each record that exists, and null or none for each other one. */
export type RecordsAsked = { kind: 'page' | 'keys'; limit: number }

/** Undefined for more records than were asked for, and for a null in a page: it would be the end of the table. */
export function readRecords(answer: unknown, { kind, limit }: RecordsAsked): HarperRecord[] | undefined {
  // A single record of a list has the form of a record in MessagePack.
  const list: unknown[] = Array.isArray(answer) ? answer : [answer]
  const records = kind === 'page' ? list : list.filter((each) => each !== null && each !== undefined)
  return list.length <= limit && records.every(isRecord) ? records : undefined
}

const isRecord = (value: unknown): value is HarperRecord =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value)
