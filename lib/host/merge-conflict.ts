// Conflicts of a late write with newer ones of other nodes, attribute by attribute.

import { isDeepStrictEqual } from 'node:util'
import type { StoredRow, Timestamp } from './host.ts'
import { nodeOfTimestamp } from './hybrid-clock.ts'

/** `value` is undefined where the attribute, or with `attribute` undefined the row, is absent or deleted. */
export type RowVersion = { readonly timestamp: Timestamp; readonly value: unknown }

/** A late write lost against a newer one of another node. */
export type MergeConflict = {
  /** Undefined for the whole row: one of the two versions is a delete. */
  readonly attribute: string | undefined
  readonly lost: RowVersion
  readonly kept: RowVersion
}

type LateChange = { operation: 'put' | 'update' | 'delete'; timestamp: Timestamp; record?: Record<string, unknown> }

/**
 * Reports what `change` loses against `stored`. The node that wrote the newer version did not know the other one, because it arrives only now: on that
 * node this is exact. Elsewhere the newer version may have been written with knowledge of the older one, which took a longer way. Writes of
 * one node, and versions that are equal, are no conflict.
 */
export function reportConflicts(
  stored: StoredRow,
  change: LateChange,
  report: (conflict: MergeConflict) => void,
): void {
  const { timestamp, record } = change
  const node = nodeOfTimestamp(timestamp)
  const losesTo = (kept: Timestamp) => timestamp < kept && nodeOfTimestamp(kept) !== node
  const compare = (attribute: string | undefined, lost: unknown, kept: Timestamp, value: unknown) => {
    if (losesTo(kept) && !isDeepStrictEqual(lost, value))
      report({ attribute, lost: { timestamp, value: lost }, kept: { timestamp: kept, value } })
  }
  if (!stored.record) return compare(undefined, record, stored.timestamp, undefined)
  const keptOf = (name: string) => ownValue(stored.updated, name) ?? stored.timestamp
  if (!record) {
    const kept = Object.entries(stored.record).filter(([name]) => losesTo(keptOf(name)))
    const newest = kept
      .map(([name]) => keptOf(name))
      .sort()
      .at(-1)
    if (newest !== undefined) compare(undefined, undefined, newest, Object.fromEntries(kept))
    return
  }
  const names = new Set(Object.keys(record))
  if (change.operation === 'put') for (const name of Object.keys(stored.record)) names.add(name)
  for (const name of names) compare(name, ownValue(record, name), keptOf(name), ownValue(stored.record, name))
}

/** An attribute may be named `constructor`. */
const ownValue = <T>(values: Readonly<Record<string, T>> | undefined, name: string): T | undefined =>
  values && Object.hasOwn(values, name) ? values[name] : undefined
