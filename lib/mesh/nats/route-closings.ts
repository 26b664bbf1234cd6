// A hub refuses a route to a hub with its own name. Only the one that was dialled logs the reason (2.9 to 2.15); the dialling one sees its
// connection closed at once, again and again.

const CREATED = /^(\S+:\d+) - rid:(\d+) - Route connection created/
const CLOSED = /^(\S+:\d+) - rid:(\d+) - Router connection closed: (?:Client Closed|Read Error)/
/** A route that lives longer was accepted. */
const AT_ONCE_MS = 1_000
/** A hub that is restarted, or links that are made from both sides, close connections too, but not so often in this time. */
const SUSPICIOUS_CLOSINGS = 3
const SUSPICIOUS_MS = 10_000
/** Configured and gossiped addresses, and connections from outside. */
const MAX_ADDRESSES = 1_000

export const CLOSED_AT_ONCE =
  'it closes the connection at once, as a node of the same name does: its log has the reason'

export class RouteClosings {
  readonly #created = new Map<string, number>()
  /** The times of the last closings of each address, without one that lived longer in between. */
  readonly #closings = new Map<string, number[]>()

  /** The address of a hub that closes each connection at once. */
  line(text: string, now: number): string | undefined {
    const created = CREATED.exec(text)
    if (created) {
      if (this.#created.size >= MAX_ADDRESSES) this.#created.clear()
      this.#created.set(`${created[1]} ${created[2]}`, now)
      return undefined
    }
    const [, address = '', id] = CLOSED.exec(text) ?? []
    const createdAt = this.#created.get(`${address} ${id}`)
    if (createdAt === undefined) return undefined
    this.#created.delete(`${address} ${id}`)
    const recent = (this.#closings.get(address) ?? []).filter((closedAt) => now - closedAt < SUSPICIOUS_MS)
    const closings = now - createdAt < AT_ONCE_MS ? [...recent, now].slice(-SUSPICIOUS_CLOSINGS) : []
    if (this.#closings.size >= MAX_ADDRESSES) this.#closings.clear()
    this.#closings.set(address, closings)
    return closings.length === SUSPICIOUS_CLOSINGS ? address : undefined
  }
}
