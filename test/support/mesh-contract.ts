// What every implementation of the Mesh port must do: one suite, run by each of them.

import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Entry,
  type ExpectedLast,
  type Mesh,
  MeshError,
  type MeshListener,
  type MeshState,
  type Message,
  type Reader,
  type RemoteTable,
  type TableName,
} from '../../lib/mesh/mesh.ts'
import { eventually, freePorts } from './cluster.ts'

/** A mesh and what its listener was told. */
export type OpenMesh = { node: string; mesh: Mesh; states: MeshState[]; refusals: string[]; links: number }

/** Nodes that reach each other, on an implementation of the port. Node names need not exist before. */
export interface ContractNetwork {
  /** An open mesh of this node, on the streams of its last one. When one of that name is open, another node of the same name. */
  mesh(node: string): Promise<OpenMesh>
  /** The server of its streams dies, and is started anew some time after that. */
  interrupt(node: string): Promise<void>
  /** Its way to the other nodes breaks, and is made anew some time after that. */
  relink(node: string): Promise<void>
  /** Whatever was opened ends, also after a failure. */
  close(): Promise<void>
}

/** A listener that notes what it is told in `open`. */
export const noting = (open: OpenMesh): MeshListener => ({
  state: (state) => void open.states.push(state),
  rejected: (peer) => void open.refusals.push(peer),
  linked: () => void open.links++,
})

export const unopened = (node: string, mesh: Mesh): OpenMesh => ({ node, mesh, states: [], refusals: [], links: 0 })

const TIMEOUT = 5_000
const patient = { timeout: TIMEOUT }
const text = new TextEncoder()
const bytes = (value: string) => text.encode(value)
const textOf = (data: Uint8Array) => new TextDecoder().decode(data)
const code = (expected: MeshError['code']) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error))
  assert.equal(error.code, expected)
  return true
}

type Appended = { error: MeshError | undefined; sequence: number }
const message = (body: string, headers: Record<string, string> = {}): Message => ({ data: bytes(body), headers })

/** Rejects with the MeshError that the append ended with. */
const append = (mesh: Mesh, table: TableName, body: Message, expected: ExpectedLast) =>
  new Promise<number>((resolve, reject) => {
    mesh.append(table, body, expected, (error, sequence) => (error ? reject(error) : resolve(sequence)))
  })

/** Bodies `0` to `count - 1` behind what is there, all in flight at once. */
async function fill(mesh: Mesh, table: TableName, count: number, from = 0): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      append(mesh, table, message(String(from + index)), { sequence: from + index }),
    ),
  )
}

/** Reads until `count` entries are there. */
async function take(reader: Reader, count: number): Promise<Entry[]> {
  const entries: Entry[] = []
  while (entries.length < count) entries.push(...(await reader.next()))
  return entries
}

const sequences = (entries: readonly Entry[]) => entries.map(({ sequence }) => sequence)
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)

export function meshContract(name: string, createNetwork: () => Promise<ContractNetwork> | ContractNetwork): void {
  describe(`${name} keeps the contract of the mesh`, () => {
    let network: ContractNetwork
    let one: OpenMesh
    let two: OpenMesh
    let tables = 0
    /** A table that no other test uses. */
    const table = (): TableName => ({ database: 'dev', table: `table${++tables}` })
    const at = (open: OpenMesh, where: TableName): RemoteTable => ({ node: open.node, ...where })
    /** Resolves when they hear each other's requests; both serve from then on. */
    const met = async (a: OpenMesh, b: OpenMesh) => {
      for (const each of [a, b]) each.mesh.serve(async (data) => data)
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const)
        await eventually(`${from.node} reaches ${to.node}`, () =>
          from.mesh.request(to.node, bytes('?'), { timeout: 500 }).then(
            () => true,
            () => false,
          ),
        )
    }
    /** A stream of node1 with the bodies `0` to `count - 1`. */
    const filled = async (count: number, open = one) => {
      const where = table()
      await open.mesh.ensureStream(where, '')
      await fill(open.mesh, where, count)
      return where
    }

    before(async () => {
      network = await createNetwork()
      one = await network.mesh('node1')
      two = await network.mesh('node2')
      await met(one, two)
    })
    after(() => network?.close())

    describe('open', () => {
      it('tells the states on the way', () => {
        assert.deepEqual(one.states, ['connecting', 'connected'])
        assert.equal(one.mesh.state, 'connected')
      })

      it('has a session, and another than other nodes', () => {
        assert.notEqual(one.mesh.session, '')
        assert.notEqual(one.mesh.session, two.mesh.session)
      })
    })

    describe('request', () => {
      const refusedBy = async (node: string, handler: () => Promise<Uint8Array>, options = { timeout: 100 }) => {
        const open = await network.mesh(node)
        try {
          await met(one, open)
          open.mesh.serve(handler)
          await eventually(`${node} is asked`, () =>
            one.mesh.request(node, bytes('?'), options).then(
              () => false,
              (error) => {
                code('timeout')(error)
                return true
              },
            ),
          )
        } finally {
          await open.mesh.close()
        }
      }

      it('brings the question there and the answer back, whatever the bytes are', async () => {
        const question = Uint8Array.from(range(0, 255))
        const answer = await one.mesh.request('node2', question, patient)
        assert.deepEqual([...answer], [...question])
      })

      it('reaches oneself', async () => {
        assert.equal(textOf(await one.mesh.request('node1', bytes('self'), patient)), 'self')
      })

      it('has many under way at once, each with its own answer', async () => {
        const answers = await Promise.all(
          range(1, 50).map(async (each) => textOf(await one.mesh.request('node2', bytes(`${each}`), patient))),
        )
        assert.deepEqual(
          answers,
          range(1, 50).map((each) => `${each}`),
        )
      })

      it('rejects no_responders when there is nobody of that name', async () => {
        await assert.rejects(one.mesh.request('nobody', bytes('?'), patient), code('no_responders'))
      })

      it('rejects no_responders when that node does not serve', async () => {
        const open = await network.mesh('mute')
        await eventually('the stream of the mute node is seen', () =>
          one.mesh.streamState({ node: 'mute', ...table() }, { timeout: 500 }).then(
            () => true,
            () => false,
          ),
        )
        await assert.rejects(one.mesh.request('mute', bytes('?'), patient), code('no_responders'))
        await open.mesh.close()
      })

      it('rejects timeout when there is no answer', () => refusedBy('slow', () => new Promise(() => {})))

      it('rejects timeout when the handler fails', () =>
        refusedBy('broken', () => Promise.reject(new Error('cannot answer'))))

      it('rejects aborted, at once when it was before', async () => {
        const options = { timeout: TIMEOUT, signal: AbortSignal.abort() }
        await assert.rejects(one.mesh.request('node2', bytes('?'), options), code('aborted'))
      })

      it('rejects aborted while it waits', async () => {
        const stopping = new AbortController()
        const stuck = await network.mesh('stuck')
        await met(one, stuck)
        let asked = () => {}
        const question = new Promise<void>((resolve) => {
          asked = resolve
        })
        stuck.mesh.serve(() => {
          asked()
          return new Promise(() => {})
        })
        // Until nobody of the handlers before answers.
        const request = (async () => {
          for (;;) await one.mesh.request('stuck', bytes('?'), { timeout: TIMEOUT, signal: stopping.signal })
        })()
        await question
        stopping.abort()
        await assert.rejects(request, code('aborted'))
        await stuck.mesh.close()
      })
    })

    describe('announce', () => {
      it('reaches every node, oneself too, in order', async () => {
        const heard: string[][] = [[], []]
        for (const [index, { mesh }] of [one, two].entries()) mesh.listen((data) => heard[index]!.push(textOf(data)))
        // That somebody listens has to come round first.
        await eventually('both are heard by', () => {
          one.mesh.announce(bytes('probe'))
          return heard.every((each) => each.length > 0)
        })
        const all = range(1, 20).map((each) => `news ${each}`)
        for (const each of all) one.mesh.announce(bytes(each))
        for (const each of heard) {
          const news = () => each.filter((item) => item !== 'probe')
          await eventually('all are heard', () => news().length >= all.length)
          assert.deepEqual(news(), all)
        }
      })
    })

    describe('ensureStream, describeStream, streamState', () => {
      it('creates an empty stream with its description', async () => {
        const where = table()
        const state = await one.mesh.ensureStream(where, 'of dogs')
        assert.deepEqual(
          { ...state, created: '' },
          { description: 'of dogs', created: '', firstSequence: 1, lastSequence: 0, messages: 0 },
        )
        assert.notEqual(state.created, '')
      })

      it('leaves one that is there as it is', async () => {
        const where = await filled(3)
        const before = await one.mesh.streamState(at(one, where), patient)
        assert.deepEqual(await one.mesh.ensureStream(where, 'another description'), before)
        assert.equal(before?.lastSequence, 3)
      })

      it('describes anew without touching the rest', async () => {
        const where = await filled(2)
        const before = await one.mesh.ensureStream(where, '')
        await one.mesh.describeStream(where, 'new')
        assert.deepEqual(await one.mesh.ensureStream(where, ''), { ...before, description: 'new' })
      })

      it('cannot describe what is missing: not_found', async () => {
        await assert.rejects(one.mesh.describeStream(table(), 'new'), code('not_found'))
      })

      it('keeps streams of tables and of nodes apart', async () => {
        const [here, there] = [table(), table()]
        await one.mesh.ensureStream(here, 'here')
        await two.mesh.ensureStream(there, 'there')
        for (const { mesh } of [one, two]) {
          assert.equal((await mesh.streamState(at(one, here), patient))?.description, 'here')
          assert.equal((await mesh.streamState(at(two, there), patient))?.description, 'there')
          assert.equal(await mesh.streamState(at(two, here), patient), undefined)
          assert.equal(await mesh.streamState(at(one, there), patient), undefined)
        }
      })

      it('rejects no_responders and aborted', async () => {
        await assert.rejects(one.mesh.streamState({ node: 'nobody', ...table() }, patient), code('no_responders'))
        const options = { timeout: TIMEOUT, signal: AbortSignal.abort() }
        await assert.rejects(one.mesh.streamState(at(two, table()), options), code('aborted'))
      })
    })

    describe('append', () => {
      it('numbers messages from 1, in the order of the calls, done once each and not during the call', async () => {
        const where = table()
        await one.mesh.ensureStream(where, '')
        const done: Appended[] = []
        for (const sequence of range(0, 99))
          one.mesh.append(where, message(`${sequence}`), { sequence }, (error, given) =>
            done.push({ error, sequence: given }),
          )
        assert.equal(done.length, 0)
        await eventually('all are done', () => done.length >= 100)
        await delay(20)
        assert.deepEqual(
          done,
          range(1, 100).map((sequence) => ({ error: undefined, sequence })),
        )
        const state = await one.mesh.streamState(at(one, where), patient)
        assert.deepEqual([state?.firstSequence, state?.lastSequence, state?.messages], [1, 100, 100])
      })

      it('refuses what does not follow: wrong_sequence, and nothing is stored', async () => {
        const where = await filled(2)
        for (const sequence of [0, 1, 3])
          await assert.rejects(append(one.mesh, where, message('x'), { sequence }), code('wrong_sequence'))
        assert.equal((await one.mesh.streamState(at(one, where), patient))?.lastSequence, 2)
        assert.equal(await append(one.mesh, where, message('x'), { sequence: 2 }), 3)
      })

      it('refuses what follows something refused', async () => {
        const where = await filled(1)
        const ends = await Promise.allSettled(
          [1, 3, 3, 4].map((sequence) => append(one.mesh, where, message('x'), { sequence })),
        )
        assert.deepEqual(
          ends.map((end) => (end.status === 'fulfilled' ? end.value : end.reason.code)),
          [2, 'wrong_sequence', 'wrong_sequence', 'wrong_sequence'],
        )
      })

      it('goes by the id of the last message, where one is given', async () => {
        const where = table()
        await one.mesh.ensureStream(where, '')
        const id = (value: string) => message(value, { 'Nats-Msg-Id': `${where.table} ${value}` })
        assert.equal(await append(one.mesh, where, id('a'), { sequence: 0 }), 1)
        await assert.rejects(
          append(one.mesh, where, id('b'), { sequence: 1, id: `${where.table} z` }),
          code('wrong_sequence'),
        )
        await assert.rejects(
          append(one.mesh, where, id('b'), { sequence: 0, id: `${where.table} a` }),
          code('wrong_sequence'),
        )
        assert.equal(await append(one.mesh, where, id('b'), { sequence: 1, id: `${where.table} a` }), 2)
        assert.equal(await append(one.mesh, where, id('c'), { sequence: 2 }), 3)
      })

      it('has one writer win of two that expect the same', async () => {
        const where = await filled(1)
        const ends = await Promise.allSettled(
          ['a', 'b'].map((body) => append(one.mesh, where, message(body), { sequence: 1 })),
        )
        assert.deepEqual(
          ends.map(({ status }) => status),
          ['fulfilled', 'rejected'],
        )
      })

      it('needs the stream: not_found', async () => {
        await assert.rejects(append(one.mesh, table(), message('x'), { sequence: 0 }), code('not_found'))
      })

      it('refuses what is too large, later and without throwing', async () => {
        const where = await filled(0)
        assert.ok(one.mesh.maxPayload > 1024 * 1024)
        const large = { data: new Uint8Array(Math.max(one.mesh.maxPayload, 64 * 1024 * 1024) + 1), headers: {} }
        await assert.rejects(append(one.mesh, where, large, { sequence: 0 }), code('too_large'))
        assert.equal(await append(one.mesh, where, message('small'), { sequence: 0 }), 1)
      })

      it('stores bytes and headers as they were given', async () => {
        const where = table()
        await one.mesh.ensureStream(where, '')
        const data = Uint8Array.from(range(0, 255))
        const headers = { origin: 'node1', 'Nats-Msg-Id': `${where.table} id`, Epoch: 'é 1' }
        const given = { ...headers }
        const stored = append(one.mesh, where, { data, headers: given }, { sequence: 0 })
        given.origin = 'changed'
        await stored
        const reader = await two.mesh.read(at(one, where), 1, { ...patient, maxMessages: 10 })
        const [entry] = await reader.next()
        reader.close()
        assert.deepEqual([...entry!.data], range(0, 255))
        for (const [key, value] of Object.entries(headers)) assert.equal(entry!.headers[key], value)
      })
    })

    describe('purgeStream', () => {
      const stateAfter = async (count: number, options: { keep?: number; before?: number }) => {
        const where = await filled(count)
        await one.mesh.purgeStream(where, options)
        const { firstSequence, lastSequence, messages } = (await one.mesh.streamState(at(one, where), patient))!
        assert.equal(lastSequence, count)
        assert.equal(await append(one.mesh, where, message('next'), { sequence: count }), count + 1)
        return [firstSequence, messages]
      }

      it('keeps the last few', async () => assert.deepEqual(await stateAfter(5, { keep: 2 }), [4, 2]))
      it('keeps all when there are fewer', async () => assert.deepEqual(await stateAfter(3, { keep: 9 }), [1, 3]))
      it('removes what is before a sequence', async () => assert.deepEqual(await stateAfter(5, { before: 3 }), [3, 3]))
      it('removes nothing before the first', async () => assert.deepEqual(await stateAfter(3, { before: 1 }), [1, 3]))
      it('removes nothing before 0', async () => assert.deepEqual(await stateAfter(3, { before: 0 }), [1, 3]))
      it('removes all before what lies beyond the end, and the next is the next', async () => {
        assert.deepEqual(await stateAfter(3, { before: 4 }), [4, 0])
        assert.deepEqual(await stateAfter(3, { before: 1_000 }), [4, 0])
      })
      it('removes all', async () => {
        assert.deepEqual(await stateAfter(3, {}), [4, 0])
        assert.deepEqual(await stateAfter(3, { keep: 0 }), [4, 0])
      })
      it('of an empty stream, and again', async () => {
        assert.deepEqual(await stateAfter(0, {}), [1, 0])
        const where = await filled(4)
        await one.mesh.purgeStream(where, { before: 3 })
        await one.mesh.purgeStream(where, { before: 2 })
        await one.mesh.purgeStream(where, { keep: 1 })
        const state = await one.mesh.streamState(at(one, where), patient)
        assert.deepEqual([state?.firstSequence, state?.lastSequence, state?.messages], [4, 4, 1])
      })
      it('does nothing when there is no stream', async () => {
        const where = table()
        await one.mesh.purgeStream(where, {})
        await one.mesh.purgeStream(where, { keep: 1 })
        await one.mesh.purgeStream(where, { before: 1 })
        assert.equal(await one.mesh.streamState(at(one, where), patient), undefined)
      })
    })

    describe('setLimits', () => {
      const bound = (open: OpenMesh, where: TableName) =>
        open.mesh.streamState(at(open, where), patient).then((state) => [state!.firstSequence, state!.messages])
      /** A node of its own: the limits are those of all its streams. */
      const limited = async (node: string, work: (open: OpenMesh) => Promise<void>) => {
        const open = await network.mesh(node)
        try {
          await work(open)
        } finally {
          await open.mesh.close()
        }
      }

      it('bounds the number of messages of every stream, those there are and those to come', () =>
        limited('counted', async (open) => {
          const streams = [await filled(5, open), await filled(2, open), await filled(9, open)]
          await open.mesh.setLimits({ maxMsgs: 3 })
          assert.deepEqual(await Promise.all(streams.map((where) => bound(open, where))), [
            [3, 3],
            [1, 2],
            [7, 3],
          ])
          assert.equal(await append(open.mesh, streams[0]!, message('next'), { sequence: 5 }), 6)
          assert.deepEqual(await bound(open, streams[0]!), [4, 3])
          assert.deepEqual(await bound(open, await filled(7, open)), [5, 3])
          await open.mesh.setLimits({})
          const where = await filled(7, open)
          assert.deepEqual(await bound(open, where), [1, 7])
          assert.deepEqual(await bound(open, streams[0]!), [4, 3])
        }))

      it('bounds the size', () =>
        limited('weighed', async (open) => {
          const where = table()
          await open.mesh.ensureStream(where, '')
          const large = { data: new Uint8Array(10_000), headers: {} }
          for (const sequence of range(0, 9)) await append(open.mesh, where, large, { sequence })
          await open.mesh.setLimits({ maxBytes: 45_000 })
          assert.deepEqual(await bound(open, where), [7, 4])
          await append(open.mesh, where, large, { sequence: 10 })
          assert.deepEqual(await bound(open, where), [8, 4])
        }))

      it('bounds the age, also of what is there', () =>
        limited('aged', async (open) => {
          const where = await filled(3, open)
          await open.mesh.setLimits({ maxAge: 1 })
          await delay(700)
          await append(open.mesh, where, message('young'), { sequence: 3 })
          await eventually('the old are gone', async () => (await bound(open, where))[0] === 4)
          await eventually('all are gone', async () => (await bound(open, where))[1] === 0)
          assert.deepEqual(await bound(open, where), [5, 0])
          assert.equal(await append(open.mesh, where, message('next'), { sequence: 4 }), 5)
        }))

      it('leaves the description, also when both change at once', () =>
        limited('described', async (open) => {
          const where = await filled(1, open)
          for (const round of range(1, 10)) {
            await Promise.all([
              open.mesh.describeStream(where, `round ${round}`),
              open.mesh.setLimits({ maxMsgs: 100 + round }),
              open.mesh.ensureStream(where, ''),
            ])
            assert.equal((await open.mesh.streamState(at(open, where), patient))?.description, `round ${round}`)
          }
        }))

      it('may be set while it is disconnected', () =>
        limited('later', async (open) => {
          const where = await filled(5, open)
          await network.interrupt('later')
          await eventually('it notices', () => open.states.includes('disconnected'))
          await open.mesh.setLimits({ maxMsgs: 2 })
          await eventually('it is back', () => open.mesh.state === 'connected')
          await eventually('they hold', async () => (await bound(open, where))[1] === 2)
        }))

      it('shows a reader what it takes away as a jump of the sequence', () =>
        limited('overtaken', async (open) => {
          const where = await filled(10, open)
          const reader = await open.mesh.read(at(open, where), 1, { ...patient, maxMessages: 2 })
          assert.deepEqual(sequences(await take(reader, 2)), [1, 2])
          // What it was sent already is its own.
          await delay(50)
          await open.mesh.setLimits({ maxMsgs: 3 })
          const entries = await take(reader, 5)
          assert.deepEqual(sequences(entries), [3, 4, 8, 9, 10])
          reader.close()
        }))
    })

    describe('sequenceAt', () => {
      it('finds the first message at or after a time', async () => {
        const where = await filled(2)
        await delay(20)
        const between = Date.now()
        await delay(20)
        await fill(one.mesh, where, 2, 2)
        for (const { mesh } of [one, two]) {
          const source = at(one, where)
          assert.equal(await mesh.sequenceAt(source, between - 60_000, patient), 1)
          assert.equal(await mesh.sequenceAt(source, between, patient), 3)
          assert.equal(await mesh.sequenceAt(source, Date.now() + 60_000, patient), 5)
        }
      })

      it('is one behind the last of an empty stream', async () => {
        const empty = await filled(0)
        assert.equal(await two.mesh.sequenceAt(at(one, empty), Date.now(), patient), 1)
        const purged = await filled(3)
        await one.mesh.purgeStream(purged, {})
        assert.equal(await two.mesh.sequenceAt(at(one, purged), 0, patient), 4)
      })

      it('is the first that is still there when that is older than the stream', async () => {
        const where = await filled(5)
        await one.mesh.purgeStream(where, { before: 3 })
        assert.equal(await two.mesh.sequenceAt(at(one, where), 0, patient), 3)
      })

      it('rejects not_found, no_responders, aborted', async () => {
        await assert.rejects(one.mesh.sequenceAt(at(two, table()), 0, patient), code('not_found'))
        await assert.rejects(one.mesh.sequenceAt({ node: 'nobody', ...table() }, 0, patient), code('no_responders'))
        const options = { timeout: TIMEOUT, signal: AbortSignal.abort() }
        await assert.rejects(one.mesh.sequenceAt(at(two, await filled(1, two)), 0, options), code('aborted'))
      })
    })

    describe('read', () => {
      const options = { ...patient, maxMessages: 100 }

      it('gives what is there and what comes, in order, once, numbered from 1', async () => {
        const where = await filled(3)
        const started = Date.now()
        for (const { mesh } of [one, two]) {
          const reader = await mesh.read(at(one, where), 1, options)
          const entries = await take(reader, 3)
          assert.deepEqual(sequences(entries), [1, 2, 3])
          assert.deepEqual(
            entries.map(({ delivery }) => delivery),
            [1, 2, 3],
          )
          assert.deepEqual(
            entries.map(({ data }) => textOf(data)),
            ['0', '1', '2'],
          )
          for (const { time } of entries) assert.ok(Math.abs(time - started) < 30_000, `${time}`)
          reader.close()
        }
        const reader = await two.mesh.read(at(one, where), 4, options)
        const next = reader.next()
        await fill(one.mesh, where, 1, 3)
        assert.deepEqual(sequences(await next), [4])
        await fill(one.mesh, where, 2, 4)
        const later = await take(reader, 2)
        assert.deepEqual(sequences(later), [5, 6])
        assert.deepEqual(
          later.map(({ delivery }) => delivery),
          [2, 3],
        )
        reader.close()
      })

      it('begins where it is asked to, or at the first that is there', async () => {
        const where = await filled(6)
        await one.mesh.purgeStream(where, { before: 3 })
        for (const [sequence, first] of [
          [0, 3],
          [1, 3],
          [3, 3],
          [5, 5],
        ] as const) {
          const reader = await two.mesh.read(at(one, where), sequence, options)
          const [entry] = await reader.next()
          assert.deepEqual([entry?.sequence, entry?.delivery], [first, 1])
          reader.close()
        }
      })

      it('begins at the end when that is before where it is asked to', async () => {
        const where = await filled(2)
        const reader = await two.mesh.read(at(one, where), 50, options)
        await fill(one.mesh, where, 1, 2)
        assert.deepEqual(sequences(await reader.next()), [3])
        reader.close()
      })

      it('waits on an empty stream', async () => {
        const where = await filled(0)
        const reader = await two.mesh.read(at(one, where), 1, options)
        const next = reader.next()
        await delay(50)
        await fill(one.mesh, where, 1)
        assert.deepEqual(sequences(await next), [1])
        reader.close()
      })

      it('holds no more than maxMessages, and gives all the same', async () => {
        const where = await filled(500)
        for (const maxMessages of [1, 7, 1_000]) {
          const reader = await two.mesh.read(at(one, where), 1, { ...patient, maxMessages })
          const all: Entry[] = []
          while (all.length < 500) {
            if (all.length < 3 * maxMessages) await delay(20)
            const entries = await reader.next()
            assert.ok(entries.length >= 1 && entries.length <= maxMessages, `${entries.length} of ${maxMessages}`)
            all.push(...entries)
          }
          assert.deepEqual(sequences(all), range(1, 500))
          assert.deepEqual(
            all.map(({ delivery }) => delivery),
            range(1, 500),
          )
          reader.close()
        }
      })

      it('shows what was purged under it as a jump of the sequence, not of the delivery', async () => {
        const where = await filled(2)
        const reader = await two.mesh.read(at(one, where), 1, { ...patient, maxMessages: 2 })
        assert.deepEqual(sequences(await take(reader, 2)), [1, 2])
        // What it was sent already is its own.
        await delay(50)
        const stop = await one.mesh.streamState(at(one, where), patient)
        assert.equal(stop?.lastSequence, 2)
        reader.close()
        await fill(one.mesh, where, 8, 2)
        const other = await two.mesh.read(at(one, where), 3, { ...patient, maxMessages: 2 })
        await delay(50)
        await one.mesh.purgeStream(where, { before: 9 })
        const entries = await take(other, 4)
        assert.deepEqual(sequences(entries), [3, 4, 9, 10])
        assert.deepEqual(
          entries.map(({ delivery }) => delivery),
          [1, 2, 3, 4],
        )
        other.close()
      })

      it('has several readers of one stream that do not disturb each other', async () => {
        const where = await filled(20)
        const readers = await Promise.all(
          [one, two, two].map(({ mesh }) => mesh.read(at(one, where), 1, { ...patient, maxMessages: 3 })),
        )
        const all = await Promise.all(readers.map((reader) => take(reader, 20)))
        for (const entries of all) assert.deepEqual(sequences(entries), range(1, 20))
        for (const reader of readers) reader.close()
      })

      it('is lost when it is closed: who waits and who asks later', async () => {
        const where = await filled(0)
        const reader = await two.mesh.read(at(one, where), 1, options)
        const waiting = assert.rejects(reader.next(), code('reader_lost'))
        reader.close()
        reader.close()
        await waiting
        await assert.rejects(reader.next(), code('reader_lost'))
        await fill(one.mesh, where, 1)
        await assert.rejects(reader.next(), code('reader_lost'))
      })

      it('rejects not_found, no_responders, aborted', async () => {
        await assert.rejects(one.mesh.read(at(two, table()), 1, options), code('not_found'))
        await assert.rejects(one.mesh.read({ node: 'nobody', ...table() }, 1, options), code('no_responders'))
        const where = await filled(1, two)
        const aborted = { ...options, signal: AbortSignal.abort() }
        await assert.rejects(one.mesh.read(at(two, where), 1, aborted), code('aborted'))
      })
    })

    describe('members, setRoutes', () => {
      it('are all that answer, ours first, then by name', async () => {
        const zero = await network.mesh('node0')
        const members = await eventually('all three see each other', async () => {
          const found = await two.mesh.members({ timeout: 1_000 })
          const whole = found.length === 3 && found.every(({ connectedNodes }) => connectedNodes.length === 2)
          return whole && found
        })
        assert.deepEqual(
          members.map(({ node, connectedNodes }) => [node, connectedNodes]),
          [
            ['node2', ['node0', 'node1']],
            ['node0', ['node1', 'node2']],
            ['node1', ['node0', 'node2']],
          ],
        )
        for (const { responseTime } of members) assert.ok(responseTime >= 0 && responseTime <= 1_000)
        await zero.mesh.close()
        await eventually(
          'the closed one is gone',
          async () => (await two.mesh.members({ timeout: 1_000 })).length === 2,
        )
      })

      it('show the routes that are set', async () => {
        const routesOf = async () => (await one.mesh.members({ timeout: 1_000 }))[0]!.routes
        const before = await routesOf()
        const [port = 0] = await freePorts(1)
        const hub = [...before, { host: '127.0.0.1', port }]
        await one.mesh.setRoutes({ hub, leaf: [] })
        assert.deepEqual(await routesOf(), hub)
        await one.mesh.setRoutes({ hub: before, leaf: [] })
        assert.deepEqual(await routesOf(), before)
        assert.equal(textOf(await one.mesh.request('node2', bytes('still'), patient)), 'still')
      })

      it('rejects aborted', async () => {
        const options = { timeout: TIMEOUT, signal: AbortSignal.abort() }
        await assert.rejects(one.mesh.members(options), code('aborted'))
      })
    })

    describe('when the server of the streams is started anew', () => {
      it('is disconnected meanwhile, then goes on in another session with the same streams', async () => {
        const open = await network.mesh('restarted')
        await met(open, two)
        const { mesh } = open
        const where = await filled(3, open)
        const before = await mesh.streamState(at(open, where), patient)
        const { session } = mesh
        const own = await mesh.read(at(open, where), 4, { ...patient, maxMessages: 10 })
        const others = await mesh.read(at(two, await filled(0, two)), 1, { ...patient, maxMessages: 10 })
        const lost = [own, others].map((reader) => assert.rejects(reader.next(), code('reader_lost')))

        const done: (MeshError['code'] | undefined)[][] = range(3, 52).map(() => [])
        for (const [index, calls] of done.entries())
          mesh.append(where, message('x'), { sequence: 3 + index }, (error) => calls.push(error?.code))
        await network.interrupt('restarted')
        await eventually('it notices', () => open.states.includes('disconnected'))
        await eventually('it is back', () => mesh.state === 'connected')
        assert.deepEqual(open.states, ['connecting', 'connected', 'disconnected', 'connected'])
        await Promise.all(lost)

        await eventually('every append is done', () => done.every((calls) => calls.length > 0))
        await delay(50)
        for (const calls of done) {
          assert.equal(calls.length, 1)
          assert.ok(calls[0] === undefined || calls[0] === 'disconnected', calls[0])
        }
        const acknowledged = done.filter(([error]) => error === undefined).length
        const after = (await mesh.streamState(at(open, where), patient))!
        assert.ok(after.lastSequence >= 3 + acknowledged && after.lastSequence <= 53, `${after.lastSequence}`)
        assert.equal(after.created, before?.created)

        assert.notEqual(mesh.session, session)
        const next = { sequence: after.lastSequence }
        assert.equal(await append(mesh, where, message('y'), next), after.lastSequence + 1)
        // What was served and heard before is served and heard still.
        await eventually('it is reached again', () =>
          two.mesh.request('restarted', bytes('again'), { timeout: 500 }).then(
            (answer) => textOf(answer) === 'again',
            () => false,
          ),
        )
        await mesh.close()
      })

      it('refuses everything while it is disconnected', async () => {
        const open = await network.mesh('down')
        const { mesh } = open
        const where = await filled(1, open)
        const rejected: Promise<void>[] = []
        const refuse = () => {
          const disconnected = code('disconnected')
          const source = at(open, where)
          rejected.push(
            assert.rejects(mesh.request('node1', bytes('?'), patient), disconnected),
            assert.rejects(mesh.ensureStream(where, ''), disconnected),
            assert.rejects(mesh.streamState(source, patient), disconnected),
            assert.rejects(mesh.sequenceAt(source, 0, patient), disconnected),
            assert.rejects(mesh.read(source, 1, { ...patient, maxMessages: 1 }), disconnected),
            assert.rejects(append(mesh, where, message('x'), { sequence: 1 }), disconnected),
          )
          assert.throws(() => mesh.listen(() => {}), disconnected)
          mesh.announce(bytes('lost'))
        }
        const interrupted = network.interrupt('down')
        await eventually('it notices', () => {
          if (mesh.state === 'disconnected' && rejected.length === 0) refuse()
          return rejected.length > 0
        })
        await Promise.all([interrupted, ...rejected])
        await eventually('it is back', () => mesh.state === 'connected')
        await mesh.close()
      })
    })

    describe('when the way to the others is made anew', () => {
      it('is told, and readers of other nodes are lost', async () => {
        const open = await network.mesh('relinked')
        await met(open, one)
        const reader = await open.mesh.read(at(one, await filled(0)), 1, { ...patient, maxMessages: 10 })
        const lost = assert.rejects(reader.next(), code('reader_lost'))
        const { links } = open
        await network.relink('relinked')
        await eventually('it is told', () => open.links > links)
        await lost
        await met(open, one)
        assert.equal(open.mesh.state, 'connected')
        await open.mesh.close()
      })
    })

    describe('close', () => {
      it('ends everything, and is one however often', async () => {
        const open = await network.mesh('ending')
        await met(open, two)
        const { mesh } = open
        const where = await filled(1, open)
        const reader = await mesh.read(at(two, await filled(0, two)), 1, { ...patient, maxMessages: 10 })
        const lost = assert.rejects(reader.next(), code('reader_lost'))
        await Promise.all([mesh.close(), mesh.close()])
        await mesh.close()
        await lost
        assert.equal(mesh.state, 'stopped')
        assert.deepEqual(open.states, ['connecting', 'connected', 'stopped'])
        await assert.rejects(mesh.request('node1', bytes('?'), patient), code('disconnected'))
        await assert.rejects(mesh.ensureStream(where, ''), code('disconnected'))
        await assert.rejects(append(mesh, where, message('x'), { sequence: 1 }), code('disconnected'))
        mesh.announce(bytes('lost'))
        await eventually('nobody listens any more', () =>
          two.mesh.request('ending', bytes('?'), { timeout: 500 }).then(
            () => false,
            (error: MeshError) => error.code === 'no_responders',
          ),
        )
      })

      it('is done to what is in flight too: each append is told once', async () => {
        const open = await network.mesh('hasty')
        const where = await filled(0, open)
        const done: number[] = range(0, 49).map(() => 0)
        for (const sequence of done.keys()) open.mesh.append(where, message('x'), { sequence }, () => done[sequence]!++)
        await open.mesh.close()
        await delay(50)
        assert.deepEqual(new Set(done), new Set([1]))
      })

      it('leaves the streams, and the next mesh of that node has them, in another session', async () => {
        const first = await network.mesh('again')
        const where = await filled(4, first)
        await first.mesh.describeStream(where, 'kept')
        await first.mesh.purgeStream(where, { before: 3 })
        const before = await first.mesh.streamState(at(first, where), patient)
        const { session } = first.mesh
        await first.mesh.close()
        const second = await network.mesh('again')
        assert.notEqual(second.mesh.session, session)
        assert.deepEqual(await second.mesh.ensureStream(where, 'new'), before)
        assert.equal(await append(second.mesh, where, message('x'), { sequence: 4 }), 5)
        await met(second, one)
        const reader = await one.mesh.read(at(second, where), 1, { ...patient, maxMessages: 10 })
        assert.deepEqual(sequences(await take(reader, 3)), [3, 4, 5])
        reader.close()
        await second.mesh.close()
      })
    })

    describe('two nodes of one name', () => {
      it('are both told', async () => {
        const first = await network.mesh('twin')
        const second = await network.mesh('twin')
        await eventually('both are told', () => first.refusals.length > 0 && second.refusals.length > 0)
        assert.deepEqual([one.refusals, two.refusals], [[], []])
        await Promise.all([first.mesh.close(), second.mesh.close()])
      })
    })
  })
}
