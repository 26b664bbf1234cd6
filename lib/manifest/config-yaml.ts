// The YAML parser: its options, its faults in texts that show nothing of the file, and questions about parsed nodes.

import {
  type Document,
  type ErrorCode,
  isAlias,
  isCollection,
  isMap,
  isScalar,
  type LineCounter,
  type ParsedNode,
  parseDocument,
  Scalar,
  type Tags,
  visit,
} from 'yaml'
import type { Path } from './config-node.ts'

export type YamlDocument = Document.Parsed<ParsedNode>

/** A fault and its offset in the text. */
type YamlFault = { readonly offset: number; readonly message: string }

/** The parser's own messages may quote the file, and the host's part has secrets. */
const faultTexts: Record<ErrorCode, string> = {
  ALIAS_PROPS: 'an alias must not have a tag or an anchor',
  BAD_ALIAS: 'this alias is not valid',
  BAD_COLLECTION_TYPE: 'the tag does not fit this collection',
  BAD_DIRECTIVE: 'this directive is not valid',
  BAD_DQ_ESCAPE: 'this escape sequence in double quotes is not valid',
  BAD_INDENT: 'the indentation is not valid',
  BAD_PROP_ORDER: 'anchors and tags must be after indicators',
  BAD_SCALAR_START: 'a value without quotes must not start with a reserved character',
  BLOCK_AS_IMPLICIT_KEY: 'a nested map or list must begin on a line of its own',
  BLOCK_IN_FLOW: 'braces and brackets must not contain a map or list in block style',
  DUPLICATE_KEY: 'the keys of a map must be unique',
  IMPOSSIBLE: 'the file is not valid YAML',
  KEY_OVER_1024_CHARS: 'the colon of a key must be within 1024 characters',
  MISSING_CHAR: 'a character is missing, such as a quote, comma, bracket or colon',
  MULTILINE_IMPLICIT_KEY: 'a key must be on a single line, with a colon behind it',
  MULTIPLE_ANCHORS: 'a value must have one anchor at most',
  MULTIPLE_DOCS: 'the file must be a single YAML document',
  MULTIPLE_TAGS: 'a value must have one tag at most',
  NON_STRING_KEY: 'the keys of a map must be strings',
  RESOURCE_EXHAUSTION: 'the file is nested too deeply',
  TAB_AS_INDENT: 'the indentation must not contain tabs',
  TAG_RESOLVE_FAILED: 'the value does not fit its tag',
  UNEXPECTED_TOKEN: 'this text is not expected here',
}

/** Keeps the spelling of numbers, such as `1_000` or integers beyond 2^53, in the host's sections. */
const keepNumbers = (tags: Tags): Tags =>
  tags.map((tag) => {
    if (typeof tag !== 'object' || !/:(int|float)$/.test(tag.tag) || !('stringify' in tag)) return tag
    const { stringify } = tag
    return {
      ...tag,
      stringify: (item, ...rest) => (item as { source?: string }).source ?? stringify?.(item, ...rest) ?? '',
    } as typeof tag
  })

export const parseYaml = (text: string, lines: LineCounter): YamlDocument =>
  // 'error': otherwise oddities in the host's sections are emitted as process warnings.
  parseDocument(text, { lineCounter: lines, prettyErrors: false, customTags: keepNumbers, logLevel: 'error' })

export const syntaxFaults = ({ errors }: YamlDocument): YamlFault[] =>
  errors.map(({ pos, code }) => ({ offset: pos[0], message: faultTexts[code] }))

/** Why the document has no plain values. */
export function aliasFault(document: YamlDocument): YamlFault {
  let fault: YamlFault = { offset: 0, message: 'the aliases of the file cannot be resolved, or expand to too much' }
  visit(document, {
    Alias(_, alias) {
      if (alias.resolve(document)) return
      fault = { offset: alias.range?.[0] ?? 0, message: 'this alias has no anchor above it' }
      return visit.BREAK
    },
  })
  return fault
}

/** The node at that path and whether an alias is on the way to it; with `node` undefined when it is missing. */
function nodeAt(document: YamlDocument, path: Path): { node: unknown; behindAlias: boolean } {
  let node: unknown = document.contents
  let behindAlias = false
  for (const part of path) {
    node = isCollection(node) ? node.get(part, true) : undefined
    if (!isAlias(node)) continue
    behindAlias = true
    node = node.resolve(document)
  }
  return { node, behindAlias }
}

/** Where the key of that path begins; undefined when it is missing or behind an alias. */
export function keyOffset(document: YamlDocument, path: Path): number | undefined {
  const { node, behindAlias } = nodeAt(document, path.slice(0, -1))
  if (!isMap(node) || behindAlias) return undefined
  const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === path.at(-1))
  return (pair?.key as ParsedNode | undefined)?.range[0]
}

/** True when the value is not in the section itself. */
export const isBehindAlias = (document: YamlDocument, path: Path): boolean => nodeAt(document, path).behindAlias

/**
 * Merge keys below that path, also in maps that aliases refer to. YAML 1.2 has none, so the parser takes `<<` for an ordinary key: what
 * the author meant to merge would be missing without notice.
 */
export function mergeKeyFaults(document: YamlDocument, path: Path): YamlFault[] {
  const faults: YamlFault[] = []
  const visited = new Set<unknown>()
  const search = (node: unknown) => {
    if (isAlias(node)) return search(node.resolve(document))
    if (!isCollection(node) || visited.has(node)) return
    visited.add(node)
    for (const item of node.items) {
      if (!isMap(node)) {
        search(item)
        continue
      }
      const { key, value } = item as { key: unknown; value: unknown }
      if (isScalar(key) && (key.source ?? key.value) === '<<' && (key.type ?? Scalar.PLAIN) === Scalar.PLAIN)
        faults.push({ offset: key.range?.[0] ?? 0, message: 'merge keys (<<) are not supported: write out the keys' })
      search(value)
    }
  }
  search(nodeAt(document, path).node)
  return faults
}
