// What the parts of a service are built on: the mesh, and the state that the directory `clustering` keeps.

import { join } from 'node:path'
import type { HybridClock } from '../host/hybrid-clock.ts'
import { tokenFault } from '../manifest/names.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh, NameCheck } from '../mesh/mesh.ts'
import { Registers } from '../peers/registers.ts'
import type { UnrecordedCommits } from '../replication/publish/unrecorded-commits.ts'
import { Quarantine } from '../replication/subscribe/quarantine.ts'
import { createMesh } from './create-mesh.ts'
import { stateDirectory } from './locks.ts'
import type { CheckedOptions } from './options.ts'
import type { Emit } from './reports.ts'
import { openUnrecordedCommits } from './unrecorded-commits.ts'

export type ServiceOptions = {
  options: CheckedOptions
  store: ManifestStore
  clock: HybridClock
  emit: Emit
}

export type Foundation = {
  mesh: Mesh
  nameFault: NameCheck
  quarantine: Quarantine
  registers: Registers
  unrecorded: UnrecordedCommits
}

/** Nothing runs yet. Rejects config_rejected, directory_unusable, nats_server_missing. */
export async function openFoundation({ options, store, clock }: ServiceOptions): Promise<Foundation> {
  const directory = stateDirectory(options.configFile, store.settings)
  const mesh = createMesh(options, store, directory)
  const unsupported = await mesh.nameCheck?.()
  const nameFault: NameCheck = (name) => tokenFault(name) ?? unsupported?.(name)
  store.restrictNames(nameFault)
  const quarantine = await Quarantine.open({
    directory: join(directory, 'quarantine'),
    maxMessages: options.maxQuarantined,
    maxBytes: options.maxQuarantinedBytes,
    logger: options.logger,
  })
  const registers = await Registers.open(
    join(directory, 'revisions.json'),
    store.manifest,
    clock,
    options.logger,
    mesh.timers.now.bind(mesh.timers),
  )
  const unrecorded = await openUnrecordedCommits(options, store.settings)
  return { mesh, nameFault, quarantine, registers, unrecorded }
}
