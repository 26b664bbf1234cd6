// Names and reasons of other nodes on a terminal: nothing of them may move the cursor, change colors or reverse the text.

/** Control and format characters, such as escape sequences and changes of direction, and separators of lines. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

export const printable = (text: string): string => text.replace(UNPRINTABLE, '\uFFFD')

/** For `JSON.parse`: all strings, also in keys that nobody expects. */
export const printableStrings = (_key: string, value: unknown): unknown =>
  typeof value === 'string' ? printable(value) : value
