// The bytes of the configuration file as a string and back, and the faults that no text of YAML may have.

import { isUtf8 } from 'node:buffer'

/** Valid UTF-8 has no lone surrogates, so one in the string marks the first byte that is not UTF-8: U+DC00 plus that byte. */
const INVALID_BYTE_BASE = 0xdc00

/**
 * The contents of the file as a string. Two different contents are different strings unless both are invalid, so that a comparison
 * never mistakes an edit for no edit. `encodingFault` reports the invalid ones.
 */
export function decodeBytes(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  if (isUtf8(bytes)) return text
  const encoded = Buffer.from(text)
  let at = 0
  while (at < bytes.length - 1 && bytes[at] === encoded[at]) at++
  const before = bytes.toString('utf8', 0, at)
  return before + String.fromCharCode(INVALID_BYTE_BASE + bytes[at]!) + text.slice(before.length + 1)
}

/** What a text is refused for; other unusual characters are kept. */
const faultPattern = /\p{Surrogate}|\0|\r(?!\n)/u

/** The first fault of the contents and its offset. The message has none of the contents but the byte. */
export function encodingFault(contents: string): { offset: number; message: string } | undefined {
  const match = faultPattern.exec(contents)
  if (!match) return undefined
  const [found] = match
  const byte = found.charCodeAt(0) - INVALID_BYTE_BASE
  const isUtf16 = match.index === 0 && (byte === 0xff || byte === 0xfe)
  if (isUtf16) return { offset: 0, message: 'the file is UTF-16: save it as UTF-8' }
  const reasons: Record<string, string> = {
    '\0': 'a null character: the file is damaged, or it is UTF-16',
    '\r': 'a carriage return without a line feed, which other programs read as the end of a line',
  }
  const message = reasons[found] ?? `the byte 0x${byte.toString(16).toUpperCase()} is not UTF-8: save the file as UTF-8`
  return { offset: match.index, message }
}

/** Where the parts that both texts have in common end and begin: whole lines. */
function changedLines(before: readonly string[], after: readonly string[]): { start: number; fromEnd: number } {
  const shorter = Math.min(before.length, after.length)
  let start = 0
  while (start < shorter && before[start] === after[start]) start++
  let fromEnd = 0
  while (fromEnd < shorter - start && before.at(-1 - fromEnd) === after.at(-1 - fromEnd)) fromEnd++
  return { start, fromEnd }
}

/**
 * `text`, which has line feeds only, with the line ends and the byte order mark of `onDisk`. In a file of mixed line ends each
 * unchanged line keeps its end, and new lines get the more frequent one.
 */
export function encodeLineEnds(onDisk: string, text: string): string {
  const mark = onDisk.startsWith('\uFEFF') ? '\uFEFF' : ''
  if (!onDisk.includes('\r\n')) return mark + text
  const linesOnDisk = onDisk.slice(mark.length).split('\n')
  const before = linesOnDisk.map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line))
  const after = text.split('\n')
  const { start, fromEnd } = changedLines(before, after)
  const crlfLines = linesOnDisk.filter((line) => line.endsWith('\r')).length
  const newEnd = crlfLines * 2 >= linesOnDisk.length - 1 ? '\r\n' : '\n'
  if (crlfLines === linesOnDisk.length - 1) return mark + text.replaceAll('\n', newEnd)
  const endOf = (index: number) =>
    index === linesOnDisk.length - 1 ? newEnd : linesOnDisk[index]!.endsWith('\r') ? '\r\n' : '\n'
  // In the changed part a line that is there already keeps its end, if the order is the same.
  let next = start
  const ends = after.map((line, index) => {
    if (index < start) return endOf(index)
    if (index >= after.length - fromEnd) return endOf(linesOnDisk.length - (after.length - index))
    const found = before.indexOf(line, next)
    if (found < 0 || found >= before.length - fromEnd) return newEnd
    next = found + 1
    return endOf(found)
  })
  return mark + after.map((line, index) => (index === after.length - 1 ? line : line + ends[index])).join('')
}
