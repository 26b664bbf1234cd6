// The lists of the configuration file as the lines of each item, cached between commits: a change parses and checks only the
// lines that it touches. Only for files without anchors, which would connect the items.

import { isAlias, isMap, isNode, isScalar, isSeq, type Pair, parseDocument, visit } from 'yaml'
import { hubRoutesPath, leafRoutesPath, nodesPath, readConfig } from './config.ts'
import { columnOf, hasRange, styleOf } from './config-lines.ts'
import { type Block, type Blocks, cutBlock, itemsSpec, keyOfValue, linesOf } from './config-list.ts'
import { ConfigNode } from './config-node.ts'
import { type ListItem, type ListName, listOf } from './config-target.ts'
import { ConfigText } from './config-text.ts'
import { type Manifest, share } from './manifest.ts'

export const lists = ['hub', 'leaf', 'nodes'] as const
export const listPaths: Record<ListName, string> = { hub: hubRoutesPath, leaf: leafRoutesPath, nodes: nodesPath }

/** The pair at that path; undefined behind an alias. */
export function pairAt({ document }: ConfigText, path: readonly string[]): Pair | undefined {
  let pair: Pair | undefined
  for (const name of path) {
    const map = pair ? pair.value : document.contents
    if (!isMap(map)) return undefined
    pair = map.items.find(({ key }) => isScalar(key) && key.value === name) as Pair | undefined
    if (!pair) return undefined
  }
  return pair
}

function hasAnchors({ document }: ConfigText): boolean {
  let found = false
  visit(document, (_, node) => {
    if (!isAlias(node) && !(isNode(node) && node.anchor)) return
    found = true
    return visit.BREAK
  })
  return found
}

function blocksOf(config: ConfigText): Blocks {
  if (hasAnchors(config)) return {}
  const blocks: Partial<Record<ListName, Block<string>>> = {}
  for (const list of lists) {
    const value = pairAt(config, listPaths[list].split('.'))?.value
    if (!isSeq(value) || value.flow || !hasRange(value) || value.items.length === 0) continue
    const values = value.toJSON() as unknown[]
    const { chunks, ...block } = cutBlock({ text: config.text, base: 0 }, value, values.map(keyOfValue))
    blocks[list] = { ...block, chunks: new Map([...chunks].map(([key, { text }]) => [key, text])) }
  }
  return blocks
}

/** The items of a text that is one block list, as parsed and as plain values; empty for any other text. */
function readLines(text: string, column: number): { items: unknown[]; values: unknown[] } {
  const { contents, errors } = parseDocument(text, { prettyErrors: false })
  const isList = errors.length === 0 && isSeq(contents) && !contents.flow
  if (!isList || columnOf(text, contents.range[0]) !== column) return { items: [], values: [] }
  return { items: contents.items, values: contents.toJSON() as unknown[] }
}

/** The items of a file that has this list, for a node of that name. */
function itemsIn(list: ListName, values: unknown[], { nodeName, enabled }: Manifest): readonly ListItem[] {
  const path = listPaths[list].split('.').slice(1)
  const below = path.reduceRight<unknown>((tree, key) => ({ [key]: tree }), values)
  const root = new ConfigNode({ clustering: { enabled, nodeName: nodeName || null, ...(below as object) } })
  const { manifest } = readConfig(root)
  return root.faults.length === 0 ? listOf(manifest, list) : []
}

const withList = (manifest: Manifest, list: ListName, items: readonly ListItem[]): Manifest =>
  share(
    manifest,
    list === 'nodes'
      ? { ...manifest, nodes: items as Manifest['nodes'] }
      : { ...manifest, routes: { ...manifest.routes, [list]: items } },
  )

/** The configuration with `target` as that list; undefined when the list cannot be edited item by item. */
export function editChunks(
  config: ConfigText,
  list: ListName,
  target: ReadonlyMap<string, ListItem>,
): ConfigText | undefined {
  const { text, config: inFile } = config
  const blocks = config.blocks ?? blocksOf(config)
  const block = blocks[list]
  if (!inFile || !block || target.size === 0) return undefined
  const { start, end, column } = block
  const spec = itemsSpec(target, listOf(inFile.manifest, list), styleOf(text))
  const chunks = new Map<string, string>()
  const changed: [item: ListItem, lines: string][] = []
  for (const [key, item] of target) {
    const old = block.chunks.get(key)
    let lines = old
    if (old === undefined || !spec.same(key, item)) {
      const chunk = old === undefined ? undefined : { text: old, base: 0, item: readLines(old, column).items[0] }
      lines = linesOf(chunk, item, column, spec)
      changed.push([item, lines])
    }
    chunks.set(key, lines!)
  }
  // Checks that the new lines read as intended before they are written.
  const { values } = readLines(changed.map(([, lines]) => lines).join(''), column)
  const expected = changed.map(([item]) => item)
  if (expected.length > 0 && JSON.stringify(itemsIn(list, values, inFile.manifest)) !== JSON.stringify(expected))
    return undefined

  const newText = [...chunks.values()].join('')
  const shift = newText.length - (end - start)
  const edited: Partial<Record<ListName, Block<string>>> = {
    [list]: { start, end: start + newText.length, column, chunks },
  }
  for (const other of lists) {
    const otherBlock = blocks[other]
    if (!otherBlock || other === list) continue
    edited[other] =
      otherBlock.start < start
        ? otherBlock
        : { ...otherBlock, start: otherBlock.start + shift, end: otherBlock.end + shift }
  }
  const manifest = withList(inFile.manifest, list, [...target.values()])
  return new ConfigText(config.toDisk(text.slice(0, start) + newText + text.slice(end)), {
    config: { ...inFile, manifest },
    blocks: edited,
  })
}
