// A client of HarperDB's operations API over HTTP. It reads only: it has no operation that changes anything.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { PrimaryKey, TableName } from '../host/host.ts'
import { packr } from '../replication/packr.ts'
import { Backoff } from '../util/backoff.ts'
import { delay, systemTimers } from '../util/timers.ts'
import {
  type HarperMember,
  type HarperStatus,
  type HarperTable,
  readDescription,
  readNetwork,
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

/** As HarperDB has it. */
type HarperRecord = Readonly<Record<string, unknown>>
type NamedTable = TableName & { primaryKey: string }

/** Dates, binary values and big integers stay what they are in MessagePack, and not in JSON. */
const ACCEPTED = 'application/x-msgpack, application/json;q=0.1'
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

  /** All tables but those of HarperDB itself. */
  async tables(signal?: AbortSignal): Promise<HarperTable[]> {
    return this.#read({ operation: 'describe_all' }, readDescription, signal)
  }

  /** At most `limit` records, in the order of their keys, after this key. Records that the user may not read are missing. */
  async recordsAfter(table: NamedTable, after: unknown, limit: number, signal?: AbortSignal): Promise<HarperRecord[]> {
    const { database, table: name, primaryKey } = table
    const common = { database, table: name, get_attributes: ['*'], limit }
    const body =
      after === undefined
        ? { operation: 'search_by_value', search_attribute: primaryKey, search_value: '*', ...common }
        : {
            operation: 'search_by_conditions',
            operator: 'and',
            conditions: [{ search_attribute: primaryKey, search_type: 'greater_than', search_value: after }],
            ...common,
          }
    return this.#read(body, readRecords, signal)
  }

  /** Those of these records that exist. */
  async recordsOf(table: NamedTable, keys: readonly PrimaryKey[], signal?: AbortSignal): Promise<HarperRecord[]> {
    const { database, table: name } = table
    const body = { operation: 'search_by_hash', database, table: name, hash_values: keys, get_attributes: ['*'] }
    return this.#read(body, readRecords, signal)
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
    const data = Buffer.from(await response.arrayBuffer())
    if (isTemporary(response.status)) throw new Error(`status ${response.status}`)
    const reject = (reason: string) => clusterError('harperdb_rejected', body.operation, this.url, reason)
    if (!response.ok) throw reject(rejectionOf(response, data))
    try {
      return decode(response, data)
    } catch (error) {
      throw reject(`the answer cannot be read: ${reasonOf(error)}`)
    }
  }
}

/** `fetch` says only that it failed. */
const failureOf = (error: unknown): string => reasonOf((error as { cause?: unknown }).cause ?? error)

/** The text of HarperDB, if it answered in its form. */
function rejectionOf(response: Response, data: Buffer): string {
  try {
    const { error } = decode(response, data) as { error?: unknown }
    if (typeof error === 'string') return `status ${response.status}, ${error}`
  } catch {
    // Another server may answer at this address.
  }
  return `status ${response.status}`
}

/** HarperDB answers a list of records as MessagePack values one after the other: several values are a list. */
function decode({ headers }: Response, data: Buffer): unknown {
  if (!/msgpack/.test(headers.get('content-type') ?? '')) return JSON.parse(data.toString())
  if (data.byteLength === 0) return []
  const values = packr.unpackMultiple(data) as unknown[]
  return values.length === 1 ? values[0] : values
}

/** A lone record of a list has the form of a record. An absent one is null. */
function readRecords(answer: unknown): HarperRecord[] | undefined {
  const list = Array.isArray(answer) ? answer : [answer]
  const records = list.filter((each) => each !== null && each !== undefined)
  return records.every((each) => typeof each === 'object' && !Array.isArray(each))
    ? (records as HarperRecord[])
    : undefined
}
