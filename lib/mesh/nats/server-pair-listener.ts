// What the pair of servers reports to the mesh.

/** What happens to the leaf. */
export type LeafListener = {
  /** Called before each start, while no leaf runs. */
  prepare(): Promise<void>
  /** Rejects when the leaf, which is connected, does not work. */
  probe(signal: AbortSignal): Promise<void>
  /** A client connection to the leaf was lost, or is back. */
  connectionChanged(up: boolean): void
  logLine(level: string, text: string): void
  died(reason: string): void
  /** A restart failed; the next attempt follows. */
  startFailed(reason: string): void
  returned(): void
}

export type ServerPairListener = {
  leaf: LeafListener
  /** The leaf connected to a hub: remote nodes have no state of earlier connections any more. */
  linked(): void
  rejected(peer: string, reason: string): void
  /** New certificates are in use; with a reason: those on disk are not usable, and the previous ones stay in use. */
  certificatesChanged(rejection?: string): void
  /** Why the hub cannot be started; undefined when it runs again. Called when that changes. */
  hubFailed(reason: string | undefined): void
}
