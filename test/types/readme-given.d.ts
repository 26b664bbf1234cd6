// What the reader of the README has already: a database of theirs, a request, two hosts.

import type { ClusterManager, Host, Published, Source, TableDescription, Transaction, Write } from '../../lib/index.ts'

type Transactional = {
  merge(write: Write, stamp: string): void
  apply(write: Write): Write
  put(key: unknown[], value: unknown): void
  append(list: string, transaction: Transaction): void
}

declare global {
  const database: {
    highestStamp(): string
    tables(): TableDescription[]
    createTable(table: TableDescription): Promise<void>
    transaction<T>(work: (tx: Transactional) => T): Promise<T>
    get<T>(key: unknown[]): T
    remove(key: unknown[]): Promise<void>
    outboxBehind(after: { id: string; stamp: string } | undefined): AsyncIterable<Transaction>
    confirm(
      progress: Published[],
      through: { id: string; stamp: string } | undefined,
      except: readonly string[] | undefined,
    ): Promise<void>
  }
  const requestBody: unknown
  const cluster: ClusterManager
  const source: Source
  const stopping: AbortController
  const hostOne: Host
  const hostTwo: Host
}
