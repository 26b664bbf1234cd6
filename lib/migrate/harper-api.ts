// A client of HarperDB's operations API over HTTP. It reads only: it has no operation that changes anything.

import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { PrimaryKey, TableName } from '../host/host.ts'
import { packr } from '../replication/packr.ts'
import { Backoff } from '../util/backoff.ts'
import { checkDecodeLimits } from '../util/decode-limits.ts'
import { printable } from '../util/printable.ts'
import { delay, systemTimers } from '../util/timers.ts'
import { askForFewer, UnreadableAnswer } from './fewer-rows.ts'
import {
  type HarperMember,
  type HarperRecord,
  type HarperStatus,
  type HarperTable,
  type RecordsAsked,
  readCount,
  readDescription,
  readNetwork,
  readRecords,
  readStatus,
} from './harper-answers.ts'

/** A super user of HarperDB. */
export type HarperLogin = {
  /** Of the operations API, such as `http://127.0.0.1:9925`. */
  url: string
  username: string
  password: string
  /** ms for one answer. Default 60,000. */
  timeout?: number
  /** ms for which a request is repeated while HarperDB does not answer. Default 10,000. */
  patience?: number
}

type NamedTable = TableName & { primaryKey: string }
type Body = { operation: string; [key: string]: unknown }
/** `of`: what the answer is about, in an error. `timeout`: ms. */
type RequestOptions = { of?: string; timeout?: number; signal?: AbortSignal | undefined }
/** `limit`: as many as were asked for at last. */
type RecordPage = { records: HarperRecord[]; limit: number }

/** Dates, binary values and big integers stay what they are in MessagePack, and not in JSON. */
const ACCEPTED = 'application/x-msgpack, application/json;q=0.1'
/** A page has about 2 MB, but a row may have more. */
const MAX_ANSWER_BYTES = 512 * 1024 * 1024
/** Characters of a text of HarperDB in an error. */
const MAX_TEXT = 1_000
/** ms. HarperDB reads the whole table. `fetch` waits no longer for an answer to begin. */
const COUNT_TIMEOUT = 300_000
const DEFAULTS = { timeout: 60_000, patience: 10_000 }
/** HTTP status of a request that may succeed later. */
const isTemporary = (status: number) => status === 502 || status === 503 || status === 504

export class HarperApi {
  readonly url: string
  readonly #login: HarperLogin

  constructor(login: HarperLogin) {
    this.#login = login
    this.url = login.url
  }

  /** Reject harperdb_unreachable, harperdb_rejected and aborted, as all methods do. */
  async status(signal?: AbortSignal): Promise<HarperStatus> {
    return this.#read({ operation: 'cluster_status' }, readStatus, { signal })
  }

  async network(signal?: AbortSignal): Promise<HarperMember[]> {
    return this.#read({ operation: 'cluster_network' }, readNetwork, { signal })
  }

  /** All tables but those of HarperDB itself. Rows of large tables are estimated. */
  async tables(signal?: AbortSignal): Promise<HarperTable[]> {
    return this.#read({ operation: 'describe_all' }, readDescription, { signal })
  }

  /** Rows of the table, counted: it takes a scan of it, and may wait for that longer than other methods. */
  async countRows({ database, table }: TableName, signal?: AbortSignal): Promise<number> {
    const timeout = Math.max(this.#login.timeout ?? 0, COUNT_TIMEOUT)
    const body = { operation: 'describe_table', database, table, exact_count: true }
    return this.#read(body, readCount, { timeout, signal })
  }

  /**
   * At most `limit` records, in the order of their keys, after this key. When so many cannot be read, fewer are asked for. Records that the
   * user may not read are missing.
   */
  async recordsAfter(table: NamedTable, after: unknown, limit: number, signal?: AbortSignal): Promise<RecordPage> {
    const row = `${after === undefined ? 'the first row' : `the row after ${textOf(after)}`} of ${nameOf(table)}`
    const { answer, rows } = await askForFewer(limit, (rows) => this.#page(table, after, rows, { of: row, signal }))
    return { records: answer, limit: rows }
  }

  #page(table: NamedTable, after: unknown, limit: number, options: RequestOptions): Promise<HarperRecord[]> {
    const asked = { kind: 'page', limit } as const
    const get_attributes = ['*']
    if (after !== undefined) {
      const condition = { search_type: 'greater_than', search_value: after } as const
      return this.#search(table, { condition, get_attributes, asked }, options)
    }
    const { database, table: name, primaryKey } = table
    const value = { search_attribute: primaryKey, search_value: '*', get_attributes, limit }
    return this.#records({ operation: 'search_by_value', database, table: name, ...value }, asked, options)
  }

  /** Those of these records that exist, in parts that can be read. */
  async *recordsOf(
    table: NamedTable,
    keys: readonly PrimaryKey[],
    signal?: AbortSignal,
  ): AsyncGenerator<HarperRecord[]> {
    for (let at = 0, limit = keys.length; at < keys.length; at += limit) {
      const of = `the row ${textOf(keys[at])} of ${nameOf(table)}`
      const { answer, rows } = await askForFewer(Math.min(limit, keys.length - at), (rows) =>
        this.#byKeys(table, { keys: keys.slice(at, at + rows), get_attributes: ['*'] }, { of, signal }),
      )
      yield answer
      limit = rows
    }
  }

  /** The keys of those of these records that exist. */
  async keysOf(table: NamedTable, keys: readonly PrimaryKey[], signal?: AbortSignal): Promise<unknown[]> {
    const { primaryKey } = table
    const found = await this.#byKeys(table, { keys, get_attributes: [primaryKey] }, { signal })
    return found.map((each) => each[primaryKey])
  }

  #byKeys(
    { database, table }: NamedTable,
    { keys, get_attributes }: { keys: readonly PrimaryKey[]; get_attributes: string[] },
    options: RequestOptions,
  ): Promise<HarperRecord[]> {
    const body = { operation: 'search_by_hash', database, table, hash_values: keys, get_attributes }
    return this.#records(body, { kind: 'keys', limit: keys.length }, options)
  }

  /** Whether a record with this key exists, by another search than `keysOf`. */
  async hasRecord(table: NamedTable, key: PrimaryKey, signal?: AbortSignal): Promise<boolean> {
    const condition = { search_type: 'equals', search_value: key } as const
    const asked = { kind: 'page', limit: 1 } as const
    const search = { condition, get_attributes: [table.primaryKey], asked }
    return (await this.#search(table, search, { signal })).length > 0
  }

  /** By one condition on the primary key. */
  #search(
    { database, table, primaryKey }: NamedTable,
    {
      condition,
      get_attributes,
      asked,
    }: {
      condition: { search_type: 'equals' | 'greater_than'; search_value: unknown }
      get_attributes: string[]
      asked: RecordsAsked
    },
    options: RequestOptions,
  ): Promise<HarperRecord[]> {
    const conditions = [{ search_attribute: primaryKey, ...condition }]
    const body = { operator: 'and', conditions, database, table, get_attributes, limit: asked.limit }
    return this.#records({ operation: 'search_by_conditions', ...body }, asked, options)
  }

  #records(body: Body, asked: RecordsAsked, options: RequestOptions): Promise<HarperRecord[]> {
    return this.#read(body, (answer) => readRecords(answer, asked), options)
  }

  async #read<T>(body: Body, read: (answer: unknown) => T | undefined, options: RequestOptions): Promise<T> {
    const answer = read(await this.#request(body, options))
    if (answer !== undefined) return answer
    throw clusterError(
      'harperdb_rejected',
      body.operation,
      this.url,
      'the answer has another form than that of HarperDB 4',
    )
  }

  /** Repeats the request while there is no answer. */
  async #request(body: Body, options: RequestOptions): Promise<unknown> {
    const { signal } = options
    const { patience = DEFAULTS.patience } = this.#login
    const end = systemTimers.elapsed() + patience
    const backoff = new Backoff({ first: 100, max: 2_000 })
    for (;;) {
      try {
        return await this.#attempt(body, options)
      } catch (error) {
        if (signal?.aborted) throw clusterError('aborted', body.operation)
        if (error instanceof ClusterError && error.code === 'harperdb_rejected') throw error
        const wait = backoff.next()
        if (systemTimers.elapsed() + wait >= end) throw clusterError('harperdb_unreachable', this.url, failureOf(error))
        await delay(wait, undefined, { signal }).catch(() => {})
      }
    }
  }

  async #attempt(body: Body, { of, signal, ...more }: RequestOptions): Promise<unknown> {
    const { username, password, timeout = DEFAULTS.timeout } = { ...this.#login, ...more }
    const expired = AbortSignal.timeout(timeout)
    const response = await fetch(this.url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: ACCEPTED,
        authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
      },
      body: JSON.stringify(body, (_, value) => (typeof value === 'bigint' ? Number(value) : value)),
      signal: signal ? AbortSignal.any([signal, expired]) : expired,
      redirect: 'error',
    })
    const data = await bodyOf(response)
    if (isTemporary(response.status)) throw new Error(`status ${response.status}`)
    if (data && !response.ok)
      throw clusterError('harperdb_rejected', body.operation, this.url, rejectionOf(response, data))
    try {
      if (!data) throw new Error(`it has more than ${MAX_ANSWER_BYTES} bytes`)
      return decode(response, data)
    } catch (error) {
      const reason = `the answer${of ? ` with ${of}` : ''} cannot be read: ${reasonOf(error)}`
      throw clusterErrorFrom(new UnreadableAnswer(reason), 'harperdb_rejected', body.operation, this.url, reason)
    }
  }
}

const nameOf = ({ database, table }: TableName) => `${database}.${table}`
/** Of a key, which may be a list. */
const textOf = (key: unknown): string =>
  printable((typeof key === 'bigint' ? `${key}` : `${JSON.stringify(key)}`).slice(0, MAX_TEXT))

/** Undefined for one that is too long. */
async function bodyOf({ body }: Response): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength
    if (bytes > MAX_ANSWER_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** `fetch` says only that it failed. */
const failureOf = (error: unknown): string => reasonOf((error as { cause?: unknown }).cause ?? error)

/** The text of HarperDB, if it answered in its form. */
function rejectionOf(response: Response, data: Buffer): string {
  try {
    const { error } = decode(response, data) as { error?: unknown }
    if (typeof error === 'string') return `status ${response.status}, ${printable(error.slice(0, MAX_TEXT))}`
  } catch {
    // Another server may answer at this address.
  }
  return `status ${response.status}`
}

/** HarperDB answers a list of records as MessagePack values one after the other: several values are a list. */
function decode({ headers }: Response, data: Buffer): unknown {
  if (!/msgpack/.test(headers.get('content-type') ?? '')) return JSON.parse(data.toString())
  if (data.byteLength === 0) return []
  const fault = checkDecodeLimits(data)
  if (fault) throw new Error(`it ${fault}`)
  const values = packr.unpackMultiple(data) as unknown[]
  return values.length === 1 ? values[0] : values
}
