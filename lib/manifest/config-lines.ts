// YAML as lines of text: their ends and indentation, and replacing some of them.

/** A part of a text and its offset in the whole: the ranges of YAML nodes refer to the whole. */
export type Slice = { readonly text: string; readonly base: number }
/** A YAML node: start, end of the value, end including trailing comments. */
export type Ranged = { readonly range: readonly [number, number, number] }

export const hasRange = (node: unknown): node is Ranged => Array.isArray((node as Partial<Ranged> | null)?.range)

/** End of the line that holds the character before `offset`, line feed included. */
export function lineEnd(text: string, offset: number): number {
  if (offset > 0 && text[offset - 1] === '\n') return offset
  const end = text.indexOf('\n', offset)
  return end < 0 ? text.length : end + 1
}

export const columnOf = (text: string, offset: number): number => offset - (text.lastIndexOf('\n', offset - 1) + 1)

export const indented = (lines: string, columns: number): string => lines.replaceAll(/^(?=.)/gm, ' '.repeat(columns))

/** `text` with `lines` instead of the lines from `start` to `end`, which are starts of lines or the end of the text. */
export function replaceLines(text: string, start: number, end: number, lines: string): string {
  const before = text.slice(0, start)
  return before + (lines !== '' && before !== '' && !before.endsWith('\n') ? '\n' : '') + lines + text.slice(end)
}

/** The text with another text for that value. */
export const replaceValue = ({ text, base }: Slice, { range }: Ranged, value: string): string =>
  text.slice(0, range[0] - base) + value + text.slice(range[1] - base)

/** The text without that value, and with `lines` below its line. */
export function putBelow({ text, base }: Slice, { range }: Ranged, lines: string): string {
  const head = text.slice(0, range[0] - base).trimEnd()
  const cut = head + text.slice(range[1] - base)
  const at = lineEnd(cut, head.length)
  return replaceLines(cut, at, at, lines)
}

const opener = /^( *)[^\s#-][^#\n]*:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*/
const nested = new RegExp(`${opener.source}(\\1 +)[^\\s#-]`, 'm')
const listed = new RegExp(`${opener.source}( *)- `, 'm')

export type Style = { readonly indent: number; readonly indentLists: boolean }

/** The indentation of nested maps, and whether lists in maps are indented: as in the section 'clustering', else as in the file. */
export function styleOf(text: string): Style {
  const start = text.search(/^clustering[ \t]*:/m)
  const section = start < 0 ? '' : text.slice(start)
  const map = nested.exec(section) ?? nested.exec(text)
  const list = listed.exec(section) ?? listed.exec(text)
  const difference = (match: RegExpExecArray) => (match[2] ?? '').length - (match[1] ?? '').length
  return { indent: map ? difference(map) : 2, indentLists: !list || difference(list) > 0 }
}
