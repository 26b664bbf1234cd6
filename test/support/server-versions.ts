// The versions of nats-server that this machine has: the selected one, and those that `npm run test:servers` has fetched.

import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { isAtLeast, type Version, versionText } from '../../lib/mesh/nats/versions.ts'

import { cachePath, natsReleases } from './nats-servers.ts'

export type ServerBinary = { path: string; version: Version; name: string }

async function binary(path?: string): Promise<ServerBinary[]> {
  try {
    const found = await findBinary(path)
    return [{ ...found, name: versionText(found.version) }]
  } catch {
    return []
  }
}

/** One of each version, the oldest first. The selected binary, NATS_SERVER or that of the PATH, is among them. */
export async function serverBinaries(): Promise<ServerBinary[]> {
  const fetched = natsReleases.map((release) => binary(cachePath(release)))
  const found = (await Promise.all([binary(), binary('nats-server'), ...fetched])).flat()
  const byVersion = new Map(found.map((each) => [each.name, each]))
  return [...byVersion.values()].sort((a, b) => (isAtLeast(a.version, b.version) ? 1 : -1))
}

/** Why a test of several versions cannot run with these; false when it can. */
export const needsSeveral = (binaries: readonly ServerBinary[]) =>
  binaries.length < 2 && 'only one version of nats-server is here: npm run test:servers fetches others'

/** A path whose binary can be replaced, as by a package manager. */
export class ReplaceableBinary {
  readonly path: string

  constructor(directory: string) {
    this.path = join(directory, 'nats-server')
  }

  async set({ path }: ServerBinary): Promise<void> {
    await writeFile(`${this.path}.new`, `#!/bin/sh\nexec '${path}' "$@"\n`, { mode: 0o755 })
    await rename(`${this.path}.new`, this.path)
  }
}
