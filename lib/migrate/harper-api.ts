// A client of HarperDB's operations API over HTTP. It reads only: it has no operation that changes anything.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { PrimaryKey, TableName } from '../host/host.ts'
import { packr } from '../replication/packr.ts'
import { Backoff } from '../util/backoff.ts'
import { checkDecodeLimits } from '../util/decode-limits.ts'
import { printable } from '../util/printable.ts'
import { delay, systemTimers } from '../util/timers.ts'
import {
  type HarperMember,
  type HarperRecord,
  type HarperStatus,
  type HarperTable,
  type RecordsAsked,
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

/** Dates, binary values and big integers stay what they are in MessagePack, and not in JSON. */
const ACCEPTED = 'application/x-msgpack, application/json;q=0.1'
/** A page has about 2 MB, but the first one of long rows has more. */
const MAX_ANSWER_BYTES = 512 * 1024 * 1024
/** Characters of a text of HarperDB in an error. */
const MAX_TEXT = 1_000
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
    return this.#read({ operation: 'cluster_status' }, readStatus, signal)
  }

  async network(signal?: AbortSignal): Promise<HarperMember[]> {
    return this.#read({ operation: 'cluster_network' }, readNetwork, signal)
  }

  /** All tables but those of HarperDB itself. `isExact`: rows are counted, and not estimated, which takes a scan of each table. */
  async tables(signal?: AbortSignal, isExact = false): Promise<HarperTable[]> {
    return this.#read({ operation: 'describe_all', ...(isExact && { exact_count: true }) }, readDescription, signal)
  }

  /** At most `limit` records, in the order of their keys, after this key. Records that the user may not read are missing. */
  async recordsAfter(table: NamedTable, after: unknown, limit: number, signal?: AbortSignal): Promise<HarperRecord[]> {
    const { database, table: name, primaryKey } = table
    const asked = { kind: 'page', limit } as const
    if (after !== undefined)
      return this.#search(table, { search_type: 'greater_than', search_value: after }, asked, signal)
    const value = { search_attribute: primaryKey, search_value: '*', get_attributes: ['*'], limit }
    return this.#records({ operation: 'search_by_value', database, table: name, ...value }, asked, signal)
  }

  /** Those of these records that exist. */
  async recordsOf(table: NamedTable, keys: readonly PrimaryKey[], signal?: AbortSignal): Promise<HarperRecord[]> {
    const { database, table: name } = table
    const body = { operation: 'search_by_hash', database, table: name, hash_values: keys, get_attributes: ['*'] }
    return this.#records(body, { kind: 'keys', limit: keys.length }, signal)
  }

  /** Whether a record with this key exists, by another search than `recordsOf`. */
  async hasRecord(table: NamedTable, key: PrimaryKey, signal?: AbortSignal): Promise<boolean> {
    const condition = { search_type: 'equals' as const, search_value: key }
    return (await this.#search(table, condition, { kind: 'page', limit: 1 }, signal)).length > 0
  }

  /** By one condition on the primary key. */
  #search(
    { database, table, primaryKey }: NamedTable,
    condition: { search_type: 'equals' | 'greater_than'; search_value: unknown },
    asked: RecordsAsked,
    signal: AbortSignal | undefined,
  ): Promise<HarperRecord[]> {
    const conditions = [{ search_attribute: primaryKey, ...condition }]
    const body = { operator: 'and', conditions, database, table, get_attributes: ['*'], limit: asked.limit }
    return this.#records({ operation: 'search_by_conditions', ...body }, asked, signal)
  }

  #records(
    body: { operation: string; [key: string]: unknown },
    asked: RecordsAsked,
    signal: AbortSignal | undefined,
  ): Promise<HarperRecord[]> {
    return this.#read(body, (answer) => readRecords(answer, asked), signal)
  }

  async #read<T>(
    body: { operation: string },
    read: (answer: unknown) => T | undefined,
    signal?: AbortSignal,
  ): Promise<T> {
    const answer = read(await this.#request(body, signal))
    if (answer !== undefined) return answer
    throw clusterError(
      'harperdb_rejected',
      body.operation,
      this.url,
      'the answer has another form than that of HarperDB 4',
    )
  }

  /** Repeats the request while there is no answer. */
  async #request(body: { operation: string }, signal?: AbortSignal): Promise<unknown> {
    const { patience = DEFAULTS.patience } = this.#login
    const end = systemTimers.elapsed() + patience
    const backoff = new Backoff({ first: 100, max: 2_000 })
    for (;;) {
      try {
        return await this.#attempt(body, signal)
      } catch (error) {
        if (signal?.aborted) throw clusterError('aborted', body.operation)
        if (error instanceof ClusterError && error.code === 'harperdb_rejected') throw error
        const wait = backoff.next()
        if (systemTimers.elapsed() + wait >= end) throw clusterError('harperdb_unreachable', this.url, failureOf(error))
        await delay(wait, undefined, { signal }).catch(() => {})
      }
    }
  }

  async #attempt(body: { operation: string }, signal?: AbortSignal): Promise<unknown> {
    const { username, password, timeout = DEFAULTS.timeout } = this.#login
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
    const reject = (reason: string) => clusterError('harperdb_rejected', body.operation, this.url, reason)
    if (!data) throw reject(`the answer has more than ${MAX_ANSWER_BYTES} bytes`)
    if (!response.ok) throw reject(rejectionOf(response, data))
    try {
      return decode(response, data)
    } catch (error) {
      throw reject(`the answer cannot be read: ${reasonOf(error)}`)
    }
  }
}

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
