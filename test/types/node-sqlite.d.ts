// The part of `node:sqlite` that the example on SQL uses. The installed types are those of Node 20, which does not have it.

declare module 'node:sqlite' {
  type SqlValue = string | number | bigint | null | Uint8Array
  export class StatementSync {
    get(...values: SqlValue[]): Record<string, SqlValue> | undefined
    all(...values: SqlValue[]): Record<string, SqlValue>[]
    run(...values: SqlValue[]): { changes: number | bigint }
    setReadBigInts(enabled: boolean): void
  }
  export class DatabaseSync {
    constructor(path: string)
    readonly isTransaction: boolean
    exec(sql: string): void
    prepare(sql: string): StatementSync
    close(): void
  }
}
