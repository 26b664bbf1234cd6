// The abilities of this machine: namespaces and small disks when this process may create them, and the faults that are skipped otherwise.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Disks } from './disks.ts'
import type { FaultKind } from './faults.ts'
import { inNamespaces, type Network, onLoopback } from './network.ts'

export type Machine = {
  network: Network
  disks?: Disks | undefined
  /** The selected faults that can be injected on this machine. */
  kinds: FaultKind[]
  /** Why the others cannot, one line each. */
  missing: string[]
}

export async function prepareMachine(
  nodes: number,
  desired: readonly FaultKind[],
  directory: string,
): Promise<Machine> {
  const needs = (what: FaultKind['needs']) => desired.some((kind) => kind.needs === what)
  const missing: string[] = []
  const leftOut = (what: FaultKind['needs'], error: unknown) => {
    const names = desired.filter((kind) => kind.needs === what).map(({ name }) => name)
    missing.push(`skipped: ${names.join(', ')}: ${(error as Error).message}`)
  }
  let network: Network | undefined
  if (needs('cable'))
    network = await inNamespaces(nodes, needs('links')).catch((error) => {
      leftOut('cable', error)
      return undefined
    })
  network ??= await onLoopback(nodes, needs('links'))
  let disks: Disks | undefined
  if (needs('disks')) {
    const trial = join(directory, 'trial')
    const trials = new Disks()
    try {
      await trials.mount(trial, 1)
      disks = new Disks()
    } catch (error) {
      leftOut('disks', error)
    } finally {
      await trials.close()
      await rm(trial, { recursive: true, force: true })
    }
  }
  const here = { cable: network.cable, links: network.links, disks }
  return { network, disks, missing, kinds: desired.filter(({ needs }) => !needs || here[needs]) }
}
