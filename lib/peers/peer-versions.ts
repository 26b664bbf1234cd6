// Which version of the protocol each remote node speaks, as its heartbeats and answers say.

import { commonVersion, type Versions, versionText } from '../util/format-version.ts'

/** Bound on names: every holder of the credentials can invent more. */
const MAX_NODES = 10_000

export type PeerVersionsOptions = {
  /** Of the local node. */
  local: Versions
  /** The node speaks no version that the local node speaks. Called once for each change of its versions. */
  incompatible(node: string, reason: string): void
}

export class PeerVersions {
  readonly #options: PeerVersionsOptions
  readonly #versions = new Map<string, Versions>()
  /** Nodes whose last answer named no version. */
  readonly #harper = new Set<string>()

  constructor(options: PeerVersionsOptions) {
    this.#options = options
  }

  get local(): Versions {
    return this.#options.local
  }

  /** A heartbeat of the node has arrived. False when the node is incompatible: then it takes no part for this node. */
  observe(node: string, [oldest, current]: Versions): boolean {
    const known = this.#versions.get(node)
    const isNew = !known || known[0] !== oldest || known[1] !== current
    if (isNew && (known || this.#versions.size < MAX_NODES)) this.#versions.set(node, [oldest, current])
    const reason = this.incompatibility(node)
    if (reason !== undefined && isNew) this.#options.incompatible(node, reason)
    return reason === undefined
  }

  /** The node has answered a request. HarperDB names no version. */
  observeAnswer(node: string, version: number | undefined): void {
    if (version !== undefined) this.#harper.delete(node)
    else if (this.#harper.size < MAX_NODES) this.#harper.add(node)
  }

  /** True when the node runs HarperDB, as far as its last answer says. */
  isHarper(node: string): boolean {
    return this.#harper.has(node)
  }

  /** True after a heartbeat of the node. HarperDB sends none. */
  isKnown(node: string): boolean {
    return this.#versions.has(node)
  }

  /** Why no request can be sent to the node; undefined when it can, and before its first heartbeat. */
  incompatibility(node: string): string | undefined {
    const { local } = this.#options
    const versions = this.#versions.get(node)
    return versions === undefined || commonVersion(local, versions) !== undefined
      ? undefined
      : `it speaks protocol version ${versionText(versions)}, this node ${versionText(local)}`
  }

  /** The version of requests to the node. */
  versionFor(node: string): number {
    const { local } = this.#options
    const versions = this.#versions.get(node)
    return (versions && commonVersion(local, versions)) ?? local[1]
  }
}
