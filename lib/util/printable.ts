// Names and reasons of other nodes on a terminal: nothing of them may move the cursor, change colors or reverse the text.

/** Control and format characters, such as escape sequences and changes of direction, and separators of lines. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

export const printable = (text: string): string => text.replace(UNPRINTABLE, '\uFFFD')

/** Each line of a formatted JSON text; what cannot be printed is escaped, so the value stays the same. */
export const printableJson = (json: string): string =>
  json.replace(UNPRINTABLE, (character) =>
    character === '\n'
      ? character
      : [...Array(character.length).keys()]
          .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`)
          .join(''),
  )

/** For `JSON.parse`: all strings, also in keys that nobody expects. */
export const printableStrings = (_key: string, value: unknown): unknown =>
  typeof value === 'string' ? printable(value) : value
