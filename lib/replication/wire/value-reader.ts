// Reads the MessagePack values that most transactions have, in a fraction of the time of a general decoder. Everything else is left to
// that decoder: bytes, dates and other extensions, integers of 64 bits, deep nesting, and whatever is invalid.

/** The values need the general decoder, which also says what is wrong with invalid ones. */
export class UnusualValueError extends Error {
  override readonly name = 'UnusualValueError'
}
/** Shared, because it is frequent for some tables, and a stack trace takes longer than the decoding. */
const unusualValue = new UnusualValueError('not one of the usual values')

const MAX_DEPTH = 32
/** Texts up to this length are read by hand: a call of the engine takes longer. */
const MAX_SHORT_BYTES = 10
/** Names of attributes, which are few, by a hash of their bytes. */
const NAME_SLOTS = 1_024

type Name = { readonly bytes: Uint8Array; readonly text: string }

export class ValueReader {
  #data: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0
  readonly #names: (Name | undefined)[] = Array.from({ length: NAME_SLOTS }, () => undefined)

  /** The values are those in the bytes `from` to `to`. */
  begin(data: Uint8Array, from: number, to: number): void {
    this.#data = Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    this.#at = from
    this.#end = to
  }

  /** Throws unless everything was read. */
  finish(): void {
    if (this.#at !== this.#end) throw unusualValue
  }

  /** Number of elements of an array, which follow. */
  arrayLength(): number {
    const token = this.#next()
    if (token >= 0x90 && token <= 0x9f) return token - 0x90
    if (token !== 0xdc) throw unusualValue
    return this.#checkedLength(this.#number(2))
  }

  string(): string {
    const token = this.#next()
    if (token >= 0xa0 && token <= 0xbf) return this.#text(token - 0xa0)
    return this.#longString(token)
  }

  stringOrNull(): string | null {
    if (this.#data[this.#at] !== 0xc0) return this.string()
    this.#at++
    return null
  }

  number(): number {
    const token = this.#next()
    if (token <= 0x7f) return token
    if (token >= 0xe0) return token - 256
    return this.#numberOf(token)
  }

  /** Any value. */
  value(depth = 0): unknown {
    const token = this.#next()
    if (token <= 0x7f) return token
    if (token >= 0xe0) return token - 256
    if (token <= 0x8f) return this.#map(token - 0x80, depth)
    if (token <= 0x9f) return this.#array(token - 0x90, depth)
    if (token <= 0xbf) return this.#text(token - 0xa0)
    if (token === 0xc0) return null
    if (token === 0xc2) return false
    if (token === 0xc3) return true
    if (token >= 0xca && token <= 0xd3) return this.#numberOf(token)
    if (token === 0xdc) return this.#array(this.#checkedLength(this.#number(2)), depth)
    if (token === 0xde) return this.#map(this.#checkedLength(this.#number(2)), depth)
    return this.#longString(token)
  }

  /** A map with string keys. */
  map(): Record<string, unknown> {
    const token = this.#next()
    if (token >= 0x80 && token <= 0x8f) return this.#map(token - 0x80, 0)
    if (token !== 0xde) throw unusualValue
    return this.#map(this.#checkedLength(this.#number(2)), 0)
  }

  #next(): number {
    if (this.#at >= this.#end) throw unusualValue
    return this.#data[this.#at++]!
  }

  /** An unsigned number of so many bytes. */
  #number(bytes: number): number {
    let value = 0
    for (const end = this.#at + bytes; this.#at < end; this.#at++) value = value * 256 + (this.#data[this.#at] ?? 0)
    return value
  }

  #numberOf(token: number): number {
    switch (token) {
      case 0xcb: {
        if (this.#at + 8 > this.#end) throw unusualValue
        const value = this.#data.readDoubleBE(this.#at)
        this.#at += 8
        return value
      }
      case 0xcc:
        return this.#number(1)
      case 0xcd:
        return this.#number(2)
      case 0xce:
        return this.#number(4)
      case 0xd0:
        return (this.#number(1) << 24) >> 24
      case 0xd1:
        return (this.#number(2) << 16) >> 16
      case 0xd2:
        return this.#number(4) | 0
      default:
        throw unusualValue
    }
  }

  /** Each element has at least one byte. */
  #checkedLength(length: number): number {
    if (length > this.#end - this.#at) throw unusualValue
    return length
  }

  #longString(token: number): string {
    if (token === 0xd9) return this.#text(this.#number(1))
    if (token === 0xda) return this.#text(this.#number(2))
    if (token === 0xdb) return this.#text(this.#number(4))
    throw unusualValue
  }

  #text(length: number): string {
    const from = this.#at
    const to = from + length
    if (to > this.#end) throw unusualValue
    this.#at = to
    if (length > MAX_SHORT_BYTES) return this.#data.toString('utf8', from, to)
    let text = ''
    for (let at = from; at < to; at++) {
      const byte = this.#data[at]!
      if (byte >= 0x80) return this.#data.toString('utf8', from, to)
      text += String.fromCharCode(byte)
    }
    return text
  }

  #array(length: number, depth: number): unknown[] {
    if (depth === MAX_DEPTH) throw unusualValue
    const array: unknown[] = []
    for (let index = 0; index < length; index++) array.push(this.value(depth + 1))
    return array
  }

  #map(length: number, depth: number): Record<string, unknown> {
    if (depth === MAX_DEPTH) throw unusualValue
    const map: Record<string, unknown> = {}
    for (let index = 0; index < length; index++) {
      const name = this.#name()
      map[name] = this.value(depth + 1)
    }
    return map
  }

  #name(): string {
    const token = this.#next()
    const name = token >= 0xa0 && token <= 0xbf ? this.#shortName(token - 0xa0) : this.#longString(token)
    // It would change the prototype.
    if (name === '__proto__') throw unusualValue
    return name
  }

  #shortName(length: number): string {
    const data = this.#data
    const from = this.#at
    const to = from + length
    if (to > this.#end) throw unusualValue
    const first = data[from] ?? 0
    const slot = (length * 37 + first * 101 + (data[to - 1] ?? 0) * 17 + (data[from + 1] ?? 0) * 5) % NAME_SLOTS
    const known = this.#names[slot]
    if (known?.bytes.length === length) {
      let offset = 0
      while (offset < length && known.bytes[offset] === data[from + offset]) offset++
      if (offset === length) {
        this.#at = to
        return known.text
      }
    }
    const text = this.#text(length)
    this.#names[slot] = { bytes: Uint8Array.prototype.slice.call(data, from, to), text }
    return text
  }
}
