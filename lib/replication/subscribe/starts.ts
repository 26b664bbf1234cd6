// Stores where a subscription begins, before it is committed, and undoes that for a request that fails afterwards.

import type { Checkpoint, RemoteTable } from '../../host/host.ts'
import type { Applier, Position } from './applier.ts'
import type { BegunSubscriptions } from './cursor.ts'
import { requestedPosition, type StartOptions } from './start-position.ts'

export type StartsOptions = {
  mesh: StartOptions['mesh']
  begun: BegunSubscriptions
  requestTimeout: number
  applierOf(source: RemoteTable): Applier
  isRunning(source: RemoteTable): boolean
  /** The manifest has this subscription. */
  isDesired(source: RemoteTable): boolean
  /** Runs `work` while the subscriber of this source, if there is one, is stopped. */
  whileStopped(source: RemoteTable, work: () => Promise<void>): Promise<void>
  deleteCheckpoint(source: RemoteTable): Promise<unknown>
}

/** Where a request lets a subscription begin. `since`: ms since 1970 when the subscription was made. */
export type RequestedStart = { startTime?: string | undefined; since?: number | undefined }

/** The caller lets only one call for each source run at a time. */
export class Starts {
  readonly #options: StartsOptions

  constructor(options: StartsOptions) {
    this.#options = options
  }

  /** Resolves with what `undo` needs; undefined when the subscription keeps its checkpoint. Rejects as the mesh and the host do. */
  async set(source: RemoteTable, { startTime, since }: RequestedStart): Promise<StoredStart | undefined> {
    const { mesh, begun, requestTimeout, applierOf, isRunning, whileStopped } = this.#options
    const applier = applierOf(source)
    const isUnchanged = (known: Checkpoint | undefined) =>
      startTime === undefined ? known !== undefined || begun.has(source) : startTime === known?.startTime
    if (isUnchanged(await applier.loadCheckpoint(source, { isRunning: isRunning(source) }))) return undefined
    const request = { timeout: requestTimeout }
    const position = await requestedPosition({ source, mesh, applier, since, request }, startTime)
    let stored: StoredStart | undefined
    await whileStopped(source, async () => {
      // The running subscriber may have stored a checkpoint meanwhile.
      const before = await applier.loadCheckpoint(source)
      if (isUnchanged(before)) return
      await applier.move(source, position)
      stored = { position, before }
    })
    return stored
  }

  /** Restores the checkpoint from before `set`, or deletes the one that it stored unless the subscription was committed. */
  async undo(source: RemoteTable, { position: set, before }: StoredStart): Promise<void> {
    const { applierOf, isDesired, whileStopped, deleteCheckpoint } = this.#options
    const applier = applierOf(source)
    // A later request set another start, or deleted the checkpoint.
    if ((await applier.loadCheckpoint(source))?.startTime !== set.startTime) return
    if (before) {
      const { applied: _, quarantined: __, gaps: ___, ...position } = before
      await whileStopped(source, () => applier.move(source, position))
    } else if (!isDesired(source)) await deleteCheckpoint(source)
  }
}

type StoredStart = { readonly position: Position; readonly before: Checkpoint | undefined }
