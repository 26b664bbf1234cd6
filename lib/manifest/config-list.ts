// One list of the YAML text brought up to date: lines of new items put in, of old ones taken out, all others as they are.

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
import { itemKey, type ListItem } from './config-target.ts'
import { type Subscription, sameSubscription, tableKey } from './manifest.ts'
import { fieldNames, makeSubscription } from './subscription.ts'

/** Thrown where lines cannot be exchanged: inside braces, behind an alias. */
export class NotLineEditableError extends Error {}

/** As the file has it. */
export const plainItem = (item: ListItem): unknown => {
  if (!('name' in item)) return { host: item.host, port: item.port }
  const subscriptions = item.subscriptions.map(makeSubscription)
  return { name: item.name, subscriptions: subscriptions.length > 0 ? subscriptions : null }
}

/** What a list is to hold, and how its items are told apart and written. */
export type ListSpec<T> = {
  readonly target: ReadonlyMap<string, T>
  readonly keyOf: (value: unknown) => string
  /** Does the file's item of that key say what is wanted already? */
  readonly same: (key: string, desired: T) => boolean
  /** The item's lines brought up to date; undefined when it must be written anew. */
  readonly update: (slice: Slice, item: unknown, desired: T) => string | undefined
  readonly plain: (item: T) => unknown
  /** Lines of a new item, from column 0 on. */
  readonly create: (item: T) => string
}

const withLineEnd = (lines: string): string => (lines === '' || lines.endsWith('\n') ? lines : `${lines}\n`)
const blankOrComment = /^(?:[ \t]*(?:#.*)?\n)*/

const braces = (plain: unknown): string => {
  const document = new Document(plain, { flow: true })
  return document.toString({ lineWidth: 0 }).trimEnd()
}

/** The lines of one item, with what stands above it, and the item they were read as. */
type Chunk = Slice & { readonly item: unknown }

/** A block list in a text: where its lines begin and end, how far it stands in, and its lines item by item. */
export type Block<C> = {
  readonly start: number
  readonly end: number
  readonly column: number
  readonly chunks: ReadonlyMap<string, C>
}

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
    // Of duplicates in the file all stay or none, and an update makes them one.
    chunks.set(key, previous ? { ...previous, text: previous.text + lines } : { text: lines, base: base + end, item })
    end = to
  }
  return { start, end, column, chunks }
}

/** The lines of an item that the list is to hold; `chunk`: as it stands there now, unless it is new. */
export function linesOf<T>(chunk: Chunk | undefined, desired: T, column: number, spec: ListSpec<T>): string {
  const updated = chunk && spec.update(chunk, chunk.item, desired)
  if (updated !== undefined) return withLineEnd(updated)
  const above = chunk ? blankOrComment.exec(chunk.text)?.[0] : ''
  return `${above}${indented(spec.create(desired), column)}`
}

/** The text of a block list of that spec, in place of the one that stands there. */
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

/** The slice with the value of that pair made to hold the target. */
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
  // The last item went: the value is null again, as it was before there was a list.
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

/** The directions put right where they stand. */
function updateSubscription({ text, base }: Slice, item: unknown, desired: Subscription): string | undefined {
  if (!isMap(item)) return undefined
  const edits: [Ranged, string][] = []
  for (const name of fieldNames) {
    const value = item.get(name, true)
    if (value === undefined && desired[name] === undefined) continue
    if (!isScalar(value) || !hasRange(value) || desired[name] === undefined) return undefined
    edits.push([value, String(desired[name])])
  }
  // From the end on, so that the places before stay true.
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

/** The key of an item as the file has it. */
export const keyOfValue = (value: unknown): string => {
  const { name, host, port } = value as { name?: string; host: string; port: unknown }
  return itemKey(name === undefined ? { host, port: Number(port) } : { name, subscriptions: [] })
}

/** The spec of one of the three lists; `existing` is what the file says. */
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
