// The description of a stream: what it says, in which versions, and what the owner adds to it.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import {
  classifyGap,
  endEpochs,
  epochAfter,
  formatStreamMetadata,
  METADATA_VERSION,
  parseStreamMetadata,
  readStreamMetadata,
  type StreamMetadata,
  withPurge,
} from '../../lib/replication/stream-metadata.ts'

const dog = { database: 'dev', table: 'dog' }
const epochs = [
  { epoch: 'a1', from: 1, last: 100, lastIndex: 250 },
  { epoch: 'b2', from: 81 },
]

describe('the text', () => {
  it('contains the epochs and the purged ranges, by sequence and by index', () => {
    const metadata: StreamMetadata = {
      epochs: [{ epoch: 'z0', from: 0, last: 7 }, ...epochs],
      purged: [
        { from: 1, to: 5 },
        { from: 90, to: 95, firstIndex: 10, lastIndex: 60 },
      ],
    }
    const text = formatStreamMetadata(dog, metadata)
    assert.equal(text, 'dev.dog v=1 epoch=z0@0..7 epoch=a1@1..100/250 epoch=b2@81 purged=1..5 purged=90..95/10..60')
    assert.deepEqual(parseStreamMetadata(text), metadata)
    assert.deepEqual(readStreamMetadata(text), metadata)
  })

  it('has no epochs when another program writes the stream', () => {
    for (const text of ['', 'some other stream', 'dev.dog epoch=a1@1 purged=1..2', 'v=1'])
      assert.deepEqual(parseStreamMetadata(text), { epochs: [], purged: [] }, text)
  })

  it('has a limited length', () => {
    const purged = Array.from({ length: 40 }, (_, at) => ({
      from: 10 * at + 1,
      to: 10 * at + 5,
      firstIndex: 100 * at + 1,
      lastIndex: 100 * at + 50,
    }))
    assert.ok(formatStreamMetadata(dog, { epochs, purged }).length < 1_000)
  })

  it('of a later version is refused with both versions', () => {
    for (const read of [parseStreamMetadata, readStreamMetadata])
      for (const version of ['2', '', '1.0', '01'])
        assert.throws(
          () => read(`dev.dog v=${version} epoch=a1@1`),
          (error) => {
            assert.ok(error instanceof MeshError && error.code === 'rejected')
            assert.equal(
              error.message,
              `the description of the stream has version '${version}', this node reads version ${METADATA_VERSION}`,
            )
            return true
          },
        )
  })

  it('is refused when indexes are no numbers or in the wrong order', () => {
    for (const text of ['epoch=a@1..2/99999999999999999', 'epoch=a@1 purged=1..2/5..4'])
      assert.throws(() => readStreamMetadata(`dev.dog v=1 ${text}`), { code: 'rejected' }, text)
  })
})

it('shows the epoch of a sequence', () => {
  const metadata = parseStreamMetadata('dev.dog v=1 epoch=a1@1..100 epoch=b2@81')
  assert.deepEqual(
    [0, 79, 80, 200].map((sequence) => epochAfter(metadata, sequence)),
    ['a1', 'a1', 'b2', 'b2'],
  )
  assert.equal(epochAfter(parseStreamMetadata(''), 5), '')
})

describe('purged ranges', () => {
  const purge = (...ranges: [from: number, to: number, firstIndex?: number, lastIndex?: number][]) =>
    ranges.reduce(
      (metadata, [from, to, firstIndex, lastIndex]) =>
        withPurge(metadata, { from, to, ...(firstIndex && lastIndex && { firstIndex, lastIndex }) }),
      { epochs, purged: [] } as StreamMetadata,
    ).purged

  it('show why messages are gone', () => {
    const metadata = { epochs, purged: purge([11, 20], [21, 30], [41, 50]) }
    const texts = (from: number, to: number, first = 1000) =>
      classifyGap(metadata, { sequence: from }, { sequence: to }, first)
        .map((gap) => `${gap.from.sequence}-${gap.to.sequence} ${gap.reason}`)
        .join(', ')
    assert.equal(texts(1, 60), '1-10 expired, 11-30 purged, 31-40 expired, 41-50 purged, 51-60 expired')
    assert.equal(texts(15, 25), '15-25 purged')
    assert.equal(texts(30, 31), '30-30 purged, 31-31 expired')
    assert.equal(texts(51, 60, 1), '51-60 purged', 'retention removes only the oldest messages')
    const [from, to] = [{ sequence: 1 }, { sequence: 3 }]
    assert.deepEqual(classifyGap(parseStreamMetadata(''), from, to, 9), [{ from, to, reason: 'purged' }])
  })

  it('tell how many transactions are gone on both sides of them', () => {
    const metadata = { epochs, purged: purge([3, 4, 30, 49], [7, 9, 70, 99]) }
    const texts = (from: [number, number?], to: [number, number?]) =>
      classifyGap(metadata, { sequence: from[0], index: from[1] }, { sequence: to[0], index: to[1] }, 1000)
        .map((gap) => `${gap.from.index}-${gap.to.index} ${gap.reason}`)
        .join(', ')
    assert.equal(texts([1, 1], [10, 109]), '1-29 expired, 30-49 purged, 50-69 expired, 70-99 purged, 100-109 expired')
    assert.equal(texts([4, 45], [6, 66]), '45-49 purged, 50-66 expired', 'it begins inside a message')
    assert.equal(texts([4, 45], [9]), '45-49 purged, 50-69 expired, 70-99 purged', 'nothing is behind it')
    assert.equal(texts([4, 45], [8]), '45-49 purged, 50-69 expired, 70-undefined purged')
    assert.equal(texts([1], [2]), 'undefined-undefined expired')
    assert.equal(
      texts([4, 200], [6, 300]),
      '200-undefined purged, undefined-300 expired',
      'the range is of another stream',
    )
  })

  it('are joined when sequences and indexes continue', () => {
    assert.deepEqual(purge([1, 2, 1, 9], [3, 5, 10, 30]), [{ from: 1, to: 5, firstIndex: 1, lastIndex: 30 }])
    assert.deepEqual(purge([1, 2], [3, 5]), [{ from: 1, to: 5 }])
    assert.equal(purge([1, 2, 1, 9], [4, 5, 10, 30]).length, 2, 'a message in between expired')
    assert.equal(purge([1, 2, 1, 9], [3, 5, 1, 30]).length, 2, 'another epoch')
    assert.equal(purge([1, 2, 1, 9], [3, 5]).length, 2, 'its indexes are unknown')
    assert.equal(purge([1, 2], [3, 5, 10, 30]).length, 2)
  })

  it('stay sorted without overlaps when the store lost its messages and begins at 1 again', () => {
    assert.deepEqual(purge([1, 20], [30, 40], [50, 60], [15, 35]), [
      { from: 15, to: 35 },
      { from: 50, to: 60 },
    ])
  })
})

describe('the end of an epoch', () => {
  const ended = (known?: { epoch: string; sequence: number; index: number }, last: object = {}) =>
    endEpochs(epochs, known, { sequence: 99, ...last })

  it('is the confirmed position, by sequence and by index', () => {
    assert.deepEqual(ended({ epoch: 'b2', sequence: 90, index: 40 }), [
      epochs[0],
      { epoch: 'b2', from: 81, last: 90, lastIndex: 40 },
    ])
  })

  it('stays as it is when the database has an older position of an epoch that has ended', () => {
    assert.deepEqual(ended({ epoch: 'a1', sequence: 7, index: 30 })[0], epochs[0])
  })

  it('is the last message for an epoch without a confirmed position, with its index if that can be read', () => {
    assert.deepEqual(ended()[1], { epoch: 'b2', from: 81, last: 99 })
    assert.deepEqual(ended(undefined, { epoch: 'b2', index: 55 })[1], {
      epoch: 'b2',
      from: 81,
      last: 99,
      lastIndex: 55,
    })
    assert.deepEqual(ended(undefined, { epoch: 'x', index: 55 })[1], { epoch: 'b2', from: 81, last: 99 })
  })

  it('is included when its stream is gone', () => {
    assert.deepEqual(ended({ epoch: 'c3', sequence: 5, index: 12 })[0], {
      epoch: 'c3',
      from: 0,
      last: 5,
      lastIndex: 12,
    })
  })
})
