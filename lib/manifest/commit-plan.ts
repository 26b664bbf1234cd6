// Plans which waiting commits are written to the file together, and computes the result of each. Pure.

import type { Timestamp } from '../host/host.ts'
import { diff } from './diff.ts'
import { type ChangeAuthor, type Manifest, type ManifestChange, share } from './manifest.ts'

/** The result of a change. Without an effect `changes` is empty and `current` is `previous`. */
export type Commit = ChangeAuthor & {
  previous: Manifest
  current: Manifest
  changes: readonly ManifestChange[]
  /** Set when the remote node of the changes has agreed to them already. */
  revisions?: Revisions
}

/** Revisions of the subscriptions that a commit changes, by `tableKey`; all are subscriptions with one remote node. */
export type Revisions = ReadonlyMap<string, Timestamp>

export type CommitRequest = {
  readonly change: (current: Manifest) => Manifest
  readonly author: ChangeAuthor
  /** `change` may fill it: it is read after the last run of `change`. */
  readonly revisions: Revisions | undefined
  resolve(commit: Commit): void
  reject(reason: unknown): void
}

/** The result of a request; `rejection`: what its change threw. */
export type CommitStep = {
  readonly request: CommitRequest
  readonly previous: Manifest
  readonly current: Manifest
  readonly changes: readonly ManifestChange[]
  readonly rejection?: { readonly reason: unknown }
}

function createStep(previous: Manifest, request: CommitRequest): CommitStep {
  try {
    const current = share(previous, request.change(previous))
    const changes = diff(previous, current)
    return { request, previous, current: changes.length > 0 ? current : previous, changes }
  } catch (reason) {
    return { request, previous, current: previous, changes: [], rejection: { reason } }
  }
}

/**
 * Takes requests from the first one on, at least one. The change of a node may depend on the effects of earlier commits of that
 * node. So a request joins earlier ones only if it changes something, and none of the nodes that they change.
 */
export function planCommits(manifest: Manifest, requests: readonly CommitRequest[]): CommitStep[] {
  const steps: CommitStep[] = []
  const changed = new Set<string>()
  let current = manifest
  for (const request of requests) {
    const step = createStep(current, request)
    const nodes = step.changes.flatMap((change) => ('node' in change ? [change.node.name] : []))
    const mustRunAlone = step.changes.length === 0 || nodes.some((name) => changed.has(name))
    if (mustRunAlone && current !== manifest) break
    steps.push(step)
    for (const name of nodes) changed.add(name)
    current = step.current
  }
  return steps
}
