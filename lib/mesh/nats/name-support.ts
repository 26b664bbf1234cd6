// Which names of nodes, databases and tables a version of nats-server cannot carry. They are parts of subjects.

type Version = readonly [major: number, minor: number, patch: number]

/**
 * A message on its way to a reader on another server has its subject behind an '@' in its reply subject. Before these versions the
 * reading side cuts at the last '@' instead of the first, and the message never arrives (nats-server PR 6777, April 2025).
 */
const carriesAtSign = ([major, minor, patch]: Version): boolean => {
  if (major !== 2 || minor > 11) return major >= 2
  return (minor === 11 && patch >= 2) || (minor === 10 && patch >= 28)
}

/** Why this version cannot carry the name; undefined if it can. */
export const unsupportedName = (name: string, version: Version): string | undefined =>
  name.includes('@') && !carriesAtSign(version)
    ? `nats-server ${version.join('.')} cannot carry '@' in a name; 2.10.28 or later of 2.10, and 2.11.2 or later, can`
    : undefined
