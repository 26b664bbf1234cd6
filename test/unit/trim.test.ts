// `trim: applied`: what every subscriber has applied leaves the stream after some time, and nothing else does.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import { effectiveTrimAfter } from '../../lib/cluster/stream-limits.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { GrowthMarks } from '../../lib/replication/positions/growth-marks.ts'
import { StreamTrimmer, type StreamTrimmerOptions } from '../../lib/replication/positions/stream-trimmer.ts'
import { formatStreamMetadata, parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { encodeFrame } from '../../lib/replication/wire/frame.ts'
import { eventually, TestClock } from '../../lib/testing.ts'
import { MemoryHost } from '../support/memory-host.ts'
import { dog, type MemoryNode, numbered, Scene } from '../support/memory-scene.ts'

/** A tenth of the time, in ms. */
const TENTH = 2_000
const trimming = { leafServer: { streams: { trim: 'applied', trimAfter: 20 } } }
const subscribe = { node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }

/** node2 and so on subscribe to node1, which trims after 20 s. */
async function star(test: TestContext, count: number, hostOptions: object = {}, clustering: object = trimming) {
  const clock = new TestClock()
  const scene = new Scene(test, { clock })
  const host = new MemoryHost([['dev', 'dog']], hostOptions)
  const one = await scene.start('node1', { clustering: { ...clustering }, host })
  const others: MemoryNode[] = []
  for (let number = 2; number <= count; number++) {
    const node = await scene.start(`node${number}`)
    await node.cluster.addNode(subscribe)
    others.push(node)
  }
  await scene.quiet()
  /** Numbers of the first and the last stored message. */
  const stored = async (node = one) => {
    const state = await node.mesh.streamState({ node: node.name, ...dog }, { timeout: 1_000 })
    return [state!.firstSequence, state!.lastSequence]
  }
  return { scene, clock, one, others, two: others[0]!, stored }
}

describe('what every subscriber has applied', { concurrency: true, timeout: 180_000 }, () => {
  it('is removed after the time, but the message at the position, without a trace in the description', async (test) => {
    const { scene, clock, one, two, stored } = await star(test, 3)
    await one.writeEach(numbered('old', 5))
    await scene.quiet()
    await clock.advance(9 * TENTH)
    assert.deepEqual(await stored(), [1, 5])
    await one.writeEach(numbered('young', 3))
    await clock.advance(3 * TENTH)
    assert.deepEqual(await stored(), [5, 8])
    await clock.advance(10 * TENTH)
    assert.deepEqual(await stored(), [8, 8])
    const state = await one.mesh.streamState({ node: 'node1', ...dog }, { timeout: 1_000 })
    const { purged, epochs } = parseStreamMetadata(state!.description)
    assert.deepEqual([purged.length, epochs.length], [0, 1])
    await one.writeEach(['last'])
    await scene.quiet()
    assert.deepEqual(two.gaps(), [])
    assert.equal(two.host.records('dev', 'dog').length, 9)
  })

  it('stays while there is no subscriber', async (test) => {
    const { clock, one, stored } = await star(test, 1)
    await one.writeEach(numbered('a', 3))
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [1, 3])
  })

  it('does not include what a node that is away has not, until it is removed', async (test) => {
    const { scene, clock, one, others, stored } = await star(test, 3)
    await one.writeEach(numbered('a', 3))
    await scene.quiet()
    await clock.advance(2_000)
    scene.network.cut('node3')
    await one.writeEach(numbered('b', 3))
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [3, 6])
    scene.network.heal()
    await eventually('node3 is back', async () => {
      await clock.advance(1_000)
      return others[1]!.host.records('dev', 'dog').length === 6
    })
    assert.deepEqual(others[1]!.gaps(), [])
    scene.network.cut('node3')
    await one.writeEach(numbered('c', 3))
    await one.cluster.removeNode({ node_name: 'node3' })
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [9, 9])
  })

  it('is not known of a node that was never heard, such as one of HarperDB; after a restart the time begins again', async (test) => {
    const { scene, clock, one, others, stored } = await star(test, 3)
    await one.writeEach(numbered('a', 3))
    await scene.quiet()
    await clock.advance(2_000)
    scene.network.cut('node3')
    await one.reopen({})
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [1, 3])
    scene.network.heal()
    await one.reopen({})
    await clock.advance(9 * TENTH)
    assert.deepEqual(await stored(), [1, 3])
    await clock.advance(4 * TENTH)
    assert.deepEqual(await stored(), [3, 3])
    assert.deepEqual(others[1]!.gaps(), [])
  })

  it('does not include what the database has not confirmed, or what is in quarantine', async (test) => {
    const { scene, clock, one, two, stored } = await star(test, 2)
    const { confirmPublished } = one.host
    one.host.confirmPublished = async () => {}
    await one.writeEach(numbered('a', 3))
    await eventually('it is applied', () => two.host.records('dev', 'dog').length === 3)
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [1, 3])
    one.host.confirmPublished = confirmPublished
    await one.writeEach(['b'])
    await scene.quiet()
    await clock.advance(15 * TENTH)
    assert.deepEqual(await stored(), [4, 4])

    const { apply } = two.host
    two.host.apply = async (batch) => {
      if (batch.transactions.length > 0) throw new Error('refused')
      return apply.call(two.host, batch)
    }
    await one.writeEach(['bad'])
    await eventually('it is refused', () => two.of(one).refused)
    await two.cluster.quarantine.add({ node: 'node1', ...dog })
    two.host.apply = apply
    await one.writeEach(numbered('c', 3))
    await clock.advance(30 * TENTH)
    assert.deepEqual(await stored(), [4, 8])
    await two.cluster.quarantine.replay({ node: 'node1', ...dog })
    await clock.advance(3 * TENTH)
    assert.deepEqual(await stored(), [8, 8])
  })

  it('is reported as expired and copied when a subscriber needs it again after all', async (test) => {
    const { scene, clock, one, two, stored } = await star(test, 2)
    await one.writeEach(numbered('a', 3))
    await scene.quiet()
    const before = [...two.host.checkpoints]
    await one.writeEach(numbered('b', 3))
    await scene.quiet()
    await clock.advance(15 * TENTH)
    assert.deepEqual(await stored(), [6, 6])
    await two.cluster.close()
    for (const [key, checkpoint] of before) two.host.checkpoints.set(key, checkpoint)
    for (const rows of two.host.rows.values()) rows.delete(JSON.stringify('b-0'))
    await two.open()
    await eventually('the rows are back', async () => {
      await clock.advance(1_000)
      return two.host.records('dev', 'dog').length === 6 && two.of(one).unrepairedGaps === undefined
    })
    assert.deepEqual(two.gaps(), [['node1', 4, 5, 'expired']])
  })

  it('stays where the database cannot serve its rows, and while nothing says otherwise', async (test) => {
    for (const [hostOptions, clustering] of [
      [{ readRows: false }, trimming],
      [{}, {}],
    ] as const) {
      const { scene, clock, one, stored } = await star(test, 2, hostOptions, clustering)
      await one.writeEach(numbered('a', 3))
      await scene.quiet()
      await clock.advance(90 * TENTH)
      assert.deepEqual(await stored(), [1, 3])
    }
    assert.equal(effectiveTrimAfter({ trim: 'applied' }, true), 3_600_000)
    assert.equal(effectiveTrimAfter({ trim: 'applied', trimAfter: 0 }, true), 0)
    assert.equal(effectiveTrimAfter({ trimAfter: 5 }, true), undefined)
  })

  it('follows an edit of the file', async (test) => {
    const { scene, clock, one, stored } = await star(test, 2)
    await one.writeEach(numbered('a', 3))
    await scene.quiet()
    await clock.advance(2_000)
    const text = await readFile(one.configFile, 'utf8')
    const edit = async (from: string, to: string) => writeFile(one.configFile, text.replace(from, to))
    const rejected = one.cluster.events.once('config:rejected')
    await edit('"applied"', '"read"')
    assert.match((await rejected).problems[0]!.message, /must be 'applied' or null/)
    await edit('20', '5')
    await eventually('it is trimmed', async () => {
      await clock.advance(1_000)
      return (await stored())[0] === 3
    })
  })
})

type Report = { epoch?: string; sequence?: number; missing?: object; isCopying?: boolean }

/**
 * What a pass removes when the subscribers have reported this. The stream has the messages 14 to 20, transactions 4 to 10 of its epoch.
 */
async function trimmedFor(reports: (Report | undefined)[], more: Partial<StreamTrimmerOptions['publisher']> = {}) {
  const trimmed: number[] = []
  let pass = () => {}
  const onEvery = (_: number, work: () => void) => {
    pass = work
    return () => {}
  }
  const position = { index: 0, missing: {}, copying: [], isCopying: false }
  const end = { epoch: 'e', sequence: 20, index: 10 }
  const epochs = [
    { epoch: 'older', from: 1, last: 10, lastIndex: 10 },
    { epoch: 'e', from: 11 },
  ]
  const description = formatStreamMetadata(dog, { epochs, purged: [] })
  const trimmer = new StreamTrimmer({
    node: 'node1',
    logger: silentLogger,
    requestTimeout: 1,
    trimAfter: () => 1_000,
    index: { publishedTables: () => [dog], subscribersOf: () => reports.map((_, at) => `node${at + 2}`) },
    replicas: {
      reportOf: ({ node }) => {
        const report = reports[Number(node.slice(4)) - 2]
        return (
          report && {
            paused: false,
            session: 's',
            at: 0,
            position: { epoch: 'e', sequence: 18, ...position, ...report } as never,
          }
        )
      },
      lastStoredAt: () => 19,
    },
    publisher: {
      endOf: () => end,
      ensure: async () => end,
      confirmedPosition: async () => end,
      trim: async (_, { before }) => void trimmed.push(before),
      ...more,
    },
    mesh: {
      state: 'connected',
      timers: { elapsed: () => 5_000, every: onEvery },
      streamState: async () => ({ description, firstSequence: 14, lastSequence: 20, messages: 7, created: '' }),
      messageAt: async (_: unknown, sequence: number) => {
        const frame = encodeFrame({ node: 'node1', epoch: 'e', first: sequence - 10 }, [new Uint8Array([1])])
        return { ...frame, sequence, time: 0, delivery: 0 }
      },
    } as never,
  })
  trimmer.start()
  trimmer.onSettings()
  pass()
  await new Promise(setImmediate)
  trimmer.close()
  return trimmed
}

describe('a report', { concurrency: true, timeout: 10_000 }, () => {
  it('counts when it is about the stream as it is', async () => {
    assert.deepEqual(await trimmedFor([{}]), [18])
    assert.deepEqual(await trimmedFor([{ sequence: 15 }, {}]), [15])
    assert.deepEqual(await trimmedFor([{ sequence: 20 }]), [19])
    assert.deepEqual(await trimmedFor([]), [])
    assert.deepEqual(await trimmedFor([{}, undefined]), [])
    assert.deepEqual(await trimmedFor([{ epoch: 'other' }, {}]), [])
    assert.deepEqual(await trimmedFor([{ sequence: 21 }]), [], 'beyond the end')
    assert.deepEqual(await trimmedFor([{ isCopying: true }]), [])
    const confirmedPosition = async () => ({ epoch: 'e', sequence: 16 })
    assert.deepEqual(await trimmedFor([{}], { confirmedPosition }), [16])
    assert.deepEqual(await trimmedFor([{}], { confirmedPosition: async () => ({ epoch: 'd', sequence: 12 }) }), [])
  })

  it('holds the stream for what is missing, as long as the stream has it', async () => {
    const missing = async (ranges: Record<string, [number, number][]>) => trimmedFor([{ missing: ranges }, {}])
    assert.deepEqual(await missing({ e: [[1, 3]] }), [18])
    assert.deepEqual(await missing({ e: [[1, 4]] }), [])
    assert.deepEqual(
      await missing({
        e: [
          [1, 1],
          [8, 8],
        ],
      }),
      [],
    )
    assert.deepEqual(await missing({ older: [[1, 10]], unknown: [[1, 1]] }), [18])
  })
})

it('the time at which a message was stored is known to some percent of its age', () => {
  const marks = new GrowthMarks()
  const last = 7_200
  for (let second = 0; second <= last; second++)
    marks.note([{ ...dog, epoch: 'e', sequence: second, index: second }], second * 1_000)
  for (const age of [1, 2, 10, 60, 600, 3_600, 7_000]) {
    const stored = marks.lastStoredAt(dog, 'e', (last - age) * 1_000)!
    assert.ok(stored <= last - age && stored >= last - age * 1.1 - 1, `${age} s ago: ${stored}`)
    const by = marks.storedBy(dog, last - age - 1)! / 1_000
    assert.ok(by >= last - age && by <= last - age * 0.9 + 1, `${age} s: ${last - by}`)
  }
  assert.equal(marks.lastStoredAt(dog, 'other', last), undefined)
})
