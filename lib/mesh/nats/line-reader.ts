// Splits the output of a server into lines of bounded length: it quotes what strangers send.

/** Longer lines are cut. The longest lines of nats-server itself have a URL with the longest user name and password. */
export const MAX_LINE_BYTES = 16_384
const NEWLINE = 0x0a

export class LineReader {
  readonly #onLine: (line: string) => void
  /** The beginning of a line whose end has not arrived. */
  readonly #line = Buffer.alloc(MAX_LINE_BYTES)
  #length = 0

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine
  }

  push(chunk: Buffer): void {
    for (let from = 0; from < chunk.length; ) {
      const newline = chunk.indexOf(NEWLINE, from)
      const to = newline < 0 ? chunk.length : newline
      this.#length += chunk.copy(this.#line, this.#length, from, Math.min(to, from + MAX_LINE_BYTES))
      if (newline >= 0) this.#emit()
      from = to + 1
    }
  }

  /** The rest without a newline is a line too. */
  end(): void {
    if (this.#length > 0) this.#emit()
  }

  #emit(): void {
    const line = this.#line.toString('utf8', 0, this.#length)
    this.#length = 0
    this.#onLine(line.endsWith('\r') ? line.slice(0, -1) : line)
  }
}
