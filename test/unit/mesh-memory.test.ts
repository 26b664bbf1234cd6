// The mesh in memory: the contract of the port, then the faults it is there for.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Entry, Mesh, MeshError, Reader } from '../../lib/mesh/mesh.ts'
import { MemoryNetwork, type MemoryNetworkOptions, TestClock } from '../../lib/testing.ts'
import { type ContractNetwork, meshContract, noting, type OpenMesh, unopened } from '../support/mesh-contract.ts'

async function openOn(network: MemoryNetwork, node: string): Promise<OpenMesh> {
  const open = unopened(node, network.mesh())
  await open.mesh.open(node, { hub: [], leaf: [] }, noting(open))
  return open
}

class InMemory implements ContractNetwork {
  readonly #network: MemoryNetwork

  constructor(options?: MemoryNetworkOptions) {
    this.#network = new MemoryNetwork(options)
  }

  mesh(node: string): Promise<OpenMesh> {
    return openOn(this.#network, node)
  }

  async interrupt(node: string): Promise<void> {
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

meshContract('the mesh in memory', () => new InMemory())
meshContract('the mesh in memory, in the order of a seed', () => new InMemory({ seed: 7 }))

const dog = { database: 'dev', table: 'dog' }
const brief = { timeout: 50 }
const reading = { timeout: 1_000, maxMessages: 100 }
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: MeshError) => error.code,
  )
const ask = (from: OpenMesh, to: string, options = brief) => codeOf(from.mesh.request(to, new Uint8Array(1), options))

/** Has everything delivered that is on the way, and what comes of it. */
async function settled(): Promise<void> {
  for (let count = 0; count < 10; count++) await turn()
}

/** Appends one message for each id; resolves with what became of them. */
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

/** What the reader gives until nothing more is on the way. */
async function drain(reader: Reader): Promise<Entry[]> {
  const entries: Entry[] = []
  void (async () => {
    for (;;) entries.push(...(await reader.next()))
  })().catch(() => {})
  await settled()
  return entries
}
const places = (entries: readonly Entry[]) => entries.map(({ sequence, delivery }) => [sequence, delivery])

/** Three nodes that serve; node1 has a stream of dogs. */
async function three(t: TestContext, options?: MemoryNetworkOptions) {
  const network = new MemoryNetwork(options)
  t.after(() => network.close())
  const [one, two, three] = (await Promise.all(['node1', 'node2', 'node3'].map((node) => openOn(network, node)))) as [
    OpenMesh,
    OpenMesh,
    OpenMesh,
  ]
  for (const { mesh } of [one, two, three]) mesh.serve(async (data) => data)
  await one.mesh.ensureStream(dog, '')
  return { network, one, two, three }
}
const dogs = { node: 'node1', ...dog }

describe('cut and heal', () => {
  it('a cut between two leaves the ways to others; both sides know', async (t) => {
    const { network, one, two, three: third } = await three(t)
    network.cut('node1', 'node2')
    assert.deepEqual(
      [await ask(one, 'node2'), await ask(two, 'node1'), await ask(one, 'node3'), await ask(third, 'node2')],
      ['no_responders', 'no_responders', 'done', 'done'],
    )
    assert.deepEqual(
      (await one.mesh.members(brief)).map(({ node, connectedNodes }) => [node, connectedNodes]),
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

  it('a cut from all holds for nodes that come later', async (t) => {
    const { network, one, two } = await three(t)
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

  it('without a name everything is healed', async (t) => {
    const { network, one, two } = await three(t)
    network.cut('node1')
    network.cut('node2', 'node3')
    network.heal()
    assert.deepEqual([await ask(one, 'node2'), await ask(two, 'node3')], ['done', 'done'])
  })

  it('what is on the way is lost', async (t) => {
    const { network, one, two } = await three(t)
    const heard: number[] = []
    two.mesh.listen((data) => heard.push(data[0]!))
    one.mesh.announce(Uint8Array.of(1))
    const asked = ask(one, 'node2')
    network.cut('node1', 'node2')
    network.heal('node1', 'node2')
    one.mesh.announce(Uint8Array.of(2))
    assert.equal(await asked, 'timeout')
    assert.deepEqual(heard, [2])
  })

  it('readers across it are lost, at both ends, and no others', async (t) => {
    const { network, one, two, three: third } = await three(t)
    await two.mesh.ensureStream(dog, '')
    const across = [await two.mesh.read(dogs, 1, reading), await one.mesh.read({ ...dogs, node: 'node2' }, 1, reading)]
    const beside = [await third.mesh.read(dogs, 1, reading), await one.mesh.read(dogs, 1, reading)]
    network.cut('node1', 'node2')
    for (const reader of across) assert.equal(await codeOf(reader.next()), 'reader_lost')
    await append(one.mesh, 0, 1)
    for (const reader of beside) assert.deepEqual(places(await reader.next()), [[1, 1]])
  })

  it('of a silent cut nobody is told: requests time out, readers wait, and see a jump of the delivery', async (t) => {
    const { network, one, two } = await three(t)
    const reader = await two.mesh.read(dogs, 1, reading)
    await append(one.mesh, 0, 2)
    assert.deepEqual(places(await drain(reader)), [
      [1, 1],
      [2, 2],
    ])
    const other = await two.mesh.read(dogs, 3, reading)
    await settled()
    network.cut('node1', 'node2', { silent: true })
    assert.equal(await ask(two, 'node1'), 'timeout')
    assert.deepEqual(await append(one.mesh, 2, 3), [3, 4, 5])
    network.heal('node1', 'node2')
    assert.deepEqual([one.links, two.links], [0, 0])
    await append(one.mesh, 5, 1)
    assert.deepEqual(places(await drain(other)), [[6, 4]])
    assert.equal(await ask(two, 'node1'), 'done')
  })

  it('a reader whose requests vanished too gets nothing more', async (t) => {
    const { network, one, two } = await three(t)
    const reader = await two.mesh.read(dogs, 1, { ...reading, maxMessages: 3 })
    await settled()
    network.cut('node1', undefined, { silent: true })
    await append(one.mesh, 0, 5)
    network.heal('node1')
    await append(one.mesh, 5, 5)
    assert.deepEqual(await drain(reader), [])
  })
})

describe('drop and restore', () => {
  it('fails what is in flight, loses readers here and there, and comes back in another session', async (t) => {
    const { network, one, two } = await three(t)
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

  it('may come between storing and acknowledging', async (t) => {
    const { network, one } = await three(t)
    const appended = append(one.mesh, 0, 1)
    await turn()
    network.crash('node1')
    assert.deepEqual(await appended, ['disconnected'])
    network.restart('node1')
    assert.equal((await one.mesh.ensureStream(dog, '')).lastSequence, 1)
  })

  it('silently: readers elsewhere wait for what does not come', async (t) => {
    const { network, one, two } = await three(t)
    const reader = await two.mesh.read(dogs, 1, reading)
    network.crash('node1', { silent: true })
    network.restart('node1')
    await append(one.mesh, 0, 2)
    let ended = false
    reader.next().catch(() => {
      ended = true
    })
    await settled()
    assert.equal(ended, false)
    reader.close()
  })

  it('of a node that is not there is nothing', async (t) => {
    const { network } = await three(t)
    network.crash('nobody')
    network.restart('nobody')
    network.restart('node1')
  })
})

describe('loseDisk', () => {
  it('makes the streams anew, with another created, and readers are lost', async (t) => {
    const { network, one, two } = await three(t, { clock: new TestClock({ start: 1_000, stopped: true }) })
    await append(one.mesh, 0, 3)
    const before = await one.mesh.ensureStream(dog, '')
    const reader = await two.mesh.read(dogs, 4, reading)
    network.wipeDisk('node1')
    assert.equal(await codeOf(reader.next()), 'reader_lost')
    assert.equal(await two.mesh.streamState(dogs, brief), undefined)
    assert.deepEqual(await append(one.mesh, 3, 1), ['not_found'])
    const after = await one.mesh.ensureStream(dog, 'anew')
    assert.deepEqual([after.description, after.lastSequence], ['anew', 0])
    assert.notEqual(after.created, before.created)
  })

  it('works on a node that is closed or dropped', async (t) => {
    const { network, one, two } = await three(t)
    network.crash('node1')
    network.wipeDisk('node1')
    network.restart('node1')
    assert.equal(await two.mesh.streamState(dogs, brief), undefined)
    await one.mesh.ensureStream(dog, '')
    await one.mesh.close()
    network.wipeDisk('node1')
    const again = await openOn(network, 'node1')
    assert.equal(await again.mesh.streamState(dogs, brief), undefined)
  })
})

describe('delay', () => {
  it('is that of each way, and keeps the order when it changes', async (t) => {
    const { network, one, two } = await three(t)
    const heard: number[] = []
    two.mesh.listen((data) => heard.push(data[0]!))
    network.delay('node1', 'node2', 30)
    one.mesh.announce(Uint8Array.of(1))
    network.delay('node1', 'node2', 60)
    one.mesh.announce(Uint8Array.of(2))
    network.delay('node1', 'node2', 30)
    one.mesh.announce(Uint8Array.of(3))
    await settled()
    assert.deepEqual(heard, [])
    const started = performance.now()
    assert.equal(await ask(one, 'node2', { timeout: 1_000 }), 'done')
    assert.ok(performance.now() - started >= 55)
    assert.deepEqual(heard, [1, 2, 3])
    assert.equal(await ask(one, 'node2', { timeout: 20 }), 'timeout')
    assert.equal((await one.mesh.members({ timeout: 1_000 })).find(({ node }) => node === 'node2')?.responseTime, 60)
    assert.throws(() => network.delay('node1', 'node2', -1), TypeError)
  })
})

describe('order', () => {
  /** What node3 hears of both others, five each. */
  async function heard(t: TestContext, options?: MemoryNetworkOptions): Promise<string> {
    const { one, two, three: third } = await three(t, options)
    let text = ''
    third.mesh.listen((data) => {
      text += String.fromCharCode(data[0]!)
    })
    for (const letter of 'abcde') one.mesh.announce(new TextEncoder().encode(letter))
    for (const letter of 'ABCDE') two.mesh.announce(new TextEncoder().encode(letter))
    await settled()
    return text
  }

  it('without a seed is that of sending', async (t) => assert.equal(await heard(t), 'abcdeABCDE'))

  it('is drawn from the seed, the same for the same; what one sends another keeps its order', async (t) => {
    const drawn = await Promise.all([1, 1, 2].map((seed) => heard(t, { seed })))
    assert.equal(drawn[0], drawn[1])
    assert.notEqual(drawn[0], drawn[2])
    for (const text of drawn)
      assert.deepEqual([text.replace(/[A-Z]/g, ''), text.replace(/[a-z]/g, '')], ['abcde', 'ABCDE'])
  })
})

describe('the network', () => {
  it('stamps what is stored with its clock', async (t) => {
    const clock = new TestClock({ start: 1_000, stopped: true })
    const { one } = await three(t, { clock })
    await append(one.mesh, 0, 1)
    await clock.advance(1_000)
    await append(one.mesh, 1, 1)
    const reader = await one.mesh.read(dogs, 1, reading)
    assert.deepEqual(
      (await drain(reader)).map(({ time }) => time),
      [1_000, 2_000],
    )
    assert.equal(await one.mesh.sequenceAt(dogs, 1_001, brief), 2)
  })

  it('keeps its own copy of what it is given, and gives each reader one', async (t) => {
    const { one } = await three(t)
    const data = Uint8Array.of(1)
    const answer = one.mesh.request('node2', data, brief)
    one.mesh.append(dog, { data, headers: {} }, { sequence: 0 }, () => {})
    data.fill(9)
    assert.deepEqual([...(await answer)], [1])
    for (let count = 0; count < 2; count++) {
      const [entry] = await drain(await one.mesh.read(dogs, 1, reading))
      assert.deepEqual([...entry!.data], [1])
      entry!.data.fill(9)
    }
  })

  it('leaves a second node of one name alone, with streams of its own', async (t) => {
    const { network, one, two } = await three(t)
    const second = await openOn(network, 'node1')
    second.mesh.serve(async (data) => data)
    assert.deepEqual([one.refusals, two.refusals, second.refusals], [['node1'], [], ['node1']])
    assert.equal(await second.mesh.streamState(dogs, brief), undefined)
    assert.equal(await ask(second, 'node1'), 'done')
    assert.equal(await ask(second, 'node2'), 'no_responders')
    assert.deepEqual(
      (await second.mesh.members(brief)).map(({ node }) => node),
      ['node1'],
    )
    assert.equal(await ask(two, 'node1'), 'done')
    network.cut('node1')
    network.heal()
    assert.deepEqual([one.links, second.links], [1, 0])
  })

  it('closes every mesh, and is closed', async () => {
    const network = new MemoryNetwork()
    const open = await openOn(network, 'node1')
    const opening = codeOf(network.mesh().open('node2', { hub: [], leaf: [] }, noting(open)))
    await network.close()
    await network[Symbol.asyncDispose]()
    assert.equal(open.mesh.state, 'stopped')
    assert.equal(await opening, 'disconnected')
    assert.throws(() => network.mesh(), /closed/)
  })

  it('opens a mesh once', async (t) => {
    const { one } = await three(t)
    assert.equal(await codeOf(one.mesh.open('node1', { hub: [], leaf: [] }, noting(one))), 'rejected')
  })
})
