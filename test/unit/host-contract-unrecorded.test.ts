// The cases of the host contract about transactions without an entry in the outbox, and without records, catch a host that breaks them.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { checkHost, MemoryHost } from '../../lib/testing.ts'
import { assertCaught, type Mistake, memorySubject, onApply } from '../support/contract-subject.ts'

const lastUnrecorded = /^lastUnrecorded has the timestamp/

const mistakes: Mistake[] = [
  {
    host: 'stores unrecorded transactions in the outbox',
    case: lastUnrecorded,
    make: (host, subject) => {
      const { commitUnrecorded } = subject
      subject.commitUnrecorded = (writes, timestamp) => {
        commitUnrecorded!(writes, timestamp)
        host.outbox.push({ id: 'unrecorded', timestamp, writes })
      }
    },
  },
  {
    host: 'does not tell tables apart',
    case: lastUnrecorded,
    make: (host) => {
      host.lastUnrecorded = async () => [...host.unrecorded.values()].at(-1)
    },
  },
  {
    host: 'forgets unrecorded transactions when others are confirmed',
    case: lastUnrecorded,
    make: (host) => {
      const confirm = host.confirmPublished.bind(host)
      host.confirmPublished = (confirmation) => {
        host.unrecorded.clear()
        return confirm(confirmation)
      }
    },
  },
  {
    host: 'stores only relayed transactions with records',
    case: /^a transaction without records is stored in the outbox too/,
    make: (host) =>
      onApply(host, (apply, { relay = [], ...batch }) =>
        apply({
          ...batch,
          relay: relay.filter(({ writes }) =>
            writes.some((write) => (write.operation === 'delete' ? write.ids : write.records).length > 0),
          ),
        }),
      ),
  },
]

describe('the host contract', () => {
  for (const mistake of mistakes) it(`catches a host that ${mistake.host}`, () => assertCaught(mistake))

  it('skips the case of unrecorded transactions without `lastUnrecorded`, and without a way to commit them', async () => {
    const skipped = await checkHost(() => ({ ...memorySubject(), commitUnrecorded: undefined as never }))
    assert.deepEqual(
      skipped.map(({ reason }) => reason),
      ["the subject has no 'commitUnrecorded'"],
    )
    const create = () => {
      const host = Object.assign(new MemoryHost(), { lastUnrecorded: undefined })
      return memorySubject(host as never)
    }
    assert.deepEqual(
      (await checkHost(create)).map(({ reason }) => reason),
      ["the host has no 'lastUnrecorded'"],
    )
  })
})
