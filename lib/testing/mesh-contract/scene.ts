// The network that the cases of the mesh contract share, and short forms of the calls that they make.

import assert from 'node:assert/strict'
import {
  type Entry,
  type ExpectedLast,
  type Mesh,
  MeshError,
  type MeshErrorCode,
  type MeshListener,
  type MeshState,
  type Message,
  type Reader,
  type RemoteTable,
  type StreamState,
  type TableName,
} from '../../mesh/mesh.ts'
import { eventually } from '../eventually.ts'

/** Nodes that reach each other, on the implementation under test. The suite chooses the names of the nodes. */
export interface NetworkUnderTest {
  /**
   * Resolves with an open mesh of this node. A node that was open before and is closed gets its streams back. A node that is open
   * gets a duplicate: a second mesh of the same name with other streams.
   */
  open(node: string, listener: MeshListener): Promise<Mesh>
  /** Kills the server of the node's streams. The server starts again some time later, without another call. */
  restartServer(node: string): Promise<void>
  /** Breaks the node's links to all other nodes. They are created again some time later, without another call. */
  relink(node: string): Promise<void>
  /** Ends everything that was opened, also after a failure. */
  close(): Promise<void>
}

/** A mesh and what it has reported to its listener. */
export type OpenMesh = {
  readonly node: string
  readonly mesh: Mesh
  readonly states: MeshState[]
  /** `peer: reason` each. */
  readonly rejectedPeers: string[]
  /** How often the links were created again. */
  readonly links: () => number
}

export type MeshCase = (scene: MeshScene) => Promise<void>

export const TIMEOUT_MS = 5_000
/** Of a request that may be lost and is sent again. */
export const PROBE_TIMEOUT_MS = 500
export const withTimeout = { timeout: TIMEOUT_MS }

const encoder = new TextEncoder()
export const bytes = (value: string): Uint8Array => encoder.encode(value)
export const textOf = (data: Uint8Array): string => new TextDecoder().decode(data)
export const message = (body: string, headers: Record<string, string> = {}): Message => ({ data: bytes(body), headers })
export const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)
export const sequences = (entries: readonly Entry[]): number[] => entries.map(({ sequence }) => sequence)
export const deliveries = (entries: readonly Entry[]): number[] => entries.map(({ delivery }) => delivery)
export const aborted = () => ({ timeout: TIMEOUT_MS, signal: AbortSignal.abort() })

/** For `assert.rejects`: a MeshError with this code. */
export const meshError = (expected: MeshErrorCode) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error))
  assert.equal(error.code, expected)
  return true
}

export const sourceOf = ({ node }: OpenMesh, table: TableName): RemoteTable => ({ node, ...table })

/** Rejects with the MeshError of the append. */
export const append = (mesh: Mesh, table: TableName, body: Message, expected: ExpectedLast): Promise<number> =>
  new Promise((resolve, reject) => {
    mesh.append(table, body, expected, (error, sequence) => (error ? reject(error) : resolve(sequence)))
  })

/** Appends `count` messages after the first `from` ones, all in flight at once. Their bodies are `from`, `from + 1` and so on. */
export async function appendMany({ mesh }: OpenMesh, table: TableName, count: number, from = 0): Promise<void> {
  await Promise.all(
    range(from, from + count - 1).map((sequence) => append(mesh, table, message(String(sequence)), { sequence })),
  )
}

/** Reads until there are at least `count` entries. */
export async function take(reader: Reader, count: number): Promise<Entry[]> {
  const entries: Entry[] = []
  while (entries.length < count) entries.push(...(await reader.next()))
  return entries
}

/** Resolves whether the request was answered; a node that just opened may not be reachable yet. */
export const isAnswered = (from: OpenMesh, to: OpenMesh): Promise<boolean> =>
  from.mesh.request(to.node, bytes('?'), { timeout: PROBE_TIMEOUT_MS }).then(
    () => true,
    () => false,
  )

export class MeshScene {
  readonly network: NetworkUnderTest
  readonly node1: OpenMesh
  readonly node2: OpenMesh
  #tables = 0

  private constructor(network: NetworkUnderTest, node1: OpenMesh, node2: OpenMesh) {
    this.network = network
    this.node1 = node1
    this.node2 = node2
  }

  static async create(network: NetworkUnderTest): Promise<MeshScene> {
    const node1 = await openOn(network, 'node1')
    const node2 = await openOn(network, 'node2')
    const scene = new MeshScene(network, node1, node2)
    await scene.connected(node1, node2)
    return scene
  }

  open(node: string): Promise<OpenMesh> {
    return openOn(this.network, node)
  }

  /** Opens a node for `work` and closes it, also after a failure. */
  async withNode(node: string, work: (open: OpenMesh) => Promise<void>): Promise<void> {
    const open = await this.open(node)
    try {
      await work(open)
    } finally {
      await open.mesh.close()
    }
  }

  /** A table that no other case uses. */
  newTable(): TableName {
    return { database: 'dev', table: `table${++this.#tables}` }
  }

  /** A new stream, on `node1` by default, with `count` messages: bodies `0` to `count - 1`. */
  async newStream(count: number, open: OpenMesh = this.node1): Promise<TableName> {
    const table = this.newTable()
    await open.mesh.ensureStream(table, '')
    await appendMany(open, table, count)
    return table
  }

  /** Resolves when both nodes answer each other's requests. From then on both answer with what they are sent. */
  async connected(a: OpenMesh, b: OpenMesh): Promise<void> {
    for (const { mesh } of [a, b]) mesh.serve(async (data) => data)
    await eventually(`${a.node} reaches ${b.node}`, () => isAnswered(a, b))
    await eventually(`${b.node} reaches ${a.node}`, () => isAnswered(b, a))
  }

  /** The state of a stream of `node1`, or of another node. */
  state(table: TableName, open: OpenMesh = this.node1): Promise<StreamState | undefined> {
    return open.mesh.streamState(sourceOf(open, table), withTimeout)
  }
}

async function openOn(network: NetworkUnderTest, node: string): Promise<OpenMesh> {
  const states: MeshState[] = []
  const rejectedPeers: string[] = []
  let links = 0
  const mesh = await network.open(node, {
    state: (state) => void states.push(state),
    rejected: (peer, reason) => void rejectedPeers.push(`${peer}: ${reason}`),
    linked: () => void links++,
  })
  return { node, mesh, states, rejectedPeers, links: () => links }
}
