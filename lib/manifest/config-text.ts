// Parses the text of the configuration file into settings and manifest, with line and column of every fault.

import { LineCounter } from 'yaml'
import { type Config, readConfig } from './config.ts'
import { encodeLineEnds, encodingFault } from './config-bytes.ts'
import { unknownKeys } from './config-known-keys.ts'
import type { Blocks } from './config-list.ts'
import { ConfigNode, type Fault, type Path, pathText } from './config-node.ts'
import {
  aliasFault,
  isBehindAlias,
  keyOffset,
  mergeKeyFaults,
  parseYaml,
  syntaxFaults,
  type YamlDocument,
} from './config-yaml.ts'

/** A fault of the configuration file. `line` and `column` count from 1; `path` as in `clustering.nodes[0].name`. */
export type Problem = { line?: number; column?: number; path?: string; message: string }

/** A problem as one line of text. */
export const problemText = ({ line, column, path, message }: Problem): string => {
  const where = line === undefined ? '' : `line ${line}, column ${column}: `
  return `${where}${path ? `${path} ` : ''}${message}`
}

type PlacedProblem = Problem & { line: number; column: number }

const inOrder = (problems: PlacedProblem[]): PlacedProblem[] =>
  problems.toSorted((a, b) => a.line - b.line || a.column - b.column)

/** For texts that are not parsed. */
function positionIn(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset)
  return { line: before.split('\n').length, column: offset - before.lastIndexOf('\n') }
}

/** The parsed contents of a text that was just written, so that it is not parsed again. */
type ParsedConfig = { readonly config: Config; readonly blocks: Blocks }

/** The parsed file. `text` has line feeds only and no byte order mark; `onDisk` is the unchanged contents. */
export class ConfigText {
  readonly onDisk: string
  readonly text: string
  /** Undefined when there are problems. */
  readonly config: Config | undefined
  readonly problems: readonly Problem[]
  /** Unknown keys of the section; empty for a text that was just written. */
  readonly warnings: readonly Problem[]
  /** The lists as lines; undefined before they were cut. */
  readonly blocks: Blocks | undefined
  readonly #lines = new LineCounter()
  #document: YamlDocument | undefined
  #tree: { value: unknown } | undefined

  constructor(onDisk: string, parsed?: ParsedConfig) {
    this.onDisk = onDisk
    this.text = onDisk.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n')
    this.blocks = parsed?.blocks
    const { config, problems, warnings } = parsed ? { config: parsed.config, problems: [], warnings: [] } : this.#read()
    this.config = config
    this.problems = problems
    this.warnings = warnings
  }

  get document(): YamlDocument {
    this.#document ??= parseYaml(this.text, this.#lines)
    return this.#document
  }

  /** The tree of plain values, with aliases resolved. */
  get tree(): unknown {
    this.#tree ??= { value: this.document.toJS() }
    return this.#tree.value
  }

  #read(): { config: Config | undefined; problems: readonly Problem[]; warnings: readonly Problem[] } {
    const invalid = encodingFault(this.onDisk)
    if (invalid) return this.#unparsed([{ ...positionIn(this.onDisk, invalid.offset), message: invalid.message }])
    const syntax = this.#syntaxFaults()
    if (syntax.length > 0)
      return this.#unparsed(syntax.map(({ offset, message }) => ({ ...this.#position(offset), message })))
    const root = new ConfigNode(this.tree)
    const config = readConfig(root)
    const warnings = unknownKeys(this.tree).map(({ path, message }) => {
      const offset = keyOffset(this.document, path)
      return offset === undefined
        ? this.problem(path, message)
        : { ...this.#position(offset), path: pathText(path), message }
    })
    const problems = inOrder(root.faults.map((fault) => this.problem(fault.path, this.#faultText(fault))))
    return { config: problems.length === 0 ? config : undefined, problems, warnings }
  }

  #unparsed(problems: PlacedProblem[]): {
    config: undefined
    problems: readonly Problem[]
    warnings: readonly Problem[]
  } {
    return { config: undefined, problems: inOrder(problems), warnings: [] }
  }

  #syntaxFaults(): { offset: number; message: string }[] {
    const faults = syntaxFaults(this.document)
    if (faults.length > 0) return faults
    try {
      void this.tree
    } catch {
      return [aliasFault(this.document)]
    }
    return mergeKeyFaults(this.document, ['clustering'])
  }

  /** A value that is not in the section may be a secret of the host. */
  #faultText({ path, message, received }: Fault): string {
    const isHidden = received === undefined || path[0] !== 'clustering' || isBehindAlias(this.document, path)
    return isHidden ? message : `${message}, not ${received}`
  }

  /** Converts a text with line feeds to the line ends and byte order mark of this file. */
  toDisk(text: string): string {
    return encodeLineEnds(this.onDisk, text)
  }

  /** A problem with the position of that path in this text, or of the nearest parent. */
  problem(path: Path, message: string): PlacedProblem {
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
