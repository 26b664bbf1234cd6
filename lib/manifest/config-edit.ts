// Changes of the manifest written into the text of the configuration file. Only the items concerned are touched: every
// other line, comments, blank lines and spelling included, stays as it is, byte for byte.

import { isDeepStrictEqual } from 'node:util'
import { Document, isMap, isScalar } from 'yaml'
import { editChunks, listPaths, lists, pairAt } from './config-blocks.ts'
import { columnOf, hasRange, indented, lineEnd, putBelow, replaceLines, replaceValue, styleOf } from './config-lines.ts'
import { editPair, itemsSpec, NotLineEditableError, plainItem } from './config-list.ts'
import { desiredItems, type ListItem, type ListName, listOf } from './config-target.ts'
import { ConfigText } from './config-text.ts'
import type { Manifest, ManifestChange } from './manifest.ts'

const valueAt = (tree: unknown, path: readonly string[]): unknown =>
  path.reduce<unknown>((value, key) => (value as Record<string, unknown> | null | undefined)?.[key], tree)

/** The text with that list holding the target. Throws where lines cannot be exchanged. */
function editLines(
  config: ConfigText,
  list: ListName,
  current: Manifest,
  target: ReadonlyMap<string, ListItem>,
): string {
  const { text, tree } = config
  const path = listPaths[list].split('.')
  const style = styleOf(text)
  const spec = itemsSpec(target, listOf(current, list), style)
  const slice = { text, base: 0 }
  const existing = pairAt(config, path)
  if (existing) return editPair(slice, existing, valueAt(tree, path), style, spec)

  // There is no such key: it is put, with those above it, below the nearest map that there is.
  let length = path.length - 1
  while (length > 0 && !pairAt(config, path.slice(0, length))) length--
  const pair = pairAt(config, path.slice(0, length))
  const missing = path.slice(length)
  if (!pair || !hasRange(pair.key) || !hasRange(pair.value)) throw new NotLineEditableError()
  const lines = missing.reduceRight(
    (below, name, index) => {
      const isLast = index === missing.length - 1
      return `${name}:\n${indented(below, isLast && !style.indentLists ? 0 : style.indent)}`
    },
    [...target.values()].map(spec.create).join(''),
  )
  const { value } = pair
  if (isMap(value) && !value.flow) {
    const at = lineEnd(text, value.range?.[1] ?? 0)
    return replaceLines(text, at, at, indented(lines, columnOf(text, value.range?.[0] ?? 0)))
  }
  if (!isScalar(value) || value.value !== null) throw new NotLineEditableError()
  return putBelow(slice, value, indented(lines, columnOf(text, pair.key.range[0]) + style.indent))
}

/** The outermost braces around that list written by the YAML package, every line outside of them as it is. */
function rewriteBraces(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): string {
  // A document of its own, since it is altered.
  const { document, text } = new ConfigText(config.onDisk)
  const path = listPaths[list].split('.')
  const above = path.map((_, index) => document.getIn(path.slice(0, index), true))
  const length = above.findIndex((node) => isMap(node) && node.flow)
  const braces = above[length]
  if (!isMap(braces) || !hasRange(braces)) throw new NotLineEditableError()
  braces.setIn(path.slice(length), target.size > 0 ? [...target.values()].map(plainItem) : null)
  // The comments around it stay where they stand.
  Object.assign(braces, { comment: undefined, commentBefore: undefined })
  const alone = new Document(braces)
  return replaceValue({ text, base: 0 }, braces, alone.toString({ lineWidth: 0 }).trimEnd())
}

/** The list set as a whole, the file written by the YAML package: for files that keep it behind aliases. */
function rewrite(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): string {
  // A document of its own, since it is altered.
  const { document, tree } = new ConfigText(config.onDisk)
  const path = listPaths[list].split('.')
  for (let length = 1; length < path.length; length++) {
    const above = path.slice(0, length)
    if (!isMap(document.getIn(above, true))) document.setIn(above, document.createNode(valueAt(tree, above) ?? {}))
  }
  document.setIn(path, target.size > 0 ? document.createNode([...target.values()].map(plainItem)) : null)
  return document.toString({ lineWidth: 0, indent: styleOf(config.text).indent })
}

const textOf = ({ config }: ConfigText, list: ListName): string =>
  config ? JSON.stringify(listOf(config.manifest, list)) : ''

/** Everything a file says but that list: the other lists, the settings, and what is the host's. */
function othersOf(text: ConfigText, list: ListName): unknown[] {
  const others = lists.filter((name) => name !== list).map((name) => textOf(text, name))
  const { nodeName, enabled } = text.config?.manifest ?? {}
  return [others, nodeName, enabled, text.config?.settings, { ...(text.tree as object), clustering: 0 }]
}

function editList(config: ConfigText, list: ListName, changes: readonly ManifestChange[]): ConfigText {
  const { manifest } = config.config as { manifest: Manifest }
  const target = desiredItems(list, manifest, changes)
  const current = listOf(manifest, list)
  if (target.size === current.length && [...target.values()].every((item, index) => item === current[index]))
    return config
  return editChunks(config, list, target) ?? editWhole(config, list, target)
}

/** As a whole: the text is edited, and read again from its first line to its last. */
function editWhole(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): ConfigText {
  const { manifest } = config.config as { manifest: Manifest }
  const desired = JSON.stringify([...target.values()])
  // A surprise in the YAML must not reach the disk: what was meant is compared with what the new text says.
  const others = othersOf(config, list)
  const attempt = (write: () => string): ConfigText | undefined => {
    try {
      const edited = new ConfigText(config.toDisk(write()))
      const isExpected = textOf(edited, list) === desired && isDeepStrictEqual(othersOf(edited, list), others)
      return isExpected ? edited : undefined
    } catch {
      return undefined
    }
  }
  const edited =
    attempt(() => editLines(config, list, manifest, target)) ??
    attempt(() => rewriteBraces(config, list, target)) ??
    attempt(() => rewrite(config, list, target))
  if (!edited) throw new Error(`${listPaths[list]} cannot be changed as it stands: write it without aliases or braces`)
  return edited
}

/**
 * The configuration with these changes written into it; the same object when the file says all of it already.
 * What the file says beside them stays, also where it differs from the manifest. The configuration must have no problems.
 */
export const editConfig = (config: ConfigText, changes: readonly ManifestChange[]): ConfigText =>
  lists.reduce((current, list) => editList(current, list, changes), config)
