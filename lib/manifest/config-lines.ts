// Lines of YAML as text: where they end, how far they stand in, and how some are exchanged without touching the others.

/** A part of a text and where it begins in the whole: nodes know their places in the whole. */
export type Slice = { readonly text: string; readonly base: number }
/** Of a YAML node: begin, end of the value, end with what follows it. */
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

/** `text` with whole lines in place of what stood from `start` to `end`, both at the beginning of a line or at the end. */
export function replaceLines(text: string, start: number, end: number, lines: string): string {
  const before = text.slice(0, start)
  return before + (lines !== '' && before !== '' && !before.endsWith('\n') ? '\n' : '') + lines + text.slice(end)
}

/** With another text for that value. */
export const replaceValue = ({ text, base }: Slice, { range }: Ranged, value: string): string =>
  text.slice(0, range[0] - base) + value + text.slice(range[1] - base)

/** Without that value, and with lines below the line it stood on. */
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

/** How far nested maps stand in, and whether lists in maps do: as in our section, else as in the whole file. */
export function styleOf(text: string): Style {
  const start = text.search(/^clustering[ \t]*:/m)
  const section = start < 0 ? '' : text.slice(start)
  const map = nested.exec(section) ?? nested.exec(text)
  const list = listed.exec(section) ?? listed.exec(text)
  const difference = (match: RegExpExecArray) => (match[2] ?? '').length - (match[1] ?? '').length
  return { indent: map ? difference(map) : 2, indentLists: !list || difference(list) > 0 }
}
