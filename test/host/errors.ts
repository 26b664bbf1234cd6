// What the database and its API reject with: a text for the caller and the HTTP status that goes with it.

export class HostError extends Error {
  override readonly name = 'HostError'
  /** HTTP status. */
  readonly statusCode: number
  /** What the reader can do about it; for the people who start a node, not part of an HTTP answer. */
  readonly hint?: string

  constructor(statusCode: number, message: string, hint?: string) {
    super(message)
    this.statusCode = statusCode
    if (hint) this.hint = hint
  }
}

/** The caller's mistake: 400. */
export const badRequest = (message: string): HostError => new HostError(400, message)
