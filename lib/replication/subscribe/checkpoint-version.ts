// Checkpoints as the database stores them: with their version.

import type { Checkpoint, Host, RemoteTable } from '../../host/host.ts'
import { isLater, readableVersions, versionText } from '../../util/format-version.ts'

/**
 * Version of checkpoints, in their field `v`. A node reads this one and the one before.
 *
 * 1: the fields of `Checkpoint`.
 */
export const CHECKPOINT_VERSION = 1
const READABLE = readableVersions(CHECKPOINT_VERSION)

/** A later version of enmesh stored the checkpoint: it is neither read nor replaced. */
export class CheckpointVersionError extends Error {
  override readonly name = 'CheckpointVersionError'
}

export const withVersion = (checkpoint: Checkpoint): Checkpoint => ({ v: CHECKPOINT_VERSION, ...checkpoint })

/** The stored checkpoint without its version. Rejects CheckpointVersionError, and as the host does. */
export async function loadCheckpoint(
  host: Pick<Host, 'loadCheckpoint'>,
  source: RemoteTable,
): Promise<Checkpoint | undefined> {
  const stored = await host.loadCheckpoint(source)
  if (!stored) return undefined
  const { v, ...checkpoint } = stored
  if (!isLater(v, READABLE)) return checkpoint
  const { node, database, table } = source
  throw new CheckpointVersionError(
    `the checkpoint of ${database}.${table} from ${node} has version ${v}, this node reads version ${versionText(READABLE)}`,
  )
}
