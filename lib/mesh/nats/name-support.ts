// Names of nodes, databases and tables are parts of subjects: which of them a version of nats-server cannot carry.

import { isAtLeast, type Version, versionText } from './versions.ts'

/**
 * A message to a reader on a remote server carries its subject behind an '@' in the reply subject. Earlier versions split at the
 * last '@' instead of the first, and the message is lost (nats-server PR 6777, April 2025).
 */
const carriesAtSign = (version: Version): boolean =>
  isAtLeast(version, [2, 11, 2]) || (isAtLeast(version, [2, 10, 28]) && !isAtLeast(version, [2, 11, 0]))

/** Why this version cannot carry the name; undefined if it can. */
export const unsupportedName = (name: string, version: Version): string | undefined =>
  name.includes('@') && !carriesAtSign(version)
    ? `nats-server ${versionText(version)} cannot carry '@' in a name; 2.10.28 or later of 2.10, and 2.11.2 or later, can`
    : undefined
