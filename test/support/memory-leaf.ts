// One node's own streams in memory, with every step of their writer seen, and appends held back where a test has to be in between.

import type { TestContext } from 'node:test'
import type { Entry, ExpectedLast, Mesh, MeshError, Message, StreamState, TableName } from '../../lib/mesh/mesh.ts'
import { parseStreamMetadata, type StreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually } from './cluster.ts'
import { overriding } from './overriding.ts'

export const node = 'node1'
const TIMEOUT = { timeout: 10_000 }

/** A message that was sent to the stream. */
export type Append = {
  table: TableName
  id: string
  epoch: string
  expected: ExpectedLast
  /** Lets it through: stored or refused, and answered. Resolves when it is answered. */
  pass(): Promise<void>
  /** Stores it, and keeps the answer back. */
  store(): Promise<void>
  /** Answers as a server might. */
  answer(error: MeshError | undefined, sequence?: number): void
}

export class MemoryLeaf {
  readonly network: MemoryNetwork
  /** What the writer uses. */
  readonly mesh: Mesh
  /** Changed by tests: replaces what `mesh` does. */
  readonly overrides: Partial<Mesh> = {}
  /** Everything sent so far. */
  readonly appends: Append[] = []
  /** Names of the calls that change a stream, in order. */
  readonly calls: string[] = []
  /** What appends: sees, and holds back. */
  readonly append: Mesh['append'] = (table, message, expected, done) => this.#append(table, message, expected, done)
  /** Appends wait for the test. */
  held = false
  readonly #real: Mesh

  private constructor(network: MemoryNetwork) {
    this.network = network
    this.#real = network.mesh()
    this.mesh = overriding(this.#real, this.overrides)
    this.overrides.append = this.append
    this.overrides.describeStream = (table, description) => {
      this.calls.push('describe')
      return this.#real.describeStream(table, description)
    }
    this.overrides.purgeStream = (table, options) => {
      this.calls.push('purge')
      return this.#real.purgeStream(table, options)
    }
  }

  static async open(test: TestContext): Promise<MemoryLeaf> {
    const network = new MemoryNetwork()
    test.after(() => network.close())
    const leaf = new MemoryLeaf(network)
    await leaf.#real.open(node, { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
    return leaf
  }

  /** Waits for the append of this number, from 0. */
  sent(index: number): Promise<Append> {
    return eventually(`message ${index} is sent`, () => this.appends[index])
  }

  /** Lets everything through that comes from now on, and what is held. */
  async release(): Promise<void> {
    this.held = false
    for (const each of this.appends) void each.pass()
  }

  /** Behind the writer's back, whatever the stream's last message is. */
  async foreign(table: TableName, id: string): Promise<void> {
    const { lastSequence } = await this.state(table)
    const message = { data: new Uint8Array(), headers: { 'Nats-Msg-Id': id } }
    await new Promise<void>((resolve, reject) =>
      this.#real.append(table, message, { sequence: lastSequence }, (error) => (error ? reject(error) : resolve())),
    )
  }

  async state(table: TableName): Promise<StreamState> {
    return (await this.#real.streamState({ node, ...table }, TIMEOUT))!
  }

  async metadata(table: TableName): Promise<StreamMetadata> {
    return parseStreamMetadata((await this.state(table)).description)
  }

  /** Ids of all messages of a stream, in order. */
  async ids(table: TableName): Promise<string[]> {
    const { firstSequence, lastSequence } = await this.state(table)
    const entries: Entry[] = []
    if (lastSequence >= firstSequence) {
      const reader = await this.#real.read({ node, ...table }, firstSequence, { ...TIMEOUT, maxMessages: 20_000 })
      while (entries.at(-1)?.sequence !== lastSequence) entries.push(...(await reader.next()))
      reader.close()
    }
    return entries.map(({ headers }) => headers['Nats-Msg-Id'] ?? '')
  }

  #append(table: TableName, message: Message, expected: ExpectedLast, done: Parameters<Mesh['append']>[3]): void {
    this.calls.push('append')
    let answered = false
    const answer = (error: MeshError | undefined, sequence = 0) => {
      answered = true
      done(error, sequence)
    }
    const forward = (then: Parameters<Mesh['append']>[3]) => this.#real.append(table, message, expected, then)
    const { 'Nats-Msg-Id': id = '', epoch = '' } = message.headers
    const append: Append = {
      table,
      id,
      epoch,
      expected,
      answer,
      pass: () =>
        new Promise((resolve) => {
          if (answered) return resolve()
          answered = true
          forward((error, sequence) => {
            done(error, sequence)
            resolve()
          })
        }),
      store: () => new Promise((resolve) => forward(() => resolve())),
    }
    this.appends.push(append)
    if (!this.held) void append.pass()
  }
}
