// Declarations that the README's examples use: a database, a request, two hosts.

import type {
  ClusterManager,
  Host,
  KeyedRow,
  MergeOptions,
  PrimaryKey,
  PublishConfirmation,
  RemoteTable,
  RowSelection,
  StoredRow,
  TableDescription,
  TableName,
  Transaction,
  Write,
} from '../../lib/index.ts'

type Transactional = {
  merge(write: Write, timestamp: string, options: MergeOptions): void
  horizonOf(table: TableName): string | undefined
  raiseHorizon(table: TableName, timestamp: string): void
  apply(write: Write): Write
  put(key: unknown[], value: unknown): void
  append(list: string, transaction: Transaction): void
  storedRow(table: TableName, key: PrimaryKey): StoredRow | undefined
  removeRow(table: TableName, key: PrimaryKey): void
}

declare global {
  const database: {
    highestTimestamp(): string
    tables(): TableDescription[]
    createTable(table: TableDescription): Promise<void>
    transaction<T>(work: (tx: Transactional) => T): Promise<T>
    get<T>(key: unknown[]): T
    remove(key: unknown[]): Promise<void>
    storedRows(table: TableName, selection: RowSelection): KeyedRow[]
    horizonOf(table: TableName): string | undefined
    keysInChunks(table: TableName, rows: number): AsyncIterable<PrimaryKey[]>
    outboxBehind(after: { id: string; timestamp: string } | undefined): AsyncIterable<Transaction>
    confirm(confirmation: PublishConfirmation): Promise<void>
  }
  const requestBody: unknown
  const cluster: ClusterManager
  const source: RemoteTable
  const stopping: AbortController
  const host: Host
  const hostOne: Host
  const hostTwo: Host
}
