// One list of the YAML text brought up to date: lines of new items put in, of old ones taken out, all others as they are.

import { Document, isMap, isScalar, isSeq, type Pair, type YAMLSeq } from 'yaml'
import {
  columnOf,
  hasRange,
  indented,
  lineEnd,
  putBelow,
  type Ranged,
  replaceLines,
  replaceValue,
  type Slice,
  type Style,
} from './config-lines.ts'
import { type Item, itemKey } from './config-target.ts'
import { type Node, type Subscription, tableKey } from './manifest.ts'

/** Thrown where lines cannot be exchanged: inside braces, behind an alias. */
class NoLines extends Error {}

const render = (contents: unknown, nodes = new Document()): string => {
  nodes.contents = contents as never
  return nodes.toString({ lineWidth: 0, indent: 2 })
}

const plainSubscription = ({ database, table, publish, subscribe }: Subscription) => ({
  database,
  table,
  publish,
  subscribe,
})

export const plainItem = (item: Item): unknown => {
  if (!('name' in item)) return { host: item.host, port: item.port }
  const subscriptions = item.subscriptions.map(plainSubscription)
  return { name: item.name, subscriptions: subscriptions.length > 0 ? subscriptions : null }
}

/** A list as text: what it is to hold, and how its items are told apart and written. */
type Spec<T> = {
  readonly target: ReadonlyMap<string, T>
  readonly keyOf: (value: unknown) => string
  /** Does the file's item say this already? */
  readonly same: (key: string) => boolean
  /** The item's lines, brought up to date; undefined when it must be written anew. */
  readonly update: (slice: Slice, item: unknown, wanted: T) => string | undefined
  /** Plain values. */
  readonly plain: (item: T) => unknown
  /** Lines of a new item, from column 0 on. */
  readonly create: (item: T) => string
}

const seqOf = (document: Document, items: unknown[]) => Object.assign(document.createNode([]), { items })

const createSubscription = (subscription: Subscription): string => {
  const document = new Document()
  return render(seqOf(document, [document.createNode(plainSubscription(subscription), { flow: true })]), document)
}

const createItem = (style: Style) => (item: Item) => {
  if (!('name' in item) || item.subscriptions.length === 0) return render([plainItem(item)].map((one) => new Document(one).contents) as never)
  const lines = item.subscriptions.map(createSubscription).join('')
  return `- name: ${scalar(item.name)}\n  subscriptions:\n${indented(lines, style.indentLists ? 4 : 2)}`
}

const scalar = (value: unknown): string => render(new Document(value).contents).trimEnd()
