// Which of the commits that wait can be written to the file together, and what each comes to. Pure.

import { diff } from './diff.ts'
import { type Cause, type Change, type Manifest, share } from './manifest.ts'

/** What a change came to; `changes` is empty, and `current` is `previous`, when there was nothing to do. */
export type Commit = {
  previous: Manifest
  current: Manifest
  changes: readonly Change[]
  cause: Cause
  /** What whoever asked for the commit wants its followers to know. */
  note?: unknown
}

/** A commit that waits for its turn. */
export type Request = {
  readonly change: (current: Manifest) => Manifest
  readonly cause: Cause
  readonly note: unknown
  resolve(commit: Commit): void
  reject(reason: unknown): void
}

/** What a request comes to; `refusal`: what its change threw. */
export type Step = {
  readonly request: Request
  readonly previous: Manifest
  readonly current: Manifest
  readonly changes: readonly Change[]
  readonly refusal?: { readonly reason: unknown }
}

function stepOf(previous: Manifest, request: Request): Step {
  try {
    const current = share(previous, request.change(previous))
    const changes = diff(previous, current)
    return { request, previous, current: changes.length > 0 ? current : previous, changes }
  } catch (reason) {
    return { request, previous, current: previous, changes: [], refusal: { reason } }
  }
}

/**
 * From the first request on, at least one. A change may look at more than the manifest: at what followed from the commits
 * before it, node by node. So it goes together with earlier ones only if it changes something, and no node that they change.
 */
export function planSteps(manifest: Manifest, requests: readonly Request[]): Step[] {
  const steps: Step[] = []
  const changed = new Set<string>()
  let current = manifest
  for (const request of requests) {
    const step = stepOf(current, request)
    const nodes = step.changes.flatMap((change) => ('node' in change ? [change.node.name] : []))
    const alone = step.changes.length === 0 || nodes.some((name) => changed.has(name))
    if (alone && current !== manifest) break
    steps.push(step)
    for (const name of nodes) changed.add(name)
    current = step.current
  }
  return steps
}
