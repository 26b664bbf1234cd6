// The client connections to the local servers: one to the hub, two to the leaf.

import { MeshError } from '../mesh.ts'
import { adminOf, meshUserOf, type ServerSettings } from './configuration.ts'
import { Connection } from './connection.ts'

export type LocalConnectionsOptions = {
  /** The current settings: the password may change. */
  settings(): ServerSettings
  /** Called when a connection to the leaf is lost, and when it is back. */
  leafChanged(up: boolean): void
}

export class LocalConnections {
  readonly #options: LocalConnectionsOptions
  #hub: Connection | undefined
  #store: Connection | undefined
  #mesh: Connection | undefined

  constructor(options: LocalConnectionsOptions) {
    this.#options = options
  }

  /** Connects to the hub once; later the client reconnects by itself. */
  async openHub(): Promise<void> {
    const { ports, user } = this.#options.settings()
    this.#hub ??= await this.#open(ports.hub, adminOf(user), () => {})
  }

  /** Connects to both accounts of the leaf once; later the client reconnects by itself. */
  async openLeaf(): Promise<void> {
    const { settings, leafChanged } = this.#options
    const { ports, user } = settings()
    this.#store ??= await this.#open(ports.leaf, user, leafChanged)
    this.#mesh ??= await this.#open(ports.leaf, meshUserOf(user), leafChanged)
  }

  /** The hub's system account. Throws `disconnected`, as the others. */
  get hub(): Connection {
    return requireUp(this.#hub)
  }

  /** The local streams. */
  get store(): Connection {
    return requireUp(this.#store)
  }

  /** Remote nodes. */
  get mesh(): Connection {
    return requireUp(this.#mesh)
  }

  /** Throws `disconnected` unless both connections to the leaf are up. */
  requireLeaf(): void {
    requireUp(this.#store)
    requireUp(this.#mesh)
  }

  /** The connection that leads to the streams of a node. */
  toStreamsOf(node: string): Connection {
    return node === this.#options.settings().node ? this.store : this.mesh
  }

  /** Id of the leaf server's current run; empty before the first connection. */
  get leafSession(): string {
    return this.#store?.serverId ?? ''
  }

  async close(): Promise<void> {
    await Promise.all([this.#hub, this.#store, this.#mesh].map((connection) => connection?.close()))
  }

  #open(port: number, user: string, onChange: (up: boolean) => void): Promise<Connection> {
    const { settings } = this.#options
    return Connection.open({
      port,
      user,
      password: () => settings().password,
      name: `enmesh ${settings().node}`,
      onChange,
    })
  }
}

function requireUp(connection: Connection | undefined): Connection {
  if (!connection?.up) throw new MeshError('disconnected', 'the local server is not connected')
  return connection
}
