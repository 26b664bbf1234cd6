// Each case of the host contract catches a host that breaks what it is about; cases that do not apply are skipped.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Batch } from '../../lib/index.ts'
import { checkHost, hostContract, MemoryHost } from '../../lib/testing.ts'
import { assertCaught, type Mistake, memorySubject, onApply } from '../support/contract-subject.ts'

function dropTable(host: MemoryHost, database: string, table: string): void {
  host.tables.delete(JSON.stringify([database, table]))
  host.rows.delete(JSON.stringify([database, table]))
}

function dropCheckpoints(host: MemoryHost, database: string, table: string): void {
  for (const key of [...host.checkpoints.keys()]) {
    const [, ofDatabase, ofTable] = JSON.parse(key) as string[]
    if (ofDatabase === database && ofTable === table) host.checkpoints.delete(key)
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

const before = (host: MemoryHost, { source: { node, database, table } }: Batch) =>
  host.checkpoints.get(JSON.stringify([node, database, table])) ?? { epoch: '', sequence: 0 }

const mistakes: Mistake[] = [
  {
    host: 'commits the checkpoint in a second transaction',
    case: /^rows are never visible without their checkpoint/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        await apply({ ...batch, checkpoint: before(host, batch) })
        await apply({ ...batch, transactions: [], relay: [] })
      }),
  },
  {
    host: 'commits the checkpoint in a second transaction, a while later',
    case: /^rows are never visible without their checkpoint/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        await turn()
        await apply({ ...batch, checkpoint: before(host, batch) })
        await turn()
        await apply({ ...batch, transactions: [], relay: [] })
      }),
  },
  {
    host: 'commits each transaction of a batch separately',
    case: /^rows are never visible without their checkpoint/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        if (batch.transactions.length === 0) return apply(batch)
        for (const each of batch.transactions) await apply({ ...batch, transactions: [each] })
      }),
  },
  {
    host: 'commits the checkpoint first',
    case: /^a checkpoint is never visible without its rows/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        await apply({ ...batch, transactions: [], relay: [] })
        await turn()
        await apply(batch)
      }),
  },
  {
    host: 'describes tables without their attributes',
    case: /^createTable creates a table/,
    make: (host) => {
      const describe = host.describe.bind(host)
      host.describe = async () => (await describe()).map((table) => ({ ...table, attributes: [] }))
    },
  },
  {
    host: 'drops the user of a relayed transaction',
    case: /^relayed transactions keep their user, trace and writes/,
    make: (host) =>
      onApply(host, (apply, { relay = [], ...batch }) =>
        apply({ ...batch, relay: relay.map(({ user: _, ...each }) => each) }),
      ),
  },
  {
    host: 'drops the trace of a relayed transaction',
    case: /^relayed transactions keep their user, trace and writes/,
    make: (host) =>
      onApply(host, (apply, { relay = [], ...batch }) =>
        apply({ ...batch, relay: relay.map(({ trace: _, ...each }) => each) }),
      ),
  },
  {
    host: 'removes tombstones after a while',
    case: /^a tombstone stays/,
    make: (host) => {
      let count = 0
      onApply(host, async (apply, batch) => {
        await apply(batch)
        if (++count % 50 === 0)
          for (const rows of host.rows.values()) for (const [key, { record }] of rows) if (!record) rows.delete(key)
      })
    },
  },
  {
    host: 'lets an older delete replace a tombstone',
    case: /^a tombstone stays/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        for (const { writes } of batch.transactions)
          for (const write of writes)
            if (write.operation === 'delete')
              for (const rows of host.rows.values())
                for (const id of write.ids)
                  if (!rows.get(JSON.stringify([id]))?.record) rows.delete(JSON.stringify([id]))
        await apply(batch)
      }),
  },
  {
    host: 'keeps no tombstones of local deletes',
    case: /^a local delete wins/,
    make: (host) => {
      const commitAs = host.commitAs.bind(host)
      host.commitAs = (transaction) => {
        commitAs(transaction)
        for (const rows of host.rows.values()) for (const [key, { record }] of rows) if (!record) rows.delete(key)
      }
    },
  },
  {
    host: 'ignores writes to missing tables',
    case: /^a write to a missing table is rejected/,
    make: (host) =>
      onApply(host, (apply, batch) => {
        const exists = ({ database, table }: { database: string; table: string }) =>
          host.tables.has(JSON.stringify([database, table]))
        const transactions = batch.transactions.map((each) => ({ ...each, writes: each.writes.filter(exists) }))
        return apply({ ...batch, transactions })
      }),
  },
  {
    host: 'creates missing tables',
    case: /^a write to a missing table is rejected/,
    make: (host) =>
      onApply(host, async (apply, batch) => {
        for (const { writes } of batch.transactions)
          for (const { database, table } of writes)
            await host.createTable({ database, table, primaryKey: 'id', attributes: ['id'] })
        return apply(batch)
      }),
  },
  {
    host: 'keeps the checkpoints of a dropped table',
    case: /^dropping a table removes its checkpoints/,
    make: (host, subject) => {
      subject.dropTable = (database, table) => dropTable(host, database, table)
    },
  },
  {
    host: 'removes the checkpoints of a dropped table in a second transaction',
    case: /^dropping a table removes its checkpoints/,
    make: (host, subject) => {
      subject.dropTable = async (database, table) => {
        dropTable(host, database, table)
        await turn()
        dropCheckpoints(host, database, table)
      }
    },
  },
  {
    host: 'drops the checkpoints of other tables too',
    case: /^dropping a table removes its checkpoints/,
    make: (host, subject) => {
      subject.dropTable = (database, table) => {
        dropTable(host, database, table)
        host.checkpoints.clear()
      }
    },
  },
]

describe('the host contract', () => {
  for (const mistake of mistakes) it(`catches a host that ${mistake.host}`, () => assertCaught(mistake))

  it('skips no case of a complete host', async () => {
    assert.deepEqual(await checkHost(() => memorySubject()), [])
  })

  it('skips the cases that do not apply, with the reason, and does not pass them', async () => {
    const create = () => {
      const { host, read } = memorySubject(new MemoryHost({ outbox: false }))
      return { host, read }
    }
    const skipped = await checkHost(create)
    assert.deepEqual([...new Set(skipped.map(({ reason }) => reason))].sort(), [
      'the host has no outbox',
      ...['dropTable', 'dropTombstones', 'reopen', 'storeExisting'].map((name) => `the subject has no '${name}'`),
    ])
    const run: string[] = []
    for (const each of hostContract(create)) {
      let isSkipped = false
      const skip = () => {
        isSkipped = true
      }
      await each.run({ skip })
      if (!isSkipped) run.push(each.name)
    }
    assert.equal(run.length + skipped.length, hostContract(create).length)
    assert.ok(skipped.length > 5)
  })
})
