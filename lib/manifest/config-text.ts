// The text of the configuration file: parsed into settings and manifest, with line and column of every fault.

import { type Document, LineCounter, type ParsedNode, parseDocument, type Tags } from 'yaml'
import { type Config, readConfig } from './config.ts'
import type { Blocks } from './config-list.ts'
import { ConfigNode, type Path, pathText } from './config-node.ts'

/** A fault of the configuration file. `line` and `column` count from 1; `path` as in `clustering.nodes[0].name`. */
export type Problem = { line?: number; column?: number; path?: string; message: string }

/** As one line a person can read. */
export const problemText = ({ line, column, path, message }: Problem): string => {
  const where = line === undefined ? '' : `line ${line}, column ${column}: `
  return `${where}${path ? `${path} ` : ''}${message}`
}

/** Numbers are written the way they were read: `1_000`-like spellings and integers beyond 2^53 are the host's business. */
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
  // 'error': what is odd in the host's part would be told as a warning of the process.
  parseDocument(text, { lineCounter: lines, prettyErrors: false, customTags: keepNumbers, logLevel: 'error' })

/** What is known of a text that we wrote ourselves, so that it need not be read again. */
type ParsedConfig = { readonly config: Config; readonly blocks: Blocks }

/** One reading of the file. The text has line feeds only and no byte order mark; `onDisk` is what the file holds. */
export class ConfigText {
  readonly onDisk: string
  readonly text: string
  /** Undefined when there are problems. */
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
  /** Its lists as lines, once they were cut. */
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
      // An alias without its anchor, or one that would unfold without end.
      problems.push({ line: 1, column: 1, message: String(error) })
      return undefined
    }
  }

  /** Text with line feeds as it belongs on disk: with the line ends and the byte order mark that this file has. */
  toDisk(text: string): string {
    const crlf = /\r\n/.test(this.onDisk)
    return (this.onDisk.startsWith('\uFEFF') ? '\uFEFF' : '') + (crlf ? text.replaceAll('\n', '\r\n') : text)
  }

  /** A problem with the place of that path in this text, or of what encloses it. */
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
