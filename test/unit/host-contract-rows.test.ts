// The cases of the host contract about reading rows, horizons and rows without timestamps catch a host that breaks them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ApplyOutcome, ApplyResult, KeyedRow, RowSelection, TableName } from '../../lib/index.ts'
import { checkHost, MemoryHost } from '../../lib/testing.ts'
import { assertCaught, type Mistake, memorySubject, onApply } from '../support/contract-subject.ts'

type Read = (table: TableName, selection: RowSelection) => Promise<KeyedRow[]>

/** Changes how rows are read. */
function onRead(host: MemoryHost, work: (read: Read, ...args: Parameters<Read>) => Promise<KeyedRow[]>): void {
  const read = host.readRows.bind(host)
  host.readRows = (table, selection) => work(read, table, selection)
}

/** Changes each row that is read. */
const onRow = (host: MemoryHost, change: (row: KeyedRow) => KeyedRow) =>
  onRead(host, async (read, ...args) => (await read(...args)).map(change))

const resultOf = async (outcome: Promise<ApplyOutcome>) => (await outcome) as Required<ApplyResult>

/** All rows of a table, as the database holds them now. */
const allRows = (read: Read, table: TableName) => read(table, { limit: 1_000_000 })

const reading: Mistake[] = [
  {
    host: 'leaves out tombstones',
    case: /^readRows (returns the timestamps|with keys)/,
    make: (host) => onRead(host, async (read, ...args) => (await read(...args)).filter(({ row }) => row.record)),
  },
  {
    host: 'returns rows of all tables that begin with the name',
    case: /^readRows returns every row of the table once/,
    make: (host) =>
      onRead(host, async (read, table, selection) => [
        ...(await read(table, selection)),
        ...(selection.keys || table.table !== 'dog' ? [] : await read({ ...table, table: 'dogs' }, selection)),
      ]),
  },
  {
    host: 'ignores `after`',
    case: /^readRows returns every row of the table once/,
    make: (host) =>
      onRead(host, (read, table, selection) => read(table, selection.keys ? selection : { limit: selection.limit })),
  },
  {
    host: 'ignores `limit`',
    case: /^readRows returns every row of the table once/,
    make: (host) =>
      onRead(host, (read, table, selection) =>
        read(table, selection.keys ? selection : { ...selection, limit: 1_000 }),
      ),
  },
  {
    host: 'returns the row at `after` again',
    case: /^readRows returns every row of the table once/,
    make: (host) =>
      onRead(host, async (read, table, selection) => {
        const page = await read(table, selection)
        if (selection.keys || selection.after === undefined || page.length === 0) return page
        return [...(await read(table, { keys: [selection.after] })), ...page].slice(0, selection.limit)
      }),
  },
  {
    host: 'orders rows by the time of their last change',
    case: /^readRows returns every row of the table once/,
    make: (host) => {
      const newest = ({ row }: KeyedRow) => [row.timestamp, ...Object.values(row.updated ?? {})].sort().at(-1)!
      onRead(host, async (read, table, selection) => {
        if (selection.keys) return read(table, selection)
        const rows = (await allRows(read, table)).sort((a, b) => (newest(a) < newest(b) ? -1 : 1))
        const start = rows.findIndex(({ key }) => key === selection.after) + 1
        return rows.slice(start, start + selection.limit)
      })
    },
  },
  {
    host: 'counts rows instead of continuing after a key',
    case: /^readRows continues after a row that is gone/,
    make: (host) => {
      let positions = new Map<unknown, number>()
      onRead(host, async (read, table, selection) => {
        if (selection.keys) return read(table, selection)
        if (selection.after === undefined) positions = new Map()
        const start = positions.get(selection.after) ?? 0
        const page = (await allRows(read, table)).slice(start, start + selection.limit)
        for (const [index, { key }] of page.entries()) positions.set(key, start + index + 1)
        return page
      })
    },
  },
  {
    host: 'begins again after a row that is gone',
    case: /^readRows continues after a row that is gone/,
    make: (host) =>
      onRead(host, async (read, table, selection) => {
        if (selection.keys || selection.after === undefined) return read(table, selection)
        const [known] = await read(table, { keys: [selection.after] })
        return read(table, known ? selection : { limit: selection.limit })
      }),
  },
  {
    host: 'reads a snapshot of the first page',
    case: /^readRows sees what is committed/,
    make: (host) => {
      let snapshot: KeyedRow[] = []
      onRead(host, async (read, table, selection) => {
        if (selection.keys) return read(table, selection)
        if (selection.after === undefined) snapshot = await allRows(read, table)
        const start = snapshot.findIndex(({ key }) => key === selection.after) + 1
        return snapshot.slice(start, start + selection.limit)
      })
    },
  },
  {
    host: 'returns uncommitted rows',
    case: /^readRows never shows a part of a batch/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const checkpoint = (await host.loadCheckpoint(batch.source)) ?? { epoch: '', sequence: 0 }
        for (const each of batch.transactions.slice(0, 10)) await apply({ ...batch, transactions: [each], checkpoint })
        return apply(batch)
      }),
  },
  {
    host: 'rejects or invents rows of a table without rows',
    case: /^readRows of a table without rows/,
    make: (host) =>
      onRead(host, async (read, table, selection) => {
        if ((await allRows(read, table)).length === 0) throw new Error('no rows')
        return read(table, selection)
      }),
  },
  {
    host: 'returns an entry for keys that do not exist',
    case: /^readRows with keys returns those rows that exist/,
    make: (host) =>
      onRead(host, async (read, table, selection) => {
        const rows = await read(table, selection)
        const missing = (selection.keys ?? []).filter((key) => !rows.some((row) => row.key === key))
        return [...rows, ...missing.map((key) => ({ key, row: { timestamp: '' } }))]
      }),
  },
  {
    host: 'has no timestamps of attributes',
    case: /^readRows returns the timestamps/,
    make: (host) => onRow(host, ({ key, row: { updated: _, ...row } }) => ({ key, row })),
  },
  {
    host: 'gives rows of updates alone a timestamp',
    case: /^readRows returns the timestamps/,
    make: (host) =>
      onRow(host, ({ key, row }) => ({
        key,
        row: row.timestamp === '' ? { ...row, timestamp: Object.values(row.updated!)[0]! } : row,
      })),
  },
  {
    host: 'returns records as JSON',
    case: /^readRows returns values unchanged/,
    make: (host) =>
      onRow(host, ({ key, row }) => {
        const text = JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? Number(value) : value))
        return { key, row: JSON.parse(text) }
      }),
  },
  {
    host: 'turns keys into texts',
    case: /^readRows returns every kind of primary key/,
    make: (host) => onRow(host, ({ key, row }) => ({ key: String(key), row })),
  },
  {
    host: 'loses digits of large integers in keys',
    case: /^readRows returns every kind of primary key/,
    make: (host) => onRow(host, ({ key, row }) => ({ key: typeof key === 'bigint' ? Number(key) : key, row })),
  },
  {
    host: 'keeps the rows of a dropped table',
    case: /^a table that is dropped and created again has no rows/,
    make: (host, subject) => {
      subject.dropTable = (database, table) => {
        const name = JSON.stringify([database, table])
        const rows = host.rows.get(name)
        host.dropTable(database, table)
        if (rows) host.rows.set(name, rows)
      }
    },
  },
  {
    host: 'changes the order at a restart',
    case: /^rows are read in the same order after a restart/,
    make: (host, subject) => {
      subject.reopen = () => {
        const reopened = Object.assign(new MemoryHost(), { ...host })
        for (const [name, rows] of host.rows) reopened.rows.set(name, new Map([...rows].reverse()))
        return reopened
      }
    },
  },
]

const horizons: Mistake[] = [
  {
    host: 'ignores the horizon of a batch',
    case: /^a horizon is stored with its batch/,
    make: (host) => onApply(host, (apply, { horizon: _, ...batch }) => apply(batch)),
  },
  {
    host: 'lowers the horizon',
    case: /^a horizon is stored with its batch/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const result = await apply(batch)
        if (batch.horizon) host.horizons.set(JSON.stringify(['dev', batch.source.table]), batch.horizon)
        return result
      }),
  },
  {
    host: 'stores the horizon of a batch that it rejects',
    case: /^a horizon is stored with its batch/,
    make: (host) =>
      onApply(host, (apply, batch) => {
        if (batch.horizon) host.horizons.set(JSON.stringify(['dev', 'dog']), batch.horizon)
        return apply(batch)
      }),
  },
  {
    host: 'has one horizon for all tables',
    case: /^a horizon is stored with its batch/,
    make: (host) => {
      host.horizon = async () => [...host.horizons.values()].sort().at(-1)
    },
  },
  {
    host: 'applies writes below the horizon',
    case: /^a write at or below the horizon to an absent row is ignored/,
    make: (host) => onApply(host, (apply, batch) => apply({ ...batch, acceptOld: true })),
  },
  {
    host: 'applies writes at the horizon itself',
    case: /^a write at or below the horizon to an absent row is ignored/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const name = JSON.stringify(['dev', batch.source.table])
        const horizon = host.horizons.get(name)
        if (horizon) host.horizons.set(name, horizon.slice(0, -1))
        const result = await apply(batch)
        if (horizon && !batch.horizon) host.horizons.set(name, horizon)
        return result
      }),
  },
  {
    host: 'does not count ignored writes',
    case: /^a write at or below the horizon to an absent row is ignored/,
    make: (host) => onApply(host, async (apply, batch) => ({ ...(await apply(batch)), ignoredWrites: 0 })),
  },
  {
    host: 'stores no checkpoint when all writes are ignored',
    case: /^a write at or below the horizon to an absent row is ignored/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const before = await host.loadCheckpoint(batch.source)
        const result = await resultOf(apply(batch))
        if (result.ignoredWrites > 0 && before)
          host.checkpoints.set(JSON.stringify([batch.source.node, 'dev', 'dog']), before)
        return result
      }),
  },
  {
    host: 'refuses every write below the horizon',
    case: /^rows and tombstones that exist take writes below the horizon/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const horizon = (await host.horizon(batch.source)) ?? ''
        const isNew = ({ timestamp }: { timestamp: string }) => timestamp > horizon
        return apply(batch.acceptOld ? batch : { ...batch, transactions: batch.transactions.filter(isNew) })
      }),
  },
  {
    host: 'ignores acceptOld',
    case: /^acceptOld passes the horizon/,
    make: (host) => onApply(host, (apply, batch) => apply({ ...batch, acceptOld: false })),
  },
  {
    host: 'removes the horizon with acceptOld',
    case: /^acceptOld passes the horizon/,
    make: (host) =>
      onApply(host, (apply, batch) => {
        if (batch.acceptOld) host.horizons.clear()
        return apply(batch)
      }),
  },
  {
    host: 'stores the horizon before the writes of its batch',
    case: /^the horizon of a batch does not hold for its own writes/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        if (batch.horizon) await apply({ ...batch, transactions: [] })
        return apply(batch)
      }),
  },
  {
    host: 'drops tombstones without a horizon',
    case: /^a delete does not come undone/,
    make: (host, subject) => {
      subject.dropTombstones = (database, table, limit) => {
        host.dropTombstones(database, table, limit)
        host.horizons.clear()
      }
    },
  },
  {
    host: 'takes the limit for the horizon',
    case: /^a delete does not come undone/,
    make: (host, subject) => {
      subject.dropTombstones = (database, table, limit) => {
        host.dropTombstones(database, table, limit)
        host.horizons.set(JSON.stringify([database, table]), limit)
      }
    },
  },
  {
    host: 'drops tombstones at the limit',
    case: /^a delete does not come undone/,
    make: (host, subject) => {
      subject.dropTombstones = (database, table, limit) => host.dropTombstones(database, table, `${limit}~`)
    },
  },
  {
    host: 'drops old records with the tombstones',
    case: /^a delete does not come undone/,
    make: (host, subject) => {
      subject.dropTombstones = (database, table, limit) => {
        host.dropTombstones(database, table, limit)
        const rows = host.rows.get(JSON.stringify([database, table]))!
        for (const [key, { timestamp, updated }] of rows) if (timestamp < limit && !updated) rows.delete(key)
      }
    },
  },
  {
    host: 'keeps the horizon of a dropped table',
    case: /^dropping a table removes its horizon/,
    make: (host, subject) => {
      subject.dropTable = (database, table) => {
        const horizons = [...host.horizons]
        host.dropTable(database, table)
        for (const [name, horizon] of horizons) host.horizons.set(name, horizon)
      }
    },
  },
  {
    host: 'drops the horizons of other tables too',
    case: /^dropping a table removes its horizon/,
    make: (host, subject) => {
      subject.dropTable = (database, table) => {
        host.dropTable(database, table)
        host.horizons.clear()
      }
    },
  },
]

const results: Mistake[] = [
  {
    host: 'counts writes as changed rows',
    case: /^apply counts the rows that are different now/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        const count = batch.transactions.reduce((sum, { writes }) => sum + writes.length, 0)
        return { ...(await apply(batch)), changedRows: count }
      }),
  },
  {
    host: 'counts applied writes as ignored',
    case: /^apply counts the rows that are different now/,
    make: (host) => onApply(host, async (apply, batch) => ({ ...(await apply(batch)), ignoredWrites: 1 })),
  },
]

const existing: Mistake[] = [
  {
    host: 'has the same base timestamp on every node',
    case: /^two databases with different rows of one key/,
    make: (host) => {
      const { setBaseTimestamp } = host
      host.setBaseTimestamp = (timestamp) => setBaseTimestamp.call(host, `${timestamp.slice(0, -1)}0`)
    },
  },
  {
    host: 'reads rows without timestamps as rows of updates',
    case: /^rows without timestamps have the base timestamp/,
    make: (host) =>
      onRow(host, ({ key, row }) => ({
        key,
        row: row.timestamp.startsWith('000000000000') ? { ...row, timestamp: '' } : row,
      })),
  },
  {
    host: 'applies to rows without timestamps as if they had none',
    case: /^two databases with different rows of one key/,
    make: (host) => {
      const { setBaseTimestamp } = host
      let base = ''
      host.setBaseTimestamp = (timestamp) => {
        base = timestamp
      }
      onRead(host, async (read, ...args) => {
        setBaseTimestamp.call(host, base)
        const rows = await read(...args)
        setBaseTimestamp.call(host, '')
        return rows
      })
    },
  },
  {
    host: 'forgets the base timestamp of a row when it is updated early',
    case: /^a row that is updated while clustering is disabled/,
    make: (host) => {
      const { commitAs } = host
      host.commitAs = (transaction) => {
        commitAs.call(host, transaction)
        for (const rows of host.rows.values()) for (const row of rows.values()) if (row.updated) row.timestamp = ''
      }
    },
  },
  {
    host: 'loses rows without timestamps',
    case: /^any write wins over a row without a timestamp/,
    make: (host) =>
      onApply(host, (apply, batch) => {
        for (const rows of host.rows.values())
          for (const [key, { timestamp }] of rows) if (timestamp.startsWith('000000000000')) rows.delete(key)
        return apply(batch)
      }),
  },
]

describe('the host contract', () => {
  for (const mistake of [...reading, ...horizons, ...results, ...existing])
    it(`catches a host that ${mistake.host}`, () => assertCaught(mistake))

  it('skips the cases of optional methods that a host does not have, with the reason', async () => {
    const skipped = await checkHost(() => {
      const subject = memorySubject()
      Object.assign(subject.host, { readRows: undefined, horizon: undefined, setBaseTimestamp: undefined })
      return subject
    })
    const reasons = [...new Set(skipped.map(({ reason }) => reason))].sort()
    assert.deepEqual(reasons, ["the host has no 'horizon'", "the host has no 'readRows'"])
    assert.ok(skipped.length > 15)
  })
})
