// A host in memory as a subject of the host contract, and whether the contract catches a broken one.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { ApplyOutcome, Batch } from '../../lib/index.ts'
import { checkHost, type HostUnderTest, MemoryHost } from '../../lib/testing.ts'

/** A restart of a database in memory keeps the same object. */
export function memorySubject(host = new MemoryHost()): HostUnderTest {
  return {
    host,
    read: (database, table, key) => host.get(database, table, key),
    commit: (writes, timestamp) => host.commitAs({ id: randomUUID(), timestamp, writes }),
    reopen: () => host,
    dropTable: (database, table) => host.dropTable(database, table),
    dropTombstones: (database, table, limit) => host.dropTombstones(database, table, limit),
    commitUnrecorded: (writes, timestamp) => {
      const handle = { timestamp: () => timestamp, publish: async () => {} }
      host.attach({ ...handle, manifest: { enabled: false } })
      host.commitAs({ id: randomUUID(), timestamp, writes })
      host.attach({ ...handle, manifest: { enabled: true } })
    },
    storeExisting: (database, table, record) => host.storeExisting(database, table, record),
  }
}

/** Changes how a batch is applied. */
export function onApply(
  host: MemoryHost,
  work: (apply: (batch: Batch) => Promise<ApplyOutcome>, batch: Batch) => Promise<ApplyOutcome>,
): void {
  const apply = host.apply.bind(host)
  host.apply = (batch) => work(apply, batch)
}

/** What a broken host does, and the case of the contract that fails then. */
export type Mistake = { host: string; case: RegExp; make(host: MemoryHost, subject: HostUnderTest): void }

export async function assertCaught({ case: caught, make }: Mistake): Promise<void> {
  const create = () => {
    const host = new MemoryHost()
    const broken = memorySubject(host)
    make(host, broken)
    return broken
  }
  await assert.rejects(checkHost(create), ({ errors }: AggregateError) => {
    const names = errors.map(({ message }: Error) => message)
    assert.ok(
      names.some((name) => caught.test(name)),
      `caught by ${names.join('; ')}`,
    )
    return true
  })
}
