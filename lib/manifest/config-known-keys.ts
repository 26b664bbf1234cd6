// Finds keys of the section 'clustering' that nothing reads: probably misspelt.

import { suggestion } from '../util/suggestion.ts'
import { hubRoutesPath, leafRoutesPath, nodesPath } from './config.ts'
import type { Path } from './config-node.ts'
import { settingPaths } from './settings.ts'
import { fieldNames } from './subscription.ts'

/** Keys of HarperDB 4.x that have no meaning here. */
const harperKeys = [
  'clustering.databaseLevel',
  'clustering.leafServer.streams.maxConsumeMsgs',
  'clustering.leafServer.streams.maxIngestThreads',
]

/** Every key with a value that is no map. `[]` stands for the items of a list. */
const knownPaths = [
  'clustering.enabled',
  'clustering.nodeName',
  ...Object.values(settingPaths),
  ...harperKeys,
  ...[hubRoutesPath, leafRoutesPath].flatMap((path) => [`${path}.[].host`, `${path}.[].port`]),
  `${nodesPath}.[].name`,
  ...['database', 'table', ...fieldNames].map((name) => `${nodesPath}.[].subscriptions.[].${name}`),
]

interface Known extends ReadonlyMap<string, Known> {}

function knownTree(): Known {
  const root = new Map<string, Known>()
  for (const path of knownPaths) {
    let map = root
    for (const key of path.split('.')) {
      const below = (map.get(key) ?? new Map<string, Known>()) as Map<string, Known>
      map.set(key, below)
      map = below
    }
  }
  return root
}

const known = knownTree()

/** The unknown keys of the section and the nearest known ones; only keys, never values. */
export function unknownKeys(tree: unknown): { path: Path; message: string }[] {
  const found: { path: Path; message: string }[] = []
  const search = (value: unknown, names: Known, path: Path): void => {
    if (typeof value !== 'object' || value === null) return
    const items = names.get('[]')
    if (Array.isArray(value)) {
      if (items) for (const [index, item] of value.entries()) search(item, items, [...path, index])
      return
    }
    // A value that should have no keys is a fault that is reported as such.
    if (items || names.size === 0) return
    for (const [key, below] of Object.entries(value)) {
      const next = names.get(key)
      if (next) search(below, next, [...path, key])
      else
        found.push({
          path: [...path, key],
          message: `is an unknown key and has no effect.${suggestion(key, [...names.keys()])}`,
        })
    }
  }
  search((tree as { clustering?: unknown } | null)?.clustering, known.get('clustering')!, ['clustering'])
  return found
}
