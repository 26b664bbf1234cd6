// Writes changes of the manifest into the text of the configuration file. Only the lines of changed items change; all others,
// with comments, blank lines and spelling, stay the same byte for byte.

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

/** The text with `target` as that list. Throws NotLineEditableError. */
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

  // The key is missing: insert it, with its missing parents, below the nearest existing map.
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

/**
 * Where the section is in the text: its key and value, without the comments behind them. The host's part is everything outside.
 */
function sectionRange(config: ConfigText): { start: number; end: number } {
  const pair = pairAt(config, ['clustering'])
  if (!pair || !hasRange(pair.key) || !hasRange(pair.value)) throw new NotLineEditableError()
  const { text } = config
  const [keyStart] = pair.key.range
  const [, valueEnd] = pair.value.range
  const [, , rootEnd] = config.document.contents?.range ?? [0, 0, text.length]
  const isBlock = isMap(pair.value) && !pair.value.flow
  return { start: keyStart, end: isBlock ? Math.min(lineEnd(text, valueEnd), rootEnd) : valueEnd }
}

/** Rewrites the outermost flow map of the section around that list; the lines outside of it stay the same. */
function rewriteBraces(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): string {
  // A separate document, because it is modified.
  const { document, text } = new ConfigText(config.onDisk)
  const path = listPaths[list].split('.')
  const above = path.map((_, index) => document.getIn(path.slice(0, index), true))
  const length = above.findIndex((node, index) => index > 0 && isMap(node) && node.flow)
  const braces = above[length]
  if (!isMap(braces) || !hasRange(braces)) throw new NotLineEditableError()
  braces.setIn(path.slice(length), target.size > 0 ? [...target.values()].map(plainItem) : null)
  // The comments around it are outside of the replaced range.
  Object.assign(braces, { comment: undefined, commentBefore: undefined })
  const alone = new Document(braces)
  return replaceValue({ text, base: 0 }, braces, alone.toString({ lineWidth: 0 }).trimEnd())
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Rewrites the section of a JSON file as JSON: the host may read it with JSON.parse, which takes nothing else of YAML. */
function rewriteJson(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): string {
  const { document, text } = config
  const copy = document.clone()
  const path = listPaths[list].split('.')
  copy.setIn(path, target.size > 0 ? [...target.values()].map(plainItem) : null)
  const pair = pairAt(config, ['clustering'])
  if (!pair || !hasRange(pair.value)) throw new NotLineEditableError()
  const [start, end] = pair.value.range
  const indentation = /\n([ \t]+)"/.exec(text)?.[1] ?? '  '
  const lineStart = text.lastIndexOf('\n', start) + 1
  const outer = /^[ \t]*/.exec(text.slice(lineStart))?.[0] ?? ''
  const { clustering } = copy.toJS() as { clustering: unknown }
  const isPretty = text.slice(start, end).includes('\n')
  const json = JSON.stringify(clustering, null, isPretty ? indentation : undefined).replaceAll('\n', `\n${outer}`)
  return replaceValue({ text, base: 0 }, pair.value, json)
}

/** Rewrites the whole section: for lists behind aliases. */
function rewriteSection(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): string {
  // A separate document, because it is modified.
  const { document, tree } = new ConfigText(config.onDisk)
  const path = listPaths[list].split('.')
  for (let length = 1; length < path.length; length++) {
    const above = path.slice(0, length)
    if (!isMap(document.getIn(above, true))) document.setIn(above, document.createNode(valueAt(tree, above) ?? {}))
  }
  document.setIn(path, target.size > 0 ? document.createNode([...target.values()].map(plainItem)) : null)
  const rewritten = new ConfigText(document.toString({ lineWidth: 0, indent: styleOf(config.text).indent }))
  const from = sectionRange(rewritten)
  const to = sectionRange(config)
  return config.text.slice(0, to.start) + rewritten.text.slice(from.start, from.end) + config.text.slice(to.end)
}

const textOf = ({ config }: ConfigText, list: ListName): string =>
  config ? JSON.stringify(listOf(config.manifest, list)) : ''

/** Everything in a file except that list: the other lists, the settings, the host's sections. */
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

/** Edits the text and parses the result as a whole. */
function editWhole(config: ConfigText, list: ListName, target: ReadonlyMap<string, ListItem>): ConfigText {
  const { manifest } = config.config as { manifest: Manifest }
  const desired = JSON.stringify([...target.values()])
  // Checks that the new text reads as intended before it is written.
  const others = othersOf(config, list)
  const { start, end } = sectionRange(config)
  const [before, after] = [config.text.slice(0, start), config.text.slice(end)]
  const keepsOthers = ({ text }: ConfigText) => text.startsWith(before) && text.endsWith(after)
  const attempt = (write: () => string): ConfigText | undefined => {
    try {
      const edited = new ConfigText(config.toDisk(write()))
      const isExpected = textOf(edited, list) === desired && keepsOthers(edited)
      return isExpected && isDeepStrictEqual(othersOf(edited, list), others) ? edited : undefined
    } catch {
      return undefined
    }
  }
  if (isJson(config.text)) {
    const json = attempt(() => rewriteJson(config, list, target))
    if (json) return json
  }
  const edited =
    attempt(() => editLines(config, list, manifest, target)) ??
    attempt(() => rewriteBraces(config, list, target)) ??
    attempt(() => rewriteSection(config, list, target))
  if (!edited) throw new Error(`${listPaths[list]} cannot be edited: write it without aliases or braces`)
  return edited
}

/**
 * The configuration with these changes; the same object when the file has all of them already. Other contents of the file stay,
 * even where they differ from the manifest. The configuration must have no problems.
 */
export const editConfig = (config: ConfigText, changes: readonly ManifestChange[]): ConfigText =>
  lists.reduce((current, list) => editList(current, list, changes), config)
