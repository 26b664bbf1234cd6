// Versions of formats on the wire and on disk. A node reads and writes the current version of a format and the one before.

/** The oldest and the current version that a node reads. */
export type Versions = readonly [oldest: number, current: number]

export const readableVersions = (current: number): Versions => [Math.max(1, current - 1), current]

export const isReadable = (version: number, [oldest, current]: Versions): boolean =>
  version >= oldest && version <= current

/** True for a version that a later release may have written. */
export const isLater = (version: unknown, [, current]: Versions): version is number =>
  typeof version === 'number' && version > current

/** The highest version that both sides read; undefined if they have none in common. */
export function commonVersion([oldest, current]: Versions, [otherOldest, otherCurrent]: Versions): number | undefined {
  const common = Math.min(current, otherCurrent)
  return common >= Math.max(oldest, otherOldest) ? common : undefined
}

/** "1", or "1 to 2". */
export const versionText = ([oldest, current]: Versions): string =>
  oldest === current ? `${current}` : `${oldest} to ${current}`
