// Reads the headers of received messages from their bytes: the client's public API validates each key and value, which costs
// more than all other work on a message.

import type { Msg } from 'nats'
import type { Logger } from '../../observe/logger.ts'

/** The headers that nodes write have far fewer bytes; a message with more is read as one without headers. */
const MAX_HEADER_BYTES = 64 * 1024
/** A list: HarperDB writes one line for each element, which are joined with commas. Of other keys the first line counts. */
export const LIST_KEY = 'transacted_nodes'
/** Addressed to the server that stored the message. */
const EXPECTED_PREFIX = 'Nats-Expected-'
/** Frequent keys, of different lengths, shared instead of allocated for each message. */
const KNOWN_KEYS = ['v', 'Nats-Msg-Id', 'origin', 'epoch', 'first', 'count', 'transacted_nodes']

/** Private fields of the client's messages (nats 2.29.3): header bytes followed by data, and the length of the former, -1 without headers. */
type RawMessage = { _rdata?: unknown; _msg?: { hdr?: unknown } }

export class HeaderReader {
  readonly #logger: Logger
  /** Whether the client's messages have the private fields; undefined before the first message. */
  #usesRawFields: boolean | undefined

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** Empty when the headers are longer than any that a node writes. */
  read(message: Msg): Record<string, string> {
    this.#usesRawFields ??= this.#checkRawFields(message)
    if (!this.#usesRawFields) return readPublic(message)
    const { _rdata: bytes, _msg: raw } = message as unknown as { _rdata: Uint8Array; _msg: { hdr: number } }
    return parseHeaders(bytes.subarray(0, Math.max(0, raw.hdr)))
  }

  #checkRawFields(message: Msg): boolean {
    const valid = hasRawFields(message)
    if (!valid)
      this.#logger.debug({}, 'private fields of the nats client not found, reading headers through its public API')
    return valid
  }
}

/** True when the private fields are there and agree with the public `data`. Independent of the content, which a remote peer chooses. */
function hasRawFields(message: Msg): boolean {
  const { _rdata: bytes, _msg: raw } = message as unknown as RawMessage
  const length = raw?.hdr
  if (!(bytes instanceof Uint8Array) || typeof length !== 'number' || !Number.isInteger(length)) return false
  const { data } = message
  const start = bytes.byteOffset + Math.max(length, 0)
  return (
    data.buffer === bytes.buffer &&
    data.byteOffset === start &&
    start + data.byteLength === bytes.byteOffset + bytes.byteLength
  )
}

function readPublic(message: Msg): Record<string, string> {
  const headers: Record<string, string> = {}
  let size = 0
  try {
    for (const [key, values] of message.headers ?? []) {
      const value = key === LIST_KEY ? values.join(',') : (values[0] ?? '')
      if (!key.startsWith(EXPECTED_PREFIX)) headers[key] = value
      size += key.length + value.length
    }
  } catch {
    // The client throws for invalid keys.
  }
  return size <= MAX_HEADER_BYTES ? headers : {}
}

/** From the bytes of a message's headers; empty when they are longer than any that a node writes. */
export function parseHeaders(bytes: Uint8Array): Record<string, string> {
  const headers: Record<string, string> = {}
  const { length } = bytes
  if (length === 0 || length > MAX_HEADER_BYTES) return headers
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString()
  for (let at = text.indexOf('\r\n') + 2; at > 1 && at < text.length; ) {
    const end = text.indexOf('\r\n', at)
    const colon = text.indexOf(':', at)
    if (end < 0 || colon < 0 || colon > end) break
    if (!text.startsWith(EXPECTED_PREFIX, at))
      addHeader(headers, internKey(text, at, colon), text.slice(colon + 1, end))
    at = end + 2
  }
  return headers
}

function addHeader(headers: Record<string, string>, key: string, text: string): void {
  const value = text.trim()
  if (headers[key] === undefined) headers[key] = value
  else if (key === LIST_KEY) headers[key] += `,${value}`
}

function internKey(text: string, at: number, end: number): string {
  for (const key of KNOWN_KEYS) if (key.length === end - at && text.startsWith(key, at)) return key
  return text.slice(at, end)
}
