// Updates one list of the YAML text: inserts the lines of new items, removes those of old ones, keeps all others.

import { Document, isMap, isScalar, isSeq, type Pair } from 'yaml'
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
import { itemKey, type ListItem, type ListName } from './config-target.ts'
import { type Subscription, sameSubscription, tableKey } from './manifest.ts'
import { fieldNames, makeSubscription } from './subscription.ts'

/** The list cannot be edited by lines: it is inside braces, or behind an alias. */
export class NotLineEditableError extends Error {}

/** The item as a plain value of the file. */
export const plainItem = (item: ListItem): unknown => {
  if (!('name' in item)) return { host: item.host, port: item.port }
  const subscriptions = item.subscriptions.map(makeSubscription)
  return { name: item.name, subscriptions: subscriptions.length > 0 ? subscriptions : null }
}

/** The target items of a list, and how items are identified and written. */
export type ListSpec<T> = {
  readonly target: ReadonlyMap<string, T>
  readonly keyOf: (value: unknown) => string
  /** True when the item in the file equals the desired one already. */
  readonly same: (key: string, desired: T) => boolean
  /** The updated lines of the item; undefined when it must be rewritten. */
  readonly update: (slice: Slice, item: unknown, desired: T) => string | undefined
  readonly plain: (item: T) => unknown
  /** Lines of a new item, without indentation. */
  readonly create: (item: T) => string
}

const withLineEnd = (lines: string): string => (lines === '' || lines.endsWith('\n') ? lines : `${lines}\n`)
/** Not `.`, which ends at U+2028 too. */
const blankOrComment = /^(?:[ \t]*(?:#[^\n]*)?\n)*/

const braces = (plain: unknown): string => {
  const document = new Document(plain, { flow: true })
  return document.toString({ lineWidth: 0 }).trimEnd()
}

/** The lines of one item with the comments above it, and the parsed item. */
type Chunk = Slice & { readonly item: unknown }

/** A block list in a text: start and end of its lines, its column, and the lines of each item. */
export type Block<C> = {
  readonly start: number
  readonly end: number
  readonly column: number
  readonly chunks: ReadonlyMap<string, C>
}

/** Those of the lists that are block lists with items. */
export type Blocks = Readonly<Partial<Record<ListName, Block<string>>>>

export function cutBlock({ text, base }: Slice, list: Ranged & { items: unknown[] }, keys: readonly string[]) {
  const column = columnOf(text, list.range[0] - base)
  const start = list.range[0] - base - column
  const chunks = new Map<string, Chunk>()
  let end = start
  for (const [index, item] of list.items.entries()) {
    if (!hasRange(item)) throw new NotLineEditableError()
    const to = lineEnd(text, Math.min(item.range[2], list.range[1]) - base)
    const key = keys[index]!
    const lines = withLineEnd(text.slice(end, to))
    const previous = chunks.get(key)
    // Duplicates in the file stay or go together; an update merges them.
    chunks.set(key, previous ? { ...previous, text: previous.text + lines } : { text: lines, base: base + end, item })
    end = to
  }
  return { start, end, column, chunks }
}

/** The lines of a desired item; `chunk`: its present lines, unless it is new. */
export function linesOf<T>(chunk: Chunk | undefined, desired: T, column: number, spec: ListSpec<T>): string {
  const updated = chunk && spec.update(chunk, chunk.item, desired)
  if (updated !== undefined) return withLineEnd(updated)
  const above = chunk ? blankOrComment.exec(chunk.text)?.[0] : ''
  return `${above}${indented(spec.create(desired), column)}`
}

/** The text with the block list updated to that spec. */
function editBlock<T>(
  slice: Slice,
  list: Ranged & { items: unknown[] },
  values: readonly unknown[],
  spec: ListSpec<T>,
) {
  const { start, end, column, chunks } = cutBlock(slice, list, values.map(spec.keyOf))
  const lines = [...spec.target].map(([key, item]) => {
    const chunk = chunks.get(key)
    return chunk && spec.same(key, item) ? chunk.text : linesOf(chunk, item, column, spec)
  })
  return replaceLines(slice.text, start, end, lines.join(''))
}

/** The text with the target as the value of that pair. */
export function editPair<T>(slice: Slice, pair: Pair, values: unknown, style: Style, spec: ListSpec<T>): string {
  const { text, base } = slice
  const { key, value } = pair
  if (!hasRange(key) || !hasRange(value)) throw new NotLineEditableError()
  const isEmpty = spec.target.size === 0
  const items = [...spec.target.values()]
  const put = () => {
    const column = columnOf(text, key.range[0] - base) + (style.indentLists ? style.indent : 0)
    return putBelow(slice, value, indented(items.map(spec.create).join(''), column))
  }
  if (isScalar(value) && value.value === null) return isEmpty ? text : put()
  if (!isSeq(value)) throw new NotLineEditableError()
  if (value.flow) {
    if (isEmpty) return replaceValue(slice, value, 'null')
    return value.items.length === 0 ? put() : replaceValue(slice, value, braces(items.map(spec.plain)))
  }
  const edited = editBlock(slice, value, values as unknown[], spec)
  if (!isEmpty) return edited
  // The last item was removed: the value becomes null, as before the first item.
  const colon = text.indexOf(':', key.range[1] - base)
  const first = lineEnd(text, key.range[1] - base)
  if (colon < 0 || colon >= first || first > value.range[0] - base) throw new NotLineEditableError()
  return `${edited.slice(0, colon + 1)} null${edited.slice(colon + 1)}`
}

const createSubscription = (subscription: Subscription): string => {
  const document = new Document([makeSubscription(subscription)])
  Object.assign(document.get(0) as object, { flow: true })
  return document.toString({ lineWidth: 0 })
}

/** Replaces the values of the fields in place. */
function updateSubscription({ text, base }: Slice, item: unknown, desired: Subscription): string | undefined {
  if (!isMap(item)) return undefined
  const edits: [Ranged, string][] = []
  for (const name of fieldNames) {
    const value = item.get(name, true)
    if (value === undefined && desired[name] === undefined) continue
    if (!isScalar(value) || !hasRange(value) || desired[name] === undefined) return undefined
    edits.push([value, String(desired[name])])
  }
  // From the end backwards, so that earlier offsets stay valid.
  edits.sort(([a], [b]) => b.range[0] - a.range[0])
  return edits.reduce((lines, [value, word]) => replaceValue({ text: lines, base }, value, word), text)
}

const tableOf = (value: unknown) => tableKey(value as Subscription)

const subscriptionsSpec = (
  desired: readonly Subscription[],
  inFile: readonly Subscription[],
): ListSpec<Subscription> => {
  const existing = new Map(inFile.map((subscription) => [tableKey(subscription), subscription]))
  return {
    target: new Map(desired.map((subscription) => [tableKey(subscription), subscription])),
    keyOf: tableOf,
    same(key, subscription) {
      const old = existing.get(key)
      return old !== undefined && sameSubscription(old, subscription)
    },
    update: updateSubscription,
    plain: makeSubscription,
    create: createSubscription,
  }
}

/** The key of an item of the file. */
export const keyOfValue = (value: unknown): string => {
  const { name, host, port } = value as { name?: string; host: string; port: unknown }
  return itemKey(name === undefined ? { host, port: Number(port) } : { name, subscriptions: [] })
}

/** The spec of one of the three lists; `existing`: its items in the file. */
export function itemsSpec(
  target: ReadonlyMap<string, ListItem>,
  existing: readonly ListItem[],
  style: Style,
): ListSpec<ListItem> {
  const inFile = new Map(existing.map((item) => [itemKey(item), item]))
  return {
    target,
    keyOf: keyOfValue,
    same: (key, desired) => inFile.get(key) === desired,
    update(slice, item, desired) {
      if (!('name' in desired) || !isMap(item) || item.flow) return undefined
      const pair = item.items.find(({ key }) => isScalar(key) && key.value === 'subscriptions')
      const old = inFile.get(desired.name)
      if (!pair || !old || !('name' in old)) return undefined
      const values = isSeq(pair.value) ? (pair.value.toJSON() as unknown[]) : []
      return editPair(slice, pair as Pair, values, style, subscriptionsSpec(desired.subscriptions, old.subscriptions))
    },
    plain: plainItem,
    create(item) {
      const document = new Document([plainItem(item)])
      const list = document.getIn([0, 'subscriptions'])
      if (isSeq(list)) for (const entry of list.items) Object.assign(entry as object, { flow: true })
      return document.toString({ lineWidth: 0, indentSeq: style.indentLists })
    },
  }
}
