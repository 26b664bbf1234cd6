// Changes of the manifest written into the text of the configuration file. Only the items concerned are touched: every
// other line, comments, blank lines and spelling included, stays as it is, byte for byte.

import { Document, isMap, isScalar, isSeq, type Pair, type ParsedNode, type YAMLMap, type YAMLSeq } from 'yaml'
import { hubRoutesPath, leafRoutesPath, nodesPath } from './config.ts'
import { ConfigText } from './config-text.ts'
import { inOrder } from './diff.ts'
import {
  type Change,
  type Manifest,
  type Node,
  nodeKey,
  type Route,
  routeKey,
  type Subscription,
  sameSubscription,
  tableKey,
} from './manifest.ts'

type List = 'hub' | 'leaf' | 'nodes'
const listPaths: Record<List, string> = { hub: hubRoutesPath, leaf: leafRoutesPath, nodes: nodesPath }

/** One of the three lists: how its items are told apart, and how they are put down. */
type Kind<T> = {
  readonly key: (item: T) => string
  /** Plain values for a new item. */
  readonly plain: (item: T) => unknown
  /** An item as the file has it, brought up to date in place, so that its comments stay. */
  readonly update: (document: Document, item: YAMLMap, wanted: T) => void
}

const routeKind: Kind<Route> = { key: routeKey, plain: ({ host, port }) => ({ host, port }), update: () => {} }

const newSubscription = (document: Document, subscription: Subscription, flow: boolean) => {
  const { database, table, publish, subscribe } = subscription
  return Object.assign(document.createNode({ database, table, publish, subscribe }), { flow })
}

const nodeKind: Kind<Node> = {
  key: nodeKey,
  plain: ({ name, subscriptions }) => ({ name, subscriptions: subscriptions.length > 0 ? subscriptions : null }),
  update(document, item, { subscriptions }) {
    const list = item.get('subscriptions', true)
    const known = new Map<string, YAMLMap>()
    if (isSeq(list))
      for (const entry of list.items)
        if (isMap(entry))
          known.set(tableKey({ database: String(entry.get('database')), table: String(entry.get('table')) }), entry)
    const flow = [...known.values()][0]?.flow ?? true
    const items = subscriptions.map((subscription) => {
      const entry = known.get(tableKey(subscription))
      if (!entry) return newSubscription(document, subscription, flow)
      for (const direction of ['publish', 'subscribe'] as const)
        if (entry.get(direction) !== subscription[direction]) entry.set(direction, subscription[direction])
      return entry
    })
    if (items.length === 0) item.set('subscriptions', null)
    else if (isSeq(list) && !(list.flow && list.items.length === 0)) list.items = items
    else item.set('subscriptions', Object.assign(document.createNode([]), { items }))
  },
}

/** The file's own list after these changes; what they do not name stays, also where it differs from the manifest. */
function targetOf(list: List, held: Manifest, changes: readonly Change[]): Map<string, Route | Node> {
  const items: readonly (Route | Node)[] = list === 'nodes' ? held.nodes : held.routes[list]
  const key = (item: Route | Node) => ('name' in item ? nodeKey(item) : routeKey(item))
  let target = new Map(items.map((item) => [key(item), item]))
  for (const change of changes) {
    if (change.type === 'order:changed') {
      if (change.list === list)
        target = new Map(inOrder([...target.values()], change.keys, key).map((item) => [key(item), item]))
    } else if ('server' in change) {
      const name = routeKey(change.route)
      if (change.server !== list) continue
      if (change.type === 'route:removed') target.delete(name)
      else if (!target.has(name)) target.set(name, change.route)
    } else if ('node' in change && list === 'nodes') {
      const { name } = change.node
      if (change.type === 'node:removed') target.delete(name)
      else target.set(name, mergeNode(target.get(name) as Node | undefined, change))
    }
  }
  return target
}

function mergeNode(held: Node | undefined, change: Change & { type: 'node:added' | 'node:updated' }): Node {
  const { node } = change
  if (!held) return node
  const before = new Map((change.type === 'node:updated' ? change.previous.subscriptions : []).map(entryOf))
  const after = new Map(node.subscriptions.map(entryOf))
  const merged = new Map(held.subscriptions.map(entryOf))
  for (const key of before.keys()) if (!after.has(key)) merged.delete(key)
  for (const [key, wanted] of after) {
    const old = before.get(key)
    if (!old || !sameSubscription(old, wanted)) merged.set(key, wanted)
  }
  const subscriptions = inOrder([...merged.values()], [...after.keys()], tableKey)
  const same = subscriptions.length === held.subscriptions.length
  return same && subscriptions.every((one, index) => one === held.subscriptions[index])
    ? held
    : { name: node.name, subscriptions }
}

const entryOf = (subscription: Subscription) => [tableKey(subscription), subscription] as const

/** End of the line that holds the character before `offset`, line feed included. */
function lineEnd(text: string, offset: number): number {
  if (offset > 0 && text[offset - 1] === '\n') return offset
  const end = text.indexOf('\n', offset)
  return end < 0 ? text.length : end + 1
}

const columnOf = (text: string, offset: number): number => offset - (text.lastIndexOf('\n', offset - 1) + 1)

const render = (contents: unknown): string => {
  const document = new Document()
  document.contents = contents as never
  return document.toString({ lineWidth: 0, indent: 2 })
}

const indented = (lines: string, columns: number): string => lines.replaceAll(/^(?=.)/gm, ' '.repeat(columns))

/** `text` with `insert` in place of what stood from `start` to `end`; `insert` holds whole lines. */
function splice(text: string, start: number, end: number, insert: string): string {
  const before = text.slice(0, start)
  return `${before}${insert !== '' && before !== '' && !before.endsWith('\n') ? '\n' : ''}${insert}${text.slice(end)}`
}

type Ranged = { range: [number, number, number] }
const found = (node: unknown): node is Ranged => Array.isArray((node as Partial<Ranged> | null)?.range)

/** How far nested blocks stand in, and whether lists in maps do, as this file does it. */
function styleOf(text: string): { indent: number; indentLists: boolean } {
  const nested = /^( *)[^\s#-][^#\n]*:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*(\1 +)[^\s#-]/m.exec(text)
  const list = /^( *)[^\s#-][^#\n]*:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*( *)- /m.exec(text)
  return {
    indent: nested ? (nested[2] ?? '').length - (nested[1] ?? '').length : 2,
    indentLists: !list || (list[2] ?? '').length > (list[1] ?? '').length,
  }
}

class ListEditor<T extends Route | Node> {
  readonly #config: ConfigText
  readonly #path: readonly string[]
  readonly #kind: Kind<T>
  readonly #target: Map<string, T>

  constructor(config: ConfigText, path: string, kind: Kind<T>, target: Map<string, T>) {
    this.#config = config
    this.#path = path.split('.')
    this.#kind = kind
    this.#target = target
  }

  /** The new text. Throws when the list stands where lines cannot be exchanged: below an alias or inside braces. */
  edit(): string {
    const { text, document } = this.#config
    const node = document.getIn(this.#path, true)
    if (isSeq(node) && found(node)) {
      if (!node.flow) return this.#editBlock(node)
      if (this.#target.size === 0) return this.#replaceValue(node, 'null')
      if (node.items.length > 0) return this.#replaceValue(node, this.#flowText())
    }
    if (this.#target.size === 0) return text
    return this.#fill()
  }

  #replaceValue({ range }: Ranged, value: string): string {
    const { text } = this.#config
    return text.slice(0, range[0]) + value + text.slice(range[1])
  }

  #flowText(): string {
    const list = this.#config.document.createNode([...this.#target.values()].map(this.#kind.plain), { flow: true })
    return render(list).trimEnd()
  }

  /** The lines of a new item, from column 0. */
  #newItem(wanted: T): string {
    const { document } = this.#config
    const item = document.createNode(this.#kind.plain(wanted))
    if ('subscriptions' in wanted && wanted.subscriptions.length > 0)
      (item as YAMLMap).set(
        'subscriptions',
        Object.assign(document.createNode([]), {
          items: wanted.subscriptions.map((subscription) => newSubscription(document, subscription, true)),
        }),
      )
    return this.#asItem(item)
  }

  #asItem(item: unknown): string {
    return render(Object.assign(this.#config.document.createNode([]), { items: [item] }))
  }

  /** The lines of an item that the file has, brought up to date. */
  #updated(item: unknown, wanted: T): string {
    if (!isMap(item)) return this.#newItem(wanted)
    this.#kind.update(this.#config.document, item, wanted)
    const before = item.commentBefore
    // The lines above the item stay where they are.
    item.commentBefore = null
    item.spaceBefore = false
    const lines = this.#asItem(item)
    item.commentBefore = before ?? null
    return lines
  }

  #editBlock(list: YAMLSeq & Ranged): string {
    const { text, tree } = this.#config
    const start = list.range[0] - columnOf(text, list.range[0])
    const column = columnOf(text, list.range[0])
    const values = this.#path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], tree) as T[]
    const chunks = new Map<string, string>()
    let from = start
    const held = this.#held()
    for (const [index, item] of list.items.entries()) {
      const to = lineEnd(text, Math.min((item as Ranged).range[2], list.range[1]))
      const chunk = text.slice(from, to)
      from = to
      const key = this.#kind.key(values[index] as T)
      const wanted = this.#target.get(key)
      if (!wanted) continue
      if (wanted === held.get(key)) {
        // Of duplicates in the file all stay, or none.
        chunks.set(key, (chunks.get(key) ?? '') + ended(chunk))
      } else if (!chunks.has(key)) {
        const above = /^(?:[ \t]*(?:#.*)?\n)*/.exec(chunk)?.[0] ?? ''
        chunks.set(key, above + indented(this.#updated(item, wanted), column))
      }
    }
    if (this.#target.size === 0) return this.#empty(list, start, from)
    const lines = [...this.#target].map(([key, item]) => chunks.get(key) ?? indented(this.#newItem(item), column))
    return splice(text, start, from, lines.join(''))
  }

  /** What the file says now, by key. */
  #held(): Map<string, Route | Node> {
    const { routes, nodes } = this.#config.config?.manifest ?? { routes: { hub: [], leaf: [] }, nodes: [] }
    const path = this.#path.join('.')
    const list = path === nodesPath ? nodes : path === hubRoutesPath ? routes.hub : routes.leaf
    return new Map(list.map((item) => [this.#kind.key(item as T), item]))
  }

  /** The last item went: the value is null again, as it was before there was a list. */
  #empty(list: Ranged, start: number, end: number): string {
    const { text } = this.#config
    const pair = this.#pair(this.#path)
    const key = pair?.key as unknown as Ranged
    const colon = text.indexOf(':', key.range[1])
    if (colon < 0 || colon > list.range[0] || start <= colon) throw new Error('the list does not stand below its key')
    return `${text.slice(0, colon + 1)} null${text.slice(colon + 1, start)}${text.slice(end)}`
  }

  #pair(path: readonly string[]): Pair<ParsedNode, ParsedNode | null> | undefined {
    const { document } = this.#config
    const parent = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true)
    if (!isMap(parent)) return undefined
    return parent.items.find((pair) => isScalar(pair.key) && pair.key.value === path.at(-1)) as never
  }

  /** There is no list yet: it is put below its key, or with its key below the nearest map that there is. */
  #fill(): string {
    const { text } = this.#config
    const { indent, indentLists } = styleOf(text)
    const items = [...this.#target.values()].map((item) => this.#newItem(item)).join('')
    for (let length = this.#path.length; length > 0; length--) {
      const pair = this.#pair(this.#path.slice(0, length))
      if (!pair) continue
      const below = this.#path.slice(length)
      const key = pair.key as unknown as Ranged
      const column = columnOf(text, key.range[0])
      // Lines from the column of the value on.
      const value = below.reduceRight((lines, name, index) => {
        const inner = index === below.length - 1 ? (indentLists ? indent : 0) : indent
        return `${name}:\n${indented(lines, inner)}`
      }, items)
      const node = pair.value as unknown
      if (isMap(node) && !node.flow && below.length > 0 && found(node)) {
        const at = lineEnd(text, node.range[1])
        return splice(text, at, at, indented(value, columnOf(text, node.range[0])))
      }
      const isEmpty = (isScalar(node) && node.value === null) || (isSeq(node) && node.items.length === 0)
      if (!isEmpty || !found(node) || this.#insideBraces(length)) throw new Error('no place for whole lines')
      const cut = text.slice(0, node.range[0]).trimEnd() + text.slice(node.range[1])
      const at = lineEnd(cut, text.slice(0, node.range[0]).trimEnd().length)
      const inner = below.length > 0 || indentLists ? indent : 0
      return splice(cut, at, at, indented(value, column + inner))
    }
    throw new Error("the section 'clustering' is missing")
  }

  #insideBraces(length: number): boolean {
    for (let depth = 0; depth < length; depth++) {
      const { document } = this.#config
      const map = depth === 0 ? document.contents : document.getIn(this.#path.slice(0, depth), true)
      if (!isMap(map) || map.flow) return true
    }
    return false
  }
}

const ended = (chunk: string): string => (chunk.endsWith('\n') ? chunk : `${chunk}\n`)

/** The list set as a whole, the whole file written by the YAML package: for files that keep it in braces or behind aliases. */
function rewrite(config: ConfigText, path: string, plain: unknown[]): string {
  // A document of its own: the edit that failed may have touched the other one.
  const { document, tree } = new ConfigText(config.onDisk)
  const keys = path.split('.')
  for (let depth = 1; depth < keys.length; depth++) {
    const above = keys.slice(0, depth)
    if (isMap(document.getIn(above, true))) continue
    const value = above.reduce<unknown>((map, key) => (map as Record<string, unknown> | null)?.[key], tree)
    document.setIn(above, document.createNode(value ?? {}))
  }
  document.setIn(keys, plain.length > 0 ? document.createNode(plain) : null)
  return document.toString({ lineWidth: 0, indent: styleOf(config.text).indent })
}

// What was meant is compared with what the new text says: a surprise in the YAML must not reach the disk.
const listText = (items: Iterable<Route | Node>): string => JSON.stringify([...items])
const listOf = ({ config }: ConfigText, list: List): string =>
  config ? listText(list === 'nodes' ? config.manifest.nodes : config.manifest.routes[list]) : ''

/** Everything a file says but that list: the other lists, the settings, and what is the host's. */
function restText(text: ConfigText, list: List): string {
  const others = (['hub', 'leaf', 'nodes'] as const).filter((name) => name !== list).map((name) => listOf(text, name))
  const { nodeName, enabled } = text.config?.manifest ?? {}
  const foreign = { ...(text.tree as object), clustering: null }
  return JSON.stringify([others, nodeName, enabled, text.config?.settings, foreign])
}

/**
 * The configuration with these changes written into it; the same object when the file says all of it already.
 * What the file says beside them stays, also where it differs from the manifest. The configuration must have no problems.
 */
export function editConfig(config: ConfigText, changes: readonly Change[]): ConfigText {
  let current = config
  for (const list of ['hub', 'leaf', 'nodes'] as const) {
    const { manifest } = current.config as { manifest: Manifest }
    const target = targetOf(list, manifest, changes)
    const wantedText = listText(target.values())
    if (listOf(current, list) === wantedText) continue
    const path = listPaths[list]
    const kind = (list === 'nodes' ? nodeKind : routeKind) as Kind<Route | Node>
    const others = restText(current, list)
    const says = (edited: ConfigText) =>
      edited.config && listOf(edited, list) === wantedText && restText(edited, list) === others
    let edited: ConfigText | undefined
    try {
      edited = new ConfigText(current.toDisk(new ListEditor(current, path, kind, target).edit()))
    } catch {
      // Written as a whole below.
    }
    if (!edited || !says(edited)) {
      edited = new ConfigText(current.toDisk(rewrite(current, path, [...target.values()].map(kind.plain))))
      if (!says(edited)) throw new Error(`${path} cannot be written: write the list out, without aliases`)
    }
    current = edited
  }
  return current
}
