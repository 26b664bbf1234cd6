// When two nodes have applied what the other one had at some time: only then a row that differs is a difference, and not on its way.

import type { TableSource, TableStatus } from './row-messages.ts'

/** What both nodes have of a table. */
export type BothStatus = { here: TableStatus; there: TableStatus }

/** Both names: `here` is the local node. */
export type BothNames = { here: string; there: string }

/**
 * Why `now` has not reached what both nodes had at `then`; undefined when it has. A node that does not subscribe to a source waits for
 * nothing of it.
 */
export function missingAt(then: BothStatus, now: BothStatus, names: BothNames): string | undefined {
  return (
    missingOf(names.here, now.here, names.there, then.there) ?? missingOf(names.there, now.there, names.here, then.here)
  )
}

/** The same for one direction: `now` is what `node` has, `then` what `other` had. */
export function missingOf(node: string, now: TableStatus, other: string, then: TableStatus): string | undefined {
  if (!then.isPublished) return `${other} has transactions that it has not published`
  // The other node's own stream, and what it had of third nodes.
  const targets = [{ node: other, epoch: then.epoch, sequence: then.sequence }, ...then.sources]
  const late = targets.find((target) => target.node !== node && !hasReached(now.sources, target))
  return late && `${node} has not applied ${late.sequence} of ${late.node}`
}

function hasReached(
  sources: readonly TableSource[],
  target: Pick<TableSource, 'node' | 'epoch' | 'sequence'>,
): boolean {
  const found = sources.find(({ node }) => node === target.node)
  if (!found || target.sequence === 0) return true
  return found.epoch === target.epoch && found.sequence >= target.sequence
}

/** A subscription of the table is not live on one of the nodes: rows may be on their way for a long time. */
export const isLagging = ({ here, there }: BothStatus): boolean =>
  [...here.sources, ...there.sources].some(({ state }) => state !== 'live')

const BLOCKED = ['stalled', 'pending', 'paused']

/** A subscription of the table applies nothing for now: waiting for it would take long. */
export const isBlocked = ({ here, there }: BothStatus): boolean =>
  [...here.sources, ...there.sources].some(({ state }) => BLOCKED.includes(state))
