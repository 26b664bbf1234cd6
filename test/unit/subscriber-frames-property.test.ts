// Frames of all sizes, with deaths inside of them, lost messages, unreadable ones and new epochs: each transaction is applied once and in
// order, or it is in quarantine, or a gap counts it.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { eventually } from '../support/cluster.ts'
import { isLong } from '../support/long.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'
import { RemoteStream, source } from '../support/remote-stream.ts'
import { subscribe } from '../support/scripted-subscription.ts'

type Message = { sizes: number; isUnreadable: boolean; bad: number[] }
type Phase = {
  /** Before the subscriber starts: nothing, the oldest messages expire, or the stream is lost. */
  change: { kind: 'none' } | { kind: 'expire'; share: number } | { kind: 'recreate'; confirmed: number; cuts: number[] }
  messages: Message[]
  maxBatch: number
  /** The process of the subscriber dies in this commit of the phase, before or after it takes effect. */
  death: { commit: number; isCommitted: boolean } | undefined
  /** Number of messages that a reader delivers at once. */
  piece: number
}

const share = fc.integer({ min: 0, max: 100 })
const message: fc.Arbitrary<Message> = fc.record({
  sizes: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, { weight: 4, arbitrary: fc.integer({ min: 2, max: 12 }) }),
  isUnreadable: fc.integer({ max: 11, min: 0 }).map((value) => value === 0),
  bad: fc.oneof(
    { weight: 6, arbitrary: fc.constant<number[]>([]) },
    { weight: 1, arbitrary: fc.array(fc.nat(11), { maxLength: 2 }) },
  ),
})
const phase: fc.Arbitrary<Phase> = fc.record({
  change: fc.oneof(
    { weight: 4, arbitrary: fc.constant({ kind: 'none' as const }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('expire' as const), share }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('recreate' as const),
        confirmed: share,
        cuts: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
      }),
    },
  ),
  messages: fc.array(message, { maxLength: 6 }),
  maxBatch: fc.integer({ min: 1, max: 15 }),
  death: fc.option(fc.record({ commit: fc.integer({ min: 1, max: 8 }), isCommitted: fc.boolean() }), {
    nil: undefined,
  }),
  piece: fc.integer({ min: 1, max: 4 }),
})

/** A transaction of the source, by number. A bad one is invalid wherever it is stored. */
type Item = { number: number; isBad: boolean }

/** `hasId`: the subscriber knows the id of its last transaction. `isUnverified`: it has not seen that in this epoch. */
type Place = { index: number; hasId: boolean; isUnverified: boolean }

/** The source: what it committed, and the stream that has some of it. */
class Source {
  readonly stream = new RemoteStream()
  /** Transactions of the current epoch, by index - 1. */
  items: Item[] = []
  count = 0
  epoch = 1
  /** Where each transaction was stored, by number: epochs and indexes. */
  readonly places: { epoch: string; index: number }[][] = []
  /** Transactions that a gap must count; those that may be applied again, since the subscriber cannot check what it applied. */
  readonly lost = new Set<string>()
  readonly mayRepeat = new Set<number>()
  readonly mayMiss = new Set<number>()
  /** Sequences of the present stream. */
  readonly unreadable = new Set<number>()

  get epochName(): string {
    return `e${this.epoch}`
  }

  append(items: Item[], isUnreadable = false): void {
    const { stream } = this
    const writes = [{ operation: 'delete', database: 'dev', table: 'dog', ids: [null] }] as never
    // The timestamp stays when a transaction is sent again.
    const list = items.map(({ number, isBad }) => ({
      id: `n${number}`,
      timestamp: makeTimestamp(number + 1, 0, 'node1'),
      ...(isBad && { writes }),
    }))
    const stored = stream.frame(++stream.last, this.items.length + 1, list, this.epochName)
    if (isUnreadable) {
      stored.data = Buffer.from('garbage')
      this.unreadable.add(stored.sequence)
    }
    for (const { number } of items) {
      this.items.push(items.find((each) => each.number === number)!)
      this.places[number] ??= []
      this.places[number].push({ epoch: this.epochName, index: this.items.length })
    }
  }

  commit({ sizes, isUnreadable, bad }: Message): void {
    const items = Array.from({ length: sizes }, (_, offset) => ({ number: this.count++, isBad: bad.includes(offset) }))
    this.append(items, isUnreadable)
  }

  /** The place of the subscriber in the current epoch. */
  expire(percent: number, at: Place): void {
    const { index } = at
    const { stream } = this
    // The last one stays: it tells how many are gone.
    const first = Math.min(stream.last, stream.first + Math.ceil(((stream.last - stream.first + 1) * percent) / 100))
    const gone = first > stream.first ? this.#endOf(first - 1) : 0
    // An unreadable message is not trusted to tell how many are gone before it.
    this.#lose(this.#knownBefore(at, gone), gone, !this.unreadable.has(first))
    for (const { number } of this.items.slice(index, gone)) this.mayMiss.add(number)
    stream.first = Math.max(1, first)
  }

  /** `applied`: numbers in order. */
  assertAll(applied: readonly number[], quarantined: Record<string, [number, number][]>): void {
    const once = applied.filter((number) => !this.mayRepeat.has(number))
    assert.deepEqual(
      once,
      [...new Set(once)].sort((a, b) => a - b),
      'once and in order',
    )
    const inQuarantine = ({ epoch, index }: { epoch: string; index: number }) =>
      (quarantined[epoch] ?? []).some(([from, to]) => index >= from && index <= to)
    for (const [number, places] of this.places.entries())
      assert.ok(
        applied.includes(number) || places.some(inQuarantine) || this.mayMiss.has(number),
        `${number} is missing: ${JSON.stringify(places)}`,
      )
  }

  #lose(after: number, last: number, isCounted: boolean): void {
    for (let index = after + 1; index <= last; index++)
      if (isCounted) this.lost.add(`${this.epochName} ${index}`)
      else this.lost.delete(`${this.epochName} ${index}`)
  }

  /**
   * The last transaction that the subscriber knows to have, when those up to `last` are gone. It was not seen in this epoch: if it is gone as
   * well, nothing shows that the epoch began with what was applied before, and all of them count as lost.
   */
  #knownBefore({ index, isUnverified }: Place, last: number): number {
    return isUnverified && index <= last ? 0 : index
  }

  #endOf(sequence: number): number {
    const headers = this.stream.stored.get(sequence)?.headers ?? {}
    return Number(headers.first) + Number(headers.count) - 1
  }

  /** The store is lost. What was not confirmed is sent again, in messages of other sizes. */
  recreate(percent: number, cuts: number[], at: Place): void {
    const { stream } = this
    const lastIndex = Math.floor((this.items.length * percent) / 100)
    let last = 0
    for (let sequence = 1; sequence <= stream.last; sequence++) if (this.#endOf(sequence) <= lastIndex) last = sequence
    this.#lose(this.#knownBefore(at, lastIndex), lastIndex, true)
    // What has expired before it was confirmed, and was not read, is sent again.
    this.#lose(Math.max(at.index, lastIndex), this.items.length, false)
    for (const { number } of this.items.slice(at.index, lastIndex)) this.mayMiss.add(number)
    const again = this.items.slice(lastIndex)
    if (!at.hasId) for (const { number } of again) this.mayRepeat.add(number)
    stream.epochs = [...stream.epochs.slice(0, -1), { epoch: this.epochName, from: 0, last, lastIndex }]
    stream.epochs = [...stream.epochs.slice(-6), { epoch: `e${++this.epoch}`, from: 1 }]
    Object.assign(stream, { first: 1, last: 0 })
    stream.stored.clear()
    this.unreadable.clear()
    this.items = []
    for (let turn = 0; again.length > 0; turn++) this.append(again.splice(0, cuts[turn % cuts.length]))
  }
}

/** A repetition of the stream does not repeat a transaction that is applied, unless nothing showed which ones are. */
async function run(test: TestContext, phases: readonly Phase[]): Promise<void> {
  const remote = new Source()
  const { stream } = remote
  const { host, directory, subscriber: unused } = await subscribe(test, {}, { stream })
  await unused.stop()
  const commit = host.apply.bind(host)
  const checkpoint = async () => (await host.loadCheckpoint(source))!
  for (const { change, messages, maxBatch, death, piece } of [...phases, end]) {
    const { epoch, index = 0, lastId, unverified = false } = await checkpoint()
    // One change at a time: what a subscriber cannot know that was not in the epoch before is in other tests.
    const hasArrived = epoch === remote.epochName
    const at = { index, hasId: lastId !== undefined, isUnverified: unverified }
    if (change.kind === 'expire' && hasArrived) remote.expire(change.share, at)
    if (change.kind === 'recreate' && hasArrived) remote.recreate(change.confirmed, change.cuts, at)
    for (const each of messages) remote.commit(each)
    let isDead = false
    let commits = 0
    host.apply = async (batch) => {
      if (isDead) throw new Error('dead')
      isDead = ++commits === death?.commit
      if (!isDead || death?.isCommitted) await commit(batch)
      if (isDead) throw new Error('it dies')
    }
    let next = stream.readers.length
    const { subscriber } = await subscribe(test, { maxBatch }, { stream, host, directory })
    subscriber.start()
    await eventually(
      () => `the end: ${JSON.stringify([subscriber.status(), remote.epochName, stream.last])}`,
      async () => {
        const reader = stream.readers[next]
        if (reader) {
          next++
          const from = Math.max(reader.from, stream.first)
          for (let sequence = from; sequence <= stream.last; sequence += piece)
            reader.give(...[...stream.stored.values()].filter((each) => each.sequence >= sequence).slice(0, piece))
        }
        const { epoch, sequence } = await checkpoint()
        return isDead || (epoch === remote.epochName && sequence === stream.last)
      },
    )
    await subscriber.stop()
  }
  const { gaps, quarantined = {} } = await checkpoint()
  assert.equal(gaps?.lost ?? 0, remote.lost.size, 'the gaps count what is lost')
  remote.assertAll(
    host.received.map(({ transaction: { id } }) => Number(id.slice(1))),
    quarantined,
  )
}

const end: Phase = {
  change: { kind: 'none' },
  messages: [{ sizes: 1, isUnreadable: false, bad: [] }],
  maxBatch: 5,
  death: undefined,
  piece: 2,
}

it('each transaction is applied once and in order, is in quarantine, or is counted by a gap', async (test) => {
  const seed = seedOf()
  test.diagnostic(`SEED=${seed}`)
  const property = fc.asyncProperty(fc.array(phase, { minLength: 1, maxLength: 8 }), (phases) => run(test, phases))
  await fc.assert(property, {
    seed,
    numRuns: isLong ? 1_000 : 60,
    endOnFailure: true,
    interruptAfterTimeLimit: isLong ? 120_000 : 2_500,
    markInterruptAsFailure: false,
  })
})
