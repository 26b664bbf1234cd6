// Messages as HarperDB 4.3 and later writes them: msgpackr with its default options, which packs objects as records.

import { Packr } from 'msgpackr'

const packr = new Packr()

/** What HarperDB packs: messages of streams, requests and answers. */
export const harperPack = (value: unknown): Uint8Array => Uint8Array.from(packr.pack(value))
/** As HarperDB reads them: maps and records are both objects there. */
export const harperUnpack = (data: Uint8Array): unknown => new Packr({ useRecords: false }).unpack(data)

/** One row that a transaction writes. A patch has the attributes to set, without the key. */
export type HarperWrite = {
  operation: 'upsert' | 'patch' | 'delete' | 'invalidate' | 'publish'
  table: string
  id: unknown
  record?: object | undefined
}

export type HarperOrigin = { node: string; timestamp: number; user?: string | null }

const originOf = ({ node, timestamp, user = 'admin' }: HarperOrigin) => ({ user, timestamp, node_name: node })

/**
 * The body of a transaction. Rows of the first table with the first operation are in its lists; from the first other one on, each row is
 * one element of a chain, which has no `schema`.
 */
export function harperTransaction(database: string, origin: HarperOrigin, ...writes: HarperWrite[]): object {
  const [{ operation, table }] = writes as [HarperWrite]
  const isFirst = (write: HarperWrite) => write.operation === operation && write.table === table
  const end = writes.findIndex((write) => !isFirst(write))
  const run = end < 0 ? writes : writes.slice(0, end)
  const first: Record<string, unknown> = {
    operation,
    schema: database,
    table,
    __origin: originOf(origin),
    hash_values: run.map(({ id }) => id),
    records: run.map(({ record }) => record),
  }
  let last = first
  for (const { operation, table, id, record } of writes.slice(run.length)) {
    const link = { operation, table, id, record }
    last.next = link
    last = link
  }
  return first
}

/** New attributes of a table. */
export const harperAttributes = (database: string, table: string, origin: HarperOrigin, names: readonly string[]) => ({
  operation: 'define_schema',
  schema: database,
  table,
  attributes: names.map((name) => ({ name, attribute: name, indexed: true })),
  __origin: originOf(origin),
})
