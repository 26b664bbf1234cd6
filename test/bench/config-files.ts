// Configuration files with many entries, formatted as if written by hand.

/** The kinds of entries. All nodes of one file replicate the same tables. */
export type Entries = { readonly list: string; readonly routes?: true; readonly tablesOfNode?: number }

export const routeEntries: Entries = { list: 'hub routes', routes: true }
export const subscriptionEntries: readonly Entries[] = [
  { list: 'subscriptions, 10 a node', tablesOfNode: 10 },
  { list: 'subscriptions, 1 node', tablesOfNode: Number.POSITIVE_INFINITY },
]

/** The node with the one additional subscription that changes. */
export const partner = 'partner'
export const dog = { database: 'dev', table: 'dog' }

export const range = (count: number) => Array.from({ length: count }, (_, index) => index)

/** Nodes and their tables. */
export function nodesOf({ tablesOfNode }: Entries, count: number): { name: string; tables: string[] }[] {
  if (tablesOfNode === undefined) return []
  const size = Math.min(tablesOfNode, count)
  return range(Math.ceil(count / size)).map((node) => ({
    name: `node${node}`,
    tables: range(Math.min(size, count - node * size)).map((table) => `t${table}`),
  }))
}

export const routeLine = (host: string) => `          - { host: ${host}, port: 9932 }\n`
const tableLine = (table: string) => `        - { database: dev, table: ${table}, publish: true, subscribe: false }\n`
const nodeLines = (name: string, tables: readonly string[]) =>
  `    # the neighbour\n    - name: ${name}\n      subscriptions:\n${tables.map(tableLine).join('')}`

export const nodesKey = '  nodes:\n'

export const fileOf = (entries: Entries, count: number, enabled: boolean): string =>
  `# What is the host's own.
http: { port: 9926 }
clustering:
  enabled: ${enabled}
  nodeName: node
  user: cluster_user
  hubServer:
    cluster:
      network:
        port: 9932
        routes:
          # the office
          - { host: office, port: 9932 }
${range(entries.routes ? count : 0)
  .map((route) => routeLine(`host${route}`))
  .join('')}${nodesKey}${nodeLines(partner, [dog.table])}${nodesOf(entries, count)
  .map(({ name, tables }) => nodeLines(name, tables))
  .join('')}`
