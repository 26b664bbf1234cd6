// The errors of the database and its API: a message for the caller and an HTTP status.

export class HostError extends Error {
  override readonly name = 'HostError'
  /** HTTP status. */
  readonly statusCode: number
  /** How to solve the problem. Printed when a node fails to start; not part of an HTTP answer. */
  readonly hint?: string

  constructor(statusCode: number, message: string, hint?: string) {
    super(message)
    this.statusCode = statusCode
    if (hint) this.hint = hint
  }
}

/** An invalid request: status 400. */
export const badRequest = (message: string): HostError => new HostError(400, message)
