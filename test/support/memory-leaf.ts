// The local streams of one node in memory. Records every step of the writer; tests can hold appends back.

import type { TestContext } from 'node:test'
import type { Entry, ExpectedLast, Mesh, MeshError, Message, StreamState, TableName } from '../../lib/mesh/mesh.ts'
import { parseStreamMetadata, type StreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { Frame } from '../../lib/replication/wire/frame.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually } from './cluster.ts'
import { overriding } from './overriding.ts'

export const node = 'node1'
const TIMEOUT = { timeout: 10_000 }

/** The ids of a message's transactions. */
export function idsOf(message: Message): string[] {
  const frame = Frame.read({ ...message, sequence: 1, delivery: 0, time: 0 })
  return Array.from({ length: frame.count }, (_, offset) => frame.idAt(offset))
}

/** An append to a stream. */
export type Append = {
  table: TableName
  /** Ids of the transactions, joined with a space. */
  id: string
  /** Id of the message. */
  frameId: string
  epoch: string
  expected: ExpectedLast | undefined
  /** Stores or rejects the message and answers. Resolves when it is answered. */
  pass(): Promise<void>
  /** Stores the message without an answer. */
  store(): Promise<void>
  /** Answers without storing. */
  answer(error: MeshError | undefined, sequence?: number): void
}

export class MemoryLeaf {
  readonly network: MemoryNetwork
  /** The mesh of the writer. */
  readonly mesh: Mesh
  /** Methods that replace those of `mesh`. */
  readonly overrides: Partial<Mesh> = {}
  /** All appends so far. */
  readonly appends: Append[] = []
  /** Names of the calls that changed a stream, in order. */
  readonly calls: string[] = []
  /** Records the append, and holds it back if `held`. */
  readonly append: Mesh['append'] = (table, message, expected, done) => this.#append(table, message, expected, done)
  /** New appends wait for `pass`, `store` or `answer`. */
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

  /** Resolves with the append of this index, from 0. */
  sent(index: number): Promise<Append> {
    return eventually(`message ${index} is sent`, () => this.appends[index])
  }

  /** Passes held and future appends. */
  async release(): Promise<void> {
    this.held = false
    for (const each of this.appends) void each.pass()
  }

  /** Appends a message of another writer. */
  async appendForeign(table: TableName, id: string): Promise<void> {
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

  /** The ids of all transactions, in order. */
  async ids(table: TableName): Promise<string[]> {
    const { firstSequence, lastSequence } = await this.state(table)
    const entries: Entry[] = []
    if (lastSequence >= firstSequence) {
      const reader = await this.#real.read({ node, ...table }, firstSequence, { ...TIMEOUT, maxMessages: 20_000 })
      while (entries.at(-1)?.sequence !== lastSequence) entries.push(...(await reader.next()))
      reader.close()
    }
    return entries.flatMap(idsOf)
  }

  #append(
    table: TableName,
    message: Message,
    expected: ExpectedLast | undefined,
    done: Parameters<Mesh['append']>[3],
  ): void {
    this.calls.push('append')
    let answered = false
    const answer = (error: MeshError | undefined, sequence = 0) => {
      answered = true
      done(error, sequence)
    }
    const forward = (then: Parameters<Mesh['append']>[3]) => this.#real.append(table, message, expected, then)
    const { 'Nats-Msg-Id': frameId = '', epoch = '' } = message.headers
    const append: Append = {
      table,
      id: idsOf(message).join(' '),
      frameId,
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
