// Finds names in the configuration file that the network does not support, which is known only after the network was created.

import type { ConfigText, Problem } from './config-text.ts'
import type { NameCheck } from './names.ts'

/** One problem for each name that `nameFault` rejects; empty while clustering is disabled. */
export function nameProblems(text: ConfigText, nameFault: NameCheck): Problem[] {
  const { enabled, nodeName, nodes } = text.config?.manifest ?? {}
  if (!enabled) return []
  const problems: Problem[] = []
  const check = (name: string, ...path: (string | number)[]) => {
    const reason = nameFault(name)
    if (reason) problems.push(text.problem(['clustering', ...path], `must not be '${name}': ${reason}`))
  }
  check(nodeName ?? '', 'nodeName')
  for (const [index, { name, subscriptions }] of (nodes ?? []).entries()) {
    check(name, 'nodes', index, 'name')
    for (const [each, { database, table }] of subscriptions.entries()) {
      check(database, 'nodes', index, 'subscriptions', each, 'database')
      check(table, 'nodes', index, 'subscriptions', each, 'table')
    }
  }
  return problems
}
