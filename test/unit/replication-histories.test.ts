// Random histories of commits, lost acknowledgements and confirmations, deleted messages, crashes and restored databases: what the
// database has in the end has arrived, or a gap names it.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { RestoredSource, type Table, tables } from '../support/restored-source.ts'

type SimpleStep = 'holdConfirmations' | 'copy' | 'crash' | 'restore' | 'wipe' | 'cut' | 'heal' | 'pause' | 'quiet'
type Step =
  | { kind: 'commit'; count: number; tables: readonly Table[] }
  | { kind: 'loseAcknowledgements'; count: number }
  | { kind: 'expire' | 'purge'; table: Table; keep: number }
  | { kind: SimpleStep }

const simple = (...kinds: SimpleStep[]) => fc.constantFrom(...kinds.map((kind) => ({ kind })))
const table = fc.constantFrom(...tables)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('commit' as const),
      count: fc.integer({ min: 1, max: 6 }),
      tables: fc.constantFrom<readonly Table[]>(['dog'], ['dog'], ['cat'], ['dog', 'cat']),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('loseAcknowledgements' as const), count: fc.integer({ min: 1, max: 6 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('expire' as const, 'purge' as const), table, keep: fc.nat(3) }),
  },
  { weight: 4, arbitrary: simple('holdConfirmations', 'copy', 'crash') },
  { weight: 3, arbitrary: simple('restore') },
  { weight: 1, arbitrary: simple('wipe') },
  { weight: 2, arbitrary: simple('cut', 'heal') },
  { weight: 5, arbitrary: simple('pause', 'quiet') },
)

async function take(source: RestoredSource, step: Step): Promise<void> {
  switch (step.kind) {
    case 'commit':
      for (let count = 0; count < step.count; count++) source.commit(step.tables)
      return
    case 'loseAcknowledgements':
      return source.loseAcknowledgements(step.count)
    case 'expire':
      return source.expire(step.table, step.keep)
    case 'purge':
      return source.purge(step.table, step.keep)
    case 'holdConfirmations':
      source.host.holdsConfirmations = true
      return
    case 'copy':
      return source.copyDatabase()
    case 'crash':
      return source.crash()
    case 'restore':
      return source.crash({ back: true })
    case 'wipe':
      return source.crash({ wipe: true })
    case 'cut':
      return source.network.cut('node1', 'node2')
    case 'heal':
      return source.network.heal()
    case 'pause':
      return source.pause()
    case 'quiet':
      return source.quiet()
  }
}

/** The places that a gap names. */
function placesIn({ places }: RestoredSource, { table, epoch, next, seen, from = 1, to }: RestoredSource['gaps'][0]) {
  // A stream that was lost twice no longer describes the epoch of the subscription: the end of such a gap is not known.
  return places.filter((each, index) => {
    if (each.table !== table) return false
    if (each.epoch === epoch) return from <= each.index && (to === undefined || each.index <= to)
    return to === undefined && index < seen && each.epoch !== next
  })
}

/** Asserts that each part of each transaction that the database has was applied, or was at a place that a gap names. */
function assertNothingLost(source: RestoredSource): void {
  const { committed, subscriberHost, places, gaps } = source
  for (const table of tables) {
    const applied = new Set(subscriberHost.from('node1', table).map(({ id }) => id))
    const named = new Set(
      gaps
        .filter((gap) => gap.table === table)
        .flatMap((gap) => placesIn(source, gap))
        .map(({ id }) => id),
    )
    for (const { id, tables } of committed)
      if (tables.includes(table) && !applied.has(id) && !named.has(id))
        assert.fail(
          `${id} of ${table} is lost: ${JSON.stringify({ gaps, places: places.filter((each) => each.id === id) })}`,
        )
  }
}

/** Asserts that no transaction was applied twice from one epoch, and none twice at all if nothing was deleted or taken back. */
function assertOnce({ mayRepeat, subscriberHost, gaps }: RestoredSource): void {
  // A rewound stream is applied again on purpose.
  if (gaps.some(({ reason }) => reason === 'rewound')) return
  for (const table of tables) {
    const received = subscriberHost.from('node1', table)
    const keys = received.map(({ id, origin }) => (mayRepeat ? `${id} ${origin.epoch}` : id))
    const repeated = keys.filter((key, index) => keys.indexOf(key) !== index)
    assert.deepEqual(repeated, [], `${table} was applied twice`)
  }
}

/** The source is as new, and its next stream begins with fewer transactions than the subscriber has applied of the stream before. */
const recreatedFromCopy: Step[] = [
  { kind: 'copy' },
  { kind: 'quiet' },
  { kind: 'commit', count: 4, tables: ['dog'] },
  { kind: 'pause' },
  { kind: 'commit', count: 5, tables: ['dog', 'cat'] },
  { kind: 'holdConfirmations' },
  { kind: 'commit', count: 1, tables: ['dog'] },
  { kind: 'purge', table: 'dog', keep: 1 },
  { kind: 'restore' },
  { kind: 'wipe' },
]

async function holds(test: TestContext, numRuns: number): Promise<void> {
  const seed = seedOf()
  test.diagnostic(`SEED=${seed}`)
  const [directory, remove] = await temporaryDirectory()
  test.after(remove)
  const limits = { maxMessages: 10, maxBytes: 1e6, logger: silentLogger }
  const quarantine = await Quarantine.open({ directory: join(directory, 'quarantine'), ...limits })
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 20 }), async (steps) => {
      const source = new RestoredSource(quarantine)
      await source.open()
      try {
        for (const each of steps) await take(source, each)
        source.network.heal()
        source.commit(tables)
        await source.quiet()
        assertNothingLost(source)
        assertOnce(source)
      } finally {
        await source.close()
      }
    }),
    {
      seed,
      numRuns,
      examples: [[recreatedFromCopy]],
      endOnFailure: true,
      interruptAfterTimeLimit: isLong ? 120_000 : 6_000,
      markInterruptAsFailure: false,
    },
  )
}

it('nothing that the database has is lost without a gap', { timeout: 180_000 }, (test) =>
  holds(test, isLong ? 2_000 : 60),
)
