// Which names of nodes, databases and tables a version of nats-server cannot carry. They are parts of subjects.

import { isAtLeast, type Version, versionText } from './versions.ts'

/**
 * A message on its way to a reader on another server has its subject behind an '@' in its reply subject. Before these versions the
 * reading side cuts at the last '@' instead of the first, and the message never arrives (nats-server PR 6777, April 2025).
 */
const carriesAtSign = (version: Version): boolean =>
  isAtLeast(version, [2, 11, 2]) || (isAtLeast(version, [2, 10, 28]) && !isAtLeast(version, [2, 11, 0]))

/** Why this version cannot carry the name; undefined if it can. */
export const unsupportedName = (name: string, version: Version): string | undefined =>
  name.includes('@') && !carriesAtSign(version)
    ? `nats-server ${versionText(version)} cannot carry '@' in a name; 2.10.28 or later of 2.10, and 2.11.2 or later, can`
    : undefined
