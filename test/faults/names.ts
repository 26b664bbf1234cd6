// Names of renamed nodes: node2 becomes node2-1, then node2-2. The run, its keys and the check always use the first name.

/** The name that a node has in the cluster after this many renames. */
export const nameAfter = (first: string, renames: number): string => (renames === 0 ? first : `${first}-${renames}`)

export const firstName = (name: string): string => name.replace(/-\d+$/, '')
