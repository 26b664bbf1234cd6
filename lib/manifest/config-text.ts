// Parses the text of the configuration file into settings and manifest, with line and column of every fault.

import { type Document, LineCounter, type ParsedNode, parseDocument, type Tags } from 'yaml'
import { type Config, readConfig } from './config.ts'
import type { Blocks } from './config-list.ts'
import { ConfigNode, type Path, pathText } from './config-node.ts'

/** A fault of the configuration file. `line` and `column` count from 1; `path` as in `clustering.nodes[0].name`. */
export type Problem = { line?: number; column?: number; path?: string; message: string }

/** A problem as one line of text. */
export const problemText = ({ line, column, path, message }: Problem): string => {
  const where = line === undefined ? '' : `line ${line}, column ${column}: `
  return `${where}${path ? `${path} ` : ''}${message}`
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

const parseYaml = (text: string, lines: LineCounter): Document.Parsed<ParsedNode> =>
  // 'error': otherwise oddities in the host's sections are emitted as process warnings.
  parseDocument(text, { lineCounter: lines, prettyErrors: false, customTags: keepNumbers, logLevel: 'error' })

/** The parsed contents of a text that was just written, so that it is not parsed again. */
type ParsedConfig = { readonly config: Config; readonly blocks: Blocks }

/** The parsed file. `text` has line feeds only and no byte order mark; `onDisk` is the unchanged contents. */
export class ConfigText {
  readonly onDisk: string
  readonly text: string
  /** Undefined when there are problems. */
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
  /** The lists as lines; undefined before they were cut. */
  readonly blocks: Blocks | undefined
  readonly #lines = new LineCounter()
  #document: Document.Parsed<ParsedNode> | undefined
  #tree: { value: unknown } | undefined

  constructor(onDisk: string, parsed?: ParsedConfig) {
    this.onDisk = onDisk
    this.text = onDisk.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n')
    this.blocks = parsed?.blocks
    const { config, problems } = parsed ? { config: parsed.config, problems: [] } : this.#read()
    this.config = config
    this.problems = problems
  }

  get document(): Document.Parsed<ParsedNode> {
    this.#document ??= parseYaml(this.text, this.#lines)
    return this.#document
  }

  /** The tree of plain values, with aliases resolved. */
  get tree(): unknown {
    this.#tree ??= { value: this.document.toJS() }
    return this.#tree.value
  }

  #read(): { config: Config | undefined; problems: readonly Problem[] } {
    const problems = this.document.errors.map((error) => ({ ...this.#position(error.pos[0]), message: error.message }))
    const root = problems.length === 0 ? this.#root(problems) : undefined
    const config = root && readConfig(root)
    problems.push(...(root?.faults ?? []).map(({ path, message }) => this.problem(path, message)))
    if (problems.length === 0) return { config, problems }
    return { config: undefined, problems: problems.toSorted((a, b) => a.line - b.line || a.column - b.column) }
  }

  #root(problems: Problem[]): ConfigNode | undefined {
    try {
      return new ConfigNode(this.tree)
    } catch (error) {
      // An alias without an anchor, or with unbounded expansion.
      problems.push({ line: 1, column: 1, message: String(error) })
      return undefined
    }
  }

  /** Converts a text with line feeds to the line ends and byte order mark of this file. */
  toDisk(text: string): string {
    const crlf = /\r\n/.test(this.onDisk)
    return (this.onDisk.startsWith('\uFEFF') ? '\uFEFF' : '') + (crlf ? text.replaceAll('\n', '\r\n') : text)
  }

  /** A problem with the position of that path in this text, or of the nearest parent. */
  problem(path: Path, message: string): Problem & { line: number; column: number } {
    let offset = 0
    for (let length = path.length; length > 0; length--) {
      const found = this.#offset(path.slice(0, length))
      if (found === undefined) continue
      offset = found
      break
    }
    const text = pathText(path)
    return { ...this.#position(offset), ...(text && { path: text }), message }
  }

  #position(offset: number): { line: number; column: number } {
    const { line, col } = this.#lines.linePos(offset)
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }

  #offset(path: Path): number | undefined {
    const node = this.document.getIn(path, true) as { range?: [number, number, number] } | null | undefined
    return node?.range?.[0]
  }
}
