// The mesh in memory: the contract of the port, then its faults.

import assert from 'node:assert/strict'
import { after, describe, it, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Entry, Mesh, MeshError, MeshListener, MeshState, Reader } from '../../lib/mesh/mesh.ts'
import {
  MemoryNetwork,
  type MemoryNetworkOptions,
  meshContract,
  type NetworkUnderTest,
  TestClock,
} from '../../lib/testing.ts'

class NetworkInMemory implements NetworkUnderTest {
  readonly #network: MemoryNetwork

  constructor(options?: MemoryNetworkOptions) {
    this.#network = new MemoryNetwork(options)
  }

  async open(node: string, listener: MeshListener): Promise<Mesh> {
    const mesh = this.#network.mesh()
    await mesh.open(node, { hub: [], leaf: [] }, listener)
    return mesh
  }

  async restartServer(node: string): Promise<void> {
    this.#network.crash(node)
    setTimeout(() => this.#network.restart(node), 20)
  }

  async relink(node: string): Promise<void> {
    this.#network.cut(node)
    setImmediate(() => this.#network.heal(node))
  }

  close(): Promise<void> {
    return this.#network.close()
  }
}

for (const [order, options] of [
  ['in the order of sending', {}],
  ['in the order of a seed', { seed: 7 }],
] as const)
  describe(`the mesh contract in memory, ${order}`, () => {
    const { cases, close } = meshContract(() => new NetworkInMemory(options))
    after(close)
    for (const { name, run } of cases) it(name, run)
  })

type OpenMesh = { mesh: Mesh; states: MeshState[]; rejectedPeers: string[]; links: number }

const silentListener: MeshListener = { state: () => {}, rejected: () => {}, linked: () => {} }

async function openOn(network: MemoryNetwork, node: string): Promise<OpenMesh> {
  const open: OpenMesh = { mesh: network.mesh(), states: [], rejectedPeers: [], links: 0 }
  await open.mesh.open(
    node,
    { hub: [], leaf: [] },
    {
      state: (state) => void open.states.push(state),
      rejected: (peer) => void open.rejectedPeers.push(peer),
      linked: () => void open.links++,
    },
  )
  return open
}

const dog = { database: 'dev', table: 'dog' }
const patient = { timeout: 10_000 }
/** For requests without an answer. */
const brief = { timeout: 50 }
const reading = { timeout: 10_000, maxMessages: 100 }
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: MeshError) => error.code,
  )
const ask = (from: OpenMesh, to: string, options = patient) => codeOf(from.mesh.request(to, new Uint8Array(1), options))

/** Resolves when all messages in flight, and the messages that they cause, are delivered. */
async function delivered(): Promise<void> {
  for (let count = 0; count < 10; count++) await turn()
}

/** Appends `count` messages after the first `from` ones. Resolves with the sequence or the error code of each. */
const append = (mesh: Mesh, from: number, count: number) =>
  Promise.all(
    Array.from(
      { length: count },
      (_, index) =>
        new Promise<string | number>((resolve) => {
          const message = { data: new Uint8Array(1), headers: {} }
          mesh.append(dog, message, { sequence: from + index }, (error, sequence) => resolve(error?.code ?? sequence))
        }),
    ),
  )

/** The entries that the reader delivers until no message is in flight. */
async function drain(reader: Reader): Promise<Entry[]> {
  const entries: Entry[] = []
  void (async () => {
    for (;;) entries.push(...(await reader.next()))
  })().catch(() => {})
  await delivered()
  return entries
}
const positions = (entries: readonly Entry[]) => entries.map(({ sequence, delivery }) => [sequence, delivery])

/** Three nodes that answer requests; node1 has a stream of dogs. */
async function startThree(t: TestContext, options?: MemoryNetworkOptions) {
  const network = new MemoryNetwork(options)
  t.after(() => network.close())
  const [one, two, third] = (await Promise.all(['node1', 'node2', 'node3'].map((node) => openOn(network, node)))) as [
    OpenMesh,
    OpenMesh,
    OpenMesh,
  ]
  for (const { mesh } of [one, two, third]) mesh.serve(async (data) => data)
  await one.mesh.ensureStream(dog, '')
  return { network, one, two, third }
}
const dogs = { node: 'node1', ...dog }

describe('cut and heal', () => {
  it('a cut between two nodes does not affect other links, and both nodes are notified', async (t) => {
    const { network, one, two, third } = await startThree(t)
    network.cut('node1', 'node2')
    assert.deepEqual(
      [await ask(one, 'node2'), await ask(two, 'node1'), await ask(one, 'node3'), await ask(third, 'node2')],
      ['no_responders', 'no_responders', 'done', 'done'],
    )
    assert.deepEqual(
      (await one.mesh.members(patient)).map(({ node, connectedNodes }) => [node, connectedNodes]),
      [
        ['node1', ['node3']],
        ['node3', ['node1', 'node2']],
      ],
    )
    network.heal('node1', 'node2')
    assert.deepEqual([await ask(one, 'node2'), await ask(two, 'node1')], ['done', 'done'])
    assert.deepEqual([one.links, two.links, third.links], [1, 1, 0])
    assert.deepEqual(one.states, ['connecting', 'connected'])
  })

  it('a cut from all nodes also applies to nodes that open later', async (t) => {
    const { network, one, two } = await startThree(t)
    network.cut('node1')
    const fourth = await openOn(network, 'node4')
    fourth.mesh.serve(async (data) => data)
    assert.deepEqual([await ask(one, 'node4'), await ask(fourth, 'node1')], ['no_responders', 'no_responders'])
    assert.equal(await ask(two, 'node4'), 'done')
    assert.equal(await ask(one, 'node1'), 'done')
    network.heal('node1')
    assert.deepEqual([await ask(one, 'node4'), await ask(one, 'node2')], ['done', 'done'])
    assert.deepEqual([one.links, fourth.links], [1, 1])
  })

  it('heal without a name heals every cut', async (t) => {
    const { network, one, two } = await startThree(t)
    network.cut('node1')
    network.cut('node2', 'node3')
    network.heal()
    assert.deepEqual([await ask(one, 'node2'), await ask(two, 'node3')], ['done', 'done'])
  })

  it('messages in flight are lost', async (t) => {
    const { network, one, two } = await startThree(t)
    const received: number[] = []
    two.mesh.listen((data) => received.push(data[0]!))
    one.mesh.announce(Uint8Array.of(1))
    const asked = ask(one, 'node2', brief)
    network.cut('node1', 'node2')
    network.heal('node1', 'node2')
    one.mesh.announce(Uint8Array.of(2))
    assert.equal(await asked, 'timeout')
    assert.deepEqual(received, [2])
  })

  it('readers across the cut are lost at both ends, and no other readers', async (t) => {
    const { network, one, two, third } = await startThree(t)
    await two.mesh.ensureStream(dog, '')
    const lost = [await two.mesh.read(dogs, 1, reading), await one.mesh.read({ ...dogs, node: 'node2' }, 1, reading)]
    const kept = [await third.mesh.read(dogs, 1, reading), await one.mesh.read(dogs, 1, reading)]
    network.cut('node1', 'node2')
    for (const reader of lost) assert.equal(await codeOf(reader.next()), 'reader_lost')
    await append(one.mesh, 0, 1)
    for (const reader of kept) assert.deepEqual(positions(await reader.next()), [[1, 1]])
  })

  it('a silent cut notifies no node: requests time out, readers wait and see a jump of the delivery', async (t) => {
    const { network, one, two } = await startThree(t)
    const reader = await two.mesh.read(dogs, 1, reading)
    await append(one.mesh, 0, 2)
    assert.deepEqual(positions(await drain(reader)), [
      [1, 1],
      [2, 2],
    ])
    const other = await two.mesh.read(dogs, 3, reading)
    await delivered()
    network.cut('node1', 'node2', { silent: true })
    assert.equal(await ask(two, 'node1', brief), 'timeout')
    assert.deepEqual(await append(one.mesh, 2, 3), [3, 4, 5])
    network.heal('node1', 'node2')
    assert.deepEqual([one.links, two.links], [0, 0])
    await append(one.mesh, 5, 1)
    assert.deepEqual(positions(await drain(other)), [[6, 4]])
    assert.equal(await ask(two, 'node1'), 'done')
  })

  it('a reader whose requests are lost receives no more entries', async (t) => {
    const { network, one, two } = await startThree(t)
    const reader = await two.mesh.read(dogs, 1, { ...reading, maxMessages: 3 })
    await delivered()
    network.cut('node1', undefined, { silent: true })
    await append(one.mesh, 0, 5)
    network.heal('node1')
    await append(one.mesh, 5, 5)
    assert.deepEqual(await drain(reader), [])
  })
})

describe('crash and restart', () => {
  it('a crash fails calls in flight and loses local and remote readers; a restart has another session', async (t) => {
    const { network, one, two } = await startThree(t)
    const { session } = one.mesh
    const readers = [await one.mesh.read(dogs, 1, reading), await two.mesh.read(dogs, 1, reading)]
    const appended = append(one.mesh, 0, 3)
    const asked = ask(one, 'node2', { timeout: 10_000 })
    network.crash('node1')
    network.crash('node1')
    assert.equal(one.mesh.state, 'disconnected')
    assert.deepEqual(await appended, ['disconnected', 'disconnected', 'disconnected'])
    assert.equal(await asked, 'disconnected')
    for (const reader of readers) assert.equal(await codeOf(reader.next()), 'reader_lost')
    assert.equal(await ask(two, 'node1'), 'no_responders')
    assert.deepEqual(await append(one.mesh, 0, 1), ['disconnected'])
    network.restart('node1')
    network.restart('node1')
    assert.deepEqual(one.states, ['connecting', 'connected', 'disconnected', 'connected'])
    assert.notEqual(one.mesh.session, session)
    assert.equal(await ask(two, 'node1'), 'done')
    assert.deepEqual(await append(one.mesh, 0, 2), [1, 2])
  })

  it('a crash may happen between storing and acknowledging', async (t) => {
    const { network, one } = await startThree(t)
    const appended = append(one.mesh, 0, 1)
    await turn()
    network.crash('node1')
    assert.deepEqual(await appended, ['disconnected'])
    network.restart('node1')
    assert.equal((await one.mesh.ensureStream(dog, '')).lastSequence, 1)
  })

  it('after a silent crash, remote readers wait', async (t) => {
    const { network, one, two } = await startThree(t)
    const reader = await two.mesh.read(dogs, 1, reading)
    network.crash('node1', { silent: true })
    network.restart('node1')
    await append(one.mesh, 0, 2)
    let ended = false
    reader.next().catch(() => {
      ended = true
    })
    await delivered()
    assert.equal(ended, false)
    reader.close()
  })

  it('have no effect on a node that is not open, or runs', async (t) => {
    const { network } = await startThree(t)
    network.declare('node9')
    network.crash('node9')
    network.restart('node9')
    network.restart('node1')
  })
})

describe('wipeDisk', () => {
  it('deletes the streams: new ones have another created, and readers are lost', async (t) => {
    const { network, one, two } = await startThree(t, { clock: new TestClock({ start: 1_000, stopped: true }) })
    await append(one.mesh, 0, 3)
    const before = await one.mesh.ensureStream(dog, '')
    const reader = await two.mesh.read(dogs, 4, reading)
    network.wipeDisk('node1')
    assert.equal(await codeOf(reader.next()), 'reader_lost')
    assert.equal(await two.mesh.streamState(dogs, patient), undefined)
    assert.deepEqual(await append(one.mesh, 3, 1), ['not_found'])
    const after = await one.mesh.ensureStream(dog, 'new')
    assert.deepEqual([after.description, after.lastSequence], ['new', 0])
    assert.notEqual(after.created, before.created)
  })

  it('works on a closed or crashed node', async (t) => {
    const { network, one, two } = await startThree(t)
    network.crash('node1')
    network.wipeDisk('node1')
    network.restart('node1')
    assert.equal(await two.mesh.streamState(dogs, patient), undefined)
    await one.mesh.ensureStream(dog, '')
    await one.mesh.close()
    network.wipeDisk('node1')
    const again = await openOn(network, 'node1')
    assert.equal(await again.mesh.streamState(dogs, patient), undefined)
  })
})

describe('delay', () => {
  it('applies in each direction, and a change keeps the order of messages', async (t) => {
    const clock = new TestClock({ stopped: true })
    const { network, one, two } = await startThree(t, { clock })
    const received: number[] = []
    two.mesh.listen((data) => received.push(data[0]!))
    network.delay('node1', 'node2', 30)
    one.mesh.announce(Uint8Array.of(1))
    network.delay('node1', 'node2', 60)
    one.mesh.announce(Uint8Array.of(2))
    network.delay('node1', 'node2', 30)
    one.mesh.announce(Uint8Array.of(3))
    const answered = ask(one, 'node2', { timeout: 1_000 })
    await clock.advance(29)
    assert.deepEqual(received, [])
    await clock.advance(60)
    assert.deepEqual(received, [1, 2, 3])
    await clock.advance(60)
    assert.equal(await answered, 'done')
    const unanswered = ask(one, 'node2', { timeout: 20 })
    const members = one.mesh.members({ timeout: 1_000 })
    await clock.advance(1_000)
    assert.equal(await unanswered, 'timeout')
    assert.equal((await members).find(({ node }) => node === 'node2')?.responseTime, 60)
    assert.throws(() => network.delay('node1', 'node2', -1), TypeError)
  })
})

describe('order', () => {
  /** What node3 receives from the two other nodes, five messages each. */
  async function receivedOrder(t: TestContext, options?: MemoryNetworkOptions): Promise<string> {
    const { one, two, third } = await startThree(t, options)
    let text = ''
    third.mesh.listen((data) => {
      text += String.fromCharCode(data[0]!)
    })
    for (const letter of 'abcde') one.mesh.announce(new TextEncoder().encode(letter))
    for (const letter of 'ABCDE') two.mesh.announce(new TextEncoder().encode(letter))
    await delivered()
    return text
  }

  it('is the order of sending without a seed', async (t) => assert.equal(await receivedOrder(t), 'abcdeABCDE'))

  it('depends only on the seed, and messages between two nodes keep their order', async (t) => {
    const drawn = await Promise.all([1, 1, 2].map((seed) => receivedOrder(t, { seed })))
    assert.equal(drawn[0], drawn[1])
    assert.notEqual(drawn[0], drawn[2])
    for (const text of drawn)
      assert.deepEqual([text.replace(/[A-Z]/g, ''), text.replace(/[a-z]/g, '')], ['abcde', 'ABCDE'])
  })
})

describe('the network', () => {
  it('takes the time of stored messages from its clock', async (t) => {
    const clock = new TestClock({ start: 1_000, stopped: true })
    const { one } = await startThree(t, { clock })
    await append(one.mesh, 0, 1)
    await clock.advance(1_000)
    await append(one.mesh, 1, 1)
    const reader = await one.mesh.read(dogs, 1, reading)
    assert.deepEqual(
      (await drain(reader)).map(({ time }) => time),
      [1_000, 2_000],
    )
    assert.equal(await one.mesh.sequenceAt(dogs, 1_001, patient), 2)
  })

  it('copies data that it receives, and gives each reader a copy', async (t) => {
    const { one } = await startThree(t)
    const data = Uint8Array.of(1)
    const answer = one.mesh.request('node2', data, patient)
    one.mesh.append(dog, { data, headers: {} }, { sequence: 0 }, () => {})
    data.fill(9)
    assert.deepEqual([...(await answer)], [1])
    for (let count = 0; count < 2; count++) {
      const [entry] = await drain(await one.mesh.read(dogs, 1, reading))
      assert.deepEqual([...entry!.data], [1])
      entry!.data.fill(9)
    }
  })

  it('isolates a second node of the same name, with separate streams', async (t) => {
    const { network, one, two } = await startThree(t)
    const second = await openOn(network, 'node1')
    second.mesh.serve(async (data) => data)
    assert.deepEqual([one.rejectedPeers, two.rejectedPeers, second.rejectedPeers], [['node1'], [], ['node1']])
    assert.equal(await second.mesh.streamState(dogs, patient), undefined)
    assert.equal(await ask(second, 'node1'), 'done')
    assert.equal(await ask(second, 'node2'), 'no_responders')
    assert.deepEqual(
      (await second.mesh.members(patient)).map(({ node }) => node),
      ['node1'],
    )
    assert.equal(await ask(two, 'node1'), 'done')
    network.cut('node1')
    network.heal()
    assert.deepEqual([one.links, second.links], [1, 0])
  })

  it('close closes every mesh, and no mesh can be opened later', async () => {
    const network = new MemoryNetwork()
    const open = await openOn(network, 'node1')
    const opening = codeOf(network.mesh().open('node2', { hub: [], leaf: [] }, silentListener))
    await network.close()
    await network[Symbol.asyncDispose]()
    assert.equal(open.mesh.state, 'stopped')
    assert.equal(await opening, 'disconnected')
    assert.throws(() => network.mesh(), /closed/)
  })

  it('a mesh can be opened only once', async (t) => {
    const { one } = await startThree(t)
    assert.equal(await codeOf(one.mesh.open('node1', { hub: [], leaf: [] }, silentListener)), 'rejected')
  })
})
