// Asks a remote node for what it has of a table: sums of rows in buckets, versions of rows, positions.

import { ClusterError } from '../../errors.ts'
import type { PrimaryKey, RemoteTable } from '../../host/host.ts'
import { Backoff } from '../../util/backoff.ts'
import { pause } from '../../util/pause.ts'
import type { BucketSet, BucketSums } from './buckets.ts'
import { askPatiently, decoded, invalid, type RowTransport } from './peer-rows.ts'
import type { HashRules } from './row-hash.ts'
import { isSumsAnswer, isTableStatus, isVersionsAnswer, type RowsRequest, type TableStatus } from './row-messages.ts'
import { decodeKey, encodeKey, encodeKeys, isTimestamp } from './row-page.ts'
import { decodeVersions, type RowVersion } from './row-versions.ts'

type RequestOptions = { signal: AbortSignal }
type Rules = Pick<HashRules, 'cut' | 'values'>
type Fields = Omit<RowsRequest, 'database' | 'table'>

/** Keys of one request. */
export const MAX_KEYS = 500
/** Of one request to read rows from this node: it has to be done within the time limit of a request. */
const MAX_REPAIR_KEYS = 100
/** Of one request: a comparison survives a restart of the other node's server, or of a link. */
const MAX_ATTEMPTS = 2
/** ms. */
const RETRY_BACKOFF = { first: 1_000, max: 1_000 }

/** All methods repeat a request once that did not reach the node. They reject as Peers.request, peer_rejected for an invalid answer, and with the reason of the signal. */
export class PeerHashes {
  readonly #transport: RowTransport

  constructor(transport: RowTransport) {
    this.#transport = transport
  }

  async status(source: RemoteTable, options: RequestOptions): Promise<TableStatus> {
    const answer = await this.#ask(source, 'table_status', {}, options)
    if (!isTableStatus(answer)) throw invalid(source, 'is unreadable')
    const { horizon } = answer
    if (horizon && !isTimestamp(horizon)) throw invalid(source, 'contains an invalid timestamp')
    return answer
  }

  /** Adds all rows of the source to the sums. `progress`: their number so far. Resolves with their number. */
  async addSums(
    source: RemoteTable,
    sums: BucketSums,
    { rules, progress, ...options }: RequestOptions & { rules: Rules; progress(rows: number): void },
  ): Promise<number> {
    let total = 0
    await this.#askAll(source, 'hash_rows', { buckets: sums.buckets, ...fieldsOf(rules) }, options, (answer) => {
      if (!isSumsAnswer(answer)) throw invalid(source, 'is unreadable')
      checkValues(source, rules, answer)
      decoded(source, () => sums.addEncoded(answer.sums))
      total += answer.rows
      progress(total)
      return answer
    })
    return total
  }

  /** Calls `each` for every row of the source in the selected buckets. */
  async find(
    source: RemoteTable,
    { buckets, selected, rules }: { buckets: number; selected: BucketSet; rules: Rules },
    each: (version: RowVersion) => void,
    options: RequestOptions,
  ): Promise<void> {
    const fields = { buckets, selected: selected.bytes, ...fieldsOf(rules) }
    await this.#askAll(source, 'find_rows', fields, options, (answer) => {
      if (!isVersionsAnswer(answer)) throw invalid(source, 'is unreadable')
      checkValues(source, rules, answer)
      for (const version of decoded(source, () => decodeVersions(answer.versions))) each(version)
      return answer
    })
  }

  /**
   * The rows of the source in the selected buckets, after this key: some of the next ones in its order, perhaps none, and the key to
   * continue after; without `next` there are no more.
   */
  async findAfter(
    source: RemoteTable,
    { buckets, selected, cut, after }: { buckets: number; selected: BucketSet; cut: string; after?: PrimaryKey },
    options: RequestOptions,
  ): Promise<{ versions: RowVersion[]; next?: PrimaryKey }> {
    const fields = { buckets, selected: selected.bytes, cut, ...(after !== undefined && { after: encodeKey(after) }) }
    const answer = await this.#ask(source, 'find_rows', fields, options)
    if (!isVersionsAnswer(answer)) throw invalid(source, 'is unreadable')
    const { versions, next, rows } = answer
    if (next !== undefined && rows === 0) throw invalid(source, 'does not advance')
    return decoded(source, () => ({
      versions: decodeVersions(versions),
      ...(next !== undefined && { next: decodeKey(next) }),
    }))
  }

  /** Those of the rows with these keys that the source has; at most `MAX_KEYS` keys. */
  async versions(
    source: RemoteTable,
    keys: readonly PrimaryKey[],
    { rules, ...options }: RequestOptions & { rules: Rules },
  ): Promise<RowVersion[]> {
    const fields = { keys: encodeKeys(keys), ...fieldsOf(rules) }
    const answer = await this.#ask(source, 'find_rows', fields, options)
    if (!isVersionsAnswer(answer)) throw invalid(source, 'is unreadable')
    checkValues(source, rules, answer)
    return decoded(source, () => decodeVersions(answer.versions))
  }

  /** The remote node reads these rows from the local one. */
  async repair(source: RemoteTable, keys: readonly PrimaryKey[], options: RequestOptions): Promise<void> {
    for (let at = 0; at < keys.length; at += MAX_REPAIR_KEYS)
      await this.#ask(source, 'repair_rows', { keys: encodeKeys(keys.slice(at, at + MAX_REPAIR_KEYS)) }, options)
  }

  /** Repeats the request from the key on that the answer names. */
  async #askAll(
    source: RemoteTable,
    operation: string,
    fields: Fields,
    options: RequestOptions,
    take: (answer: unknown) => { next?: Uint8Array; rows: number },
  ): Promise<void> {
    for (let after: Uint8Array | undefined; ; ) {
      const answer = await this.#ask(source, operation, { ...fields, ...(after && { after }) }, options)
      const { next, rows } = take(answer)
      if (next === undefined) return
      if (rows === 0) throw invalid(source, 'does not advance')
      after = encodeKey(decoded(source, () => decodeKey(next)))
    }
  }

  /** No request has an effect that a second one would repeat. */
  async #ask(source: RemoteTable, operation: string, fields: Fields, options: RequestOptions): Promise<unknown> {
    const backoff = new Backoff(RETRY_BACKOFF)
    for (let attempt = 1; ; attempt++) {
      try {
        return await askPatiently(this.#transport, source, operation, fields, options)
      } catch (error) {
        const isRetryable = error instanceof ClusterError && error.retryable && error.code !== 'peer_rejected'
        if (!isRetryable || attempt === MAX_ATTEMPTS || options.signal.aborted) throw error
        await pause(this.#transport.timers, backoff.next(), options.signal)
      }
    }
  }
}

const fieldsOf = ({ cut, values }: Rules): Fields => ({ cut, ...(values && { values }) })

/** An older node ignores the field. */
function checkValues(source: RemoteTable, { values = false }: Rules, answer: { values?: boolean }): void {
  if (values && !answer.values) throw invalid(source, 'has no values: the node cannot compare them')
}
