// What every implementation of the Mesh port must do, as cases for any test runner or a plain program.

import { bounded, type ContractCase, runCases } from '../contract-case.ts'
import { limitCases } from './limits.ts'
import { closeCases, duplicateCases, memberCases, openCases, relinkCases, restartCases } from './links.ts'
import { messageAtCases, readCases, sequenceAtCases } from './readers.ts'
import { announceCases, requestCases } from './requests.ts'
import { type MeshCase, MeshScene, type NetworkUnderTest } from './scene.ts'
import { appendCases, purgeCases, streamCases } from './streams.ts'

export type { NetworkUnderTest }

/** The cases share one network, because real servers take seconds to start. `close` ends it; call it after the last case. */
export type MeshContract = { cases: ContractCase[]; close(): Promise<void> }

const groups: Record<string, Record<string, MeshCase>> = {
  open: openCases,
  request: requestCases,
  announce: announceCases,
  streams: streamCases,
  append: appendCases,
  purgeStream: purgeCases,
  setLimits: limitCases,
  sequenceAt: sequenceAtCases,
  messageAt: messageAtCases,
  read: readCases,
  members: memberCases,
  'restart of the stream server': restartCases,
  'broken links': relinkCases,
  close: closeCases,
  'duplicate node name': duplicateCases,
}

/**
 * `const { cases, close } = meshContract(create); after(close); for (const { name, run } of cases) test(name, run)`. The first case
 * that runs creates the network. Run the cases one after the other.
 */
export function meshContract(create: () => NetworkUnderTest | Promise<NetworkUnderTest>): MeshContract {
  let network: NetworkUnderTest | undefined
  let created: Promise<MeshScene> | undefined
  const createScene = async () => {
    network = await create()
    return MeshScene.create(network)
  }
  const scene = () => {
    created ??= createScene()
    return created
  }
  const cases = Object.entries(groups).flatMap(([group, members]) =>
    Object.entries(members).map(([name, work]) => ({
      name: `${group}: ${name}`,
      run: () => bounded(async () => work(await scene())),
    })),
  )
  const close = async () => {
    await created?.catch(() => {})
    await network?.close()
  }
  return { cases, close }
}

/** Runs all cases without a test runner. Rejects with an AggregateError of all failures; each message begins with the name of its case. */
export async function checkMesh(create: () => NetworkUnderTest | Promise<NetworkUnderTest>): Promise<void> {
  const { cases, close } = meshContract(create)
  try {
    await runCases('mesh', cases)
  } finally {
    await close()
  }
}
