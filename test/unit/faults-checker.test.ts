// The check of a fault run on constructed data: it finds every violation, and reports none for correct data.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge, type NodeState } from '../faults/checker.ts'
import { Exceptions } from '../faults/exceptions.ts'
import type { Entry } from '../faults/journal.ts'
import { firstName, nameAfter } from '../faults/names.ts'
import { type Commit, keyOf, type Local, rewritesOf, tableAfter } from '../faults/writes.ts'

const TABLE = 'dog'
const COUNT = 10

const commitOf = (number: number): Commit => ({
  id: keyOf('node1', 1, number),
  tx: `tx${number}`,
  timestamp: `timestamp ${String(number).padStart(3, '0')}`,
  also: { operation: number % 3 === 0 ? 'update' : 'upsert', record: { id: 'shared', [`a${number % 2}`]: number } },
})
const commits = Array.from({ length: COUNT }, (_, index) => commitOf(index + 1))

const entryOf = (commit: Commit, position: number, more: Partial<Entry> = {}): Entry => ({
  id: `000001.${String(position).padStart(9, '0')}`,
  node: 'node1',
  table: TABLE,
  epoch: 'e',
  // Two transactions a message.
  sequence: Math.ceil((commits.indexOf(commit) + 1) / 2),
  index: commits.indexOf(commit) + 1,
  tx: commit.tx,
  timestamp: commit.timestamp,
  key: commit.id,
  at: position,
  ...more,
})

/** node1 committed everything; node2 applied these transactions in this order, and copies brought it the rows of all that it `holds`. */
function nodes(applied: readonly Commit[], incidents: NodeState['incidents'] = [], held = commits): NodeState[] {
  const state = (name: string, held: readonly Commit[], more: Partial<NodeState> = {}): NodeState => ({
    name,
    tables: new Map([[TABLE, tableAfter(held)]]),
    journal: [],
    incidents: [],
    markers: [],
    ...more,
  })
  const journal = applied.map((commit, index) => entryOf(commit, index + 1))
  return [state('node1', commits), state('node2', held, { journal, incidents })]
}

const acknowledged = commits.map(({ id }) => [id, [TABLE]] as const)
const source = { node: 'node1', database: 'dev', table: TABLE }
const gap = (behind: number, from: number, to: number) =>
  ({
    event: 'gap',
    after: `000001.${String(behind).padStart(9, '0')}`,
    source,
    from,
    to,
    lost: to - from + 1,
    reason: 'purged',
  }) as const
/** Its end is not known. */
const uncounted = (behind: number, from: number): NodeState['incidents'][number] => {
  const { to: _, lost: __, ...known } = gap(behind, from, from)
  return known
}
const quarantined = (epoch: string, index: number, count = 1) =>
  ({ event: 'quarantined', after: '000001.000000003', source, epoch, index, count, sequence: 2, error: 'why' }) as const
const without = (...numbers: number[]) => commits.filter((_, index) => !numbers.includes(index + 1))

/** node1 announced copied rows after this commit. */
function announced(behind: number, states: NodeState[]): NodeState[] {
  const id = keyOf('node1', 1, behind + 0.5)
  states[0]!.markers.push({ id, tx: 'marker', timestamp: '', table: TABLE })
  return states
}

const good: [string, NodeState[], Partial<ReturnType<typeof judge>>][] = [
  ['all applied, in order', nodes(commits), { applied: COUNT, messages: COUNT / 2, largest: 2, lost: 0 }],
  ['a gap that is reported', nodes(without(4, 5), [gap(3, 4, 5)]), { lost: 2, gaps: 1 }],
  ['a gap at the beginning', nodes(without(1, 2), [gap(0, 1, 2)]), { lost: 2, gaps: 1 }],
  ['two gaps at one position', nodes(without(4, 5, 6), [gap(3, 4, 5), gap(3, 6, 6)]), { lost: 3, gaps: 2 }],
  [
    'a transaction from quarantine is applied late',
    nodes([...without(4), commits[3]!], [quarantined('e', 4)]),
    { applied: COUNT, quarantined: 1, disorder: 0 },
  ],
  [
    'a whole message from quarantine is applied late',
    nodes([...without(3, 4), commits[2]!, commits[3]!], [quarantined('e', 3, 2)]),
    { applied: COUNT, quarantined: 2, disorder: 0 },
  ],
  ['a gap of unknown size', nodes(without(4, 5), [uncounted(3, 4)]), { lost: 2, gaps: 1, uncounted: 1 }],
  [
    'a gap in a new epoch, which begins with an unacknowledged transaction',
    inEpochs(nodes(without(4, 5), [gap(3, 3, 4)]), 3, 2),
    { lost: 2, gaps: 1 },
  ],
  ['a marker that was read', announced(4, nodes(commits)), { applied: COUNT, lost: 0 }],
  ['a gap that has a marker in it', announced(4, nodes(without(4, 5), [gap(3, 4, 6)])), { lost: 2, gaps: 1 }],
  ['a gap beside a marker that was read', announced(4, nodes(without(4, 5), [gap(3, 4, 5)])), { lost: 2, gaps: 1 }],
]
for (const [name, states, expected] of good)
  test(`accepts: ${name}`, () => {
    const verdict = judge(states, acknowledged)
    assert.deepEqual(verdict.violations, [])
    for (const [key, value] of Object.entries(expected)) assert.equal(verdict[key as keyof typeof verdict], value, key)
  })

/** After so many applied transactions a new epoch `f` begins, with the last `repeated` ones of them. */
function inEpochs(states: NodeState[], count: number, repeated: number): NodeState[] {
  for (const entry of states[1]!.journal.slice(count)) {
    entry.epoch = 'f'
    entry.index -= count - repeated
  }
  return states
}

const swapped = () => [...commits.slice(0, 3), commits[4]!, commits[3]!, ...commits.slice(5)]
const changed = (): NodeState[] => {
  const states = nodes(commits)
  states[1]!.tables.get(TABLE)!.set('shared', { id: 'shared', a0: 'else' })
  return states
}
const unacknowledged = (): NodeState[] => {
  const states = nodes(commits)
  for (const { tables } of states) tables.get(TABLE)!.delete(commits[9]!.id)
  states[1]!.journal.pop()
  return states
}
const unknown = (): NodeState[] => {
  const states = nodes(commits)
  states[1]!.journal.push(entryOf(commits[0]!, COUNT + 1, { tx: 'unknown' }))
  return states
}

const bad: [string, () => NodeState[], RegExp][] = [
  ['a missing transaction without a gap', () => nodes(without(5)), /1 are missing after e\/4.* reported gaps: none/],
  ['a missing last transaction without a gap', () => nodes(without(COUNT)), /1 are missing after e\/9/],
  ['no transaction arrived', () => nodes([]), /10 are missing at the beginning/],
  ['a gap without a missing transaction', () => nodes(commits, [gap(3, 4, 5)]), /0 are missing.*purged 4 to 5/],
  ['a gap that is too small', () => nodes(without(4, 5), [gap(3, 4, 4)]), /2 are missing/],
  ['a gap that is too large', () => nodes(without(4, 5), [gap(3, 4, 6)]), /2 are missing/],
  [
    'a gap that is too large in spite of a marker',
    () => announced(4, nodes(without(4, 5), [gap(3, 4, 7)])),
    /2 are missing/,
  ],
  ['a gap and a marker elsewhere', () => announced(8, nodes(without(4, 5), [gap(3, 4, 6)])), /2 are missing/],
  ['a marker explains no missing transaction', () => announced(4, nodes(without(5))), /1 are missing/],
  ['a gap with wrong bounds', () => nodes(without(4, 5), [gap(3, 5, 6)]), /2 are missing/],
  ['a gap that begins too early', () => nodes(without(4, 5), [gap(3, 3, 4)]), /2 are missing/],
  ['a gap of unknown size without a missing transaction', () => nodes(commits, [uncounted(3, 4)]), /4 to \?/],
  [
    'a gap that begins too late in a new epoch',
    () => inEpochs(nodes(without(4, 5), [gap(3, 5, 6)]), 3, 2),
    /2 are missing/,
  ],
  [
    'the quarantine of another epoch explains a disorder',
    () => nodes([...without(4), commits[3]!], [quarantined('f', 4)]),
    /was committed later/,
  ],
  ['a gap at the wrong time', () => nodes(without(4, 5), [gap(6, 4, 5)]), /2 are missing.*none/],
  ['a transaction is applied twice', () => nodes([...commits, commits[2]!]), /applied twice/],
  ['two transactions are applied in the wrong order', () => nodes(swapped()), /was committed later/],
  ['a gap that was not repaired', () => nodes(without(4), [gap(3, 4, 4)], without(4)), /'w node1 1.4' is undefined/],
  ['the rows differ from the committed transactions', changed, /dog of node2: 'shared' is/],
  ['an acknowledged transaction is missing on its node', unacknowledged, /was acknowledged/],
  ['a transaction is applied that was never committed', unknown, /never committed/],
]
for (const [name, states, violation] of bad)
  test(`finds: ${name}`, () => {
    const { violations } = judge(states(), acknowledged)
    assert.ok(
      violations.some((text) => violation.test(text)),
      violations.join('\n') || 'no violation was found',
    )
  })

// node1 committed 1 to 4, with its clock ahead 5 and 6, restamped them, and went on with 8.
const wrong = [5, 6].map((number) => ({ ...commitOf(number), timestamp: `timestamp 9${number}0` }))
const restamp = {
  key: keyOf('node1', 1, 7),
  transactions: [
    {
      id: 'restamp',
      timestamp: 'timestamp 004.5',
      writes: [
        {
          operation: 'upsert' as const,
          database: 'dev',
          table: TABLE,
          records: [...wrong, { ...tableAfter([...commits.slice(0, 4), ...wrong]).get('shared')! }],
        },
      ],
      voids: { node: 'node1', from: 'timestamp 900', to: 'timestamp 999' },
    },
  ],
}
const [rewrite] = rewritesOf(restamp, TABLE)
const before = commits.slice(0, 4)
const after = commitOf(8)

/** Node2 applied these transactions in this order. */
function restamped(applied: readonly Local[]): ReturnType<typeof judge> {
  const exceptions = new Exceptions()
  exceptions.restamped('node1', restamp)
  const state = (name: string, held: readonly Local[], journal: Entry[] = []): NodeState => ({
    name,
    tables: new Map([[TABLE, tableAfter(held)]]),
    journal,
    incidents: [],
    markers: [],
  })
  const journal = applied.map((each, index) => ({
    ...entryOf(commits[0]!, index + 1),
    index: index + 1,
    tx: each.tx,
    timestamp: each.timestamp,
    key: each.id,
  }))
  const states = [state('node1', [...before, rewrite!, after]), state('node2', applied, journal)]
  return judge(
    states,
    [...before, ...wrong, after].map(({ id }) => [id, [TABLE]] as const),
    exceptions,
  )
}

test('accepts: a restamp instead of the commits that it voids', () => {
  const { violations, applied, lost } = restamped([...before, rewrite!, after])
  assert.deepEqual([violations, applied, lost], [[], 6, 0])
})

for (const [name, applied, violation] of [
  ['a voided transaction is applied', [...before, wrong[0]!, rewrite!, after], /a restamp of its node voids it/],
  ['a restamp is missing', [...before, after], /1 are missing after e\/4/],
  ['a restamp is applied late', [...before, after, rewrite!], /was committed later/],
] as const)
  test(`finds: ${name}`, () => {
    const { violations } = restamped(applied)
    assert.ok(
      violations.some((text) => violation.test(text)),
      violations.join('\n') || 'no violation was found',
    )
  })

// The database of node1 was restored to its state after 8; node2 had applied 9, and 10 reached nobody.
const beforeTheCopy = without(10)
function restored(held: readonly Commit[]): ReturnType<typeof judge> {
  const exceptions = new Exceptions()
  exceptions.undone('node1', new Map([[TABLE, commits.slice(8)]]))
  const states = nodes(beforeTheCopy, [], beforeTheCopy)
  states[0]!.tables.set(TABLE, tableAfter(held))
  return judge(states, acknowledged, exceptions)
}

test('accepts: a copy brought back what a restored database lacked and a peer had applied', () =>
  assert.deepEqual(restored(beforeTheCopy).violations, []))

test('finds: a peer has what the restored database lacks', () =>
  assert.match(restored(without(9, 10)).violations.join(), /dog of node2: 'w node1 1.9' is/))

// node2 had a gap from 4 to 6. The outbox of the copy had 4 and 5, which were sent again.
function resent(applied: readonly Commit[], known: readonly Commit[]): string[] {
  const exceptions = new Exceptions()
  exceptions.repeated(known.map(({ tx }) => tx))
  return judge(nodes(applied, [gap(3, 4, 6)]), acknowledged, exceptions).violations
}
const outbox = commits.slice(3, 5)

test('accepts: what a restored database sends again is applied late', () =>
  assert.deepEqual(resent([...without(4, 5, 6), ...outbox], outbox), []))

test('finds: a transaction that nobody sent again is applied late', () =>
  assert.match(resent([...without(4, 5, 6), ...outbox], outbox.slice(1)).join(), /'w node1 1.4' was applied after/))

test('finds: a missing transaction is in no gap, beside those that were sent again', () =>
  assert.match(resent([...without(4, 5, 6, 8), ...outbox], outbox).join(), /1 are missing after e\/7/))

test('the entries and incidents of a renamed node are those of its first name', () => {
  assert.deepEqual(
    ['node2', nameAfter('node2', 0), nameAfter('node2', 1), nameAfter('node2', 12)].map(firstName),
    Array.from({ length: 4 }, () => 'node2'),
  )
})
