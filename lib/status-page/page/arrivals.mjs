// When the page takes its connection for lost: the browser does not notice that a server has vanished without ending it. Pure.

/** ms without a snapshot; the server sends one every two seconds. */
const SILENCE = 8_000
/** ms for the first one after the answer has begun: how fast the link is shows only then. Enough for 300 kB on a link with 20 kbit/s. */
const FIRST_SNAPSHOT = 120_000
/** On a slow link a snapshot may take so much longer than the first one took. */
const SLOWER = 2

/** Times in ms of a clock that is not set, such as `performance.now`. */
export class Arrivals {
  #startedAt
  /** @type {number | undefined} */
  #openedAt
  /** @type {number | undefined} */
  #firstAt
  #receivedAt = 0

  /** @param {number} now the connection begins */
  constructor(now) {
    this.#startedAt = now
  }

  /** @param {number} now the answer has begun */
  opened(now) {
    this.#openedAt = now
  }

  /** @param {number} now a snapshot has arrived as a whole */
  received(now) {
    this.#firstAt ??= now
    this.#receivedAt = now
  }

  /** The answer has begun, and its first snapshot is not here yet. */
  get isReceiving() {
    return this.#openedAt !== undefined && this.#firstAt === undefined
  }

  /** @param {number} now */
  isLive(now) {
    return this.#firstAt !== undefined && !this.isLost(now)
  }

  /** @param {number} now */
  isLost(now) {
    if (this.#openedAt === undefined) return now - this.#startedAt > SILENCE
    if (this.#firstAt === undefined) return now - this.#openedAt > FIRST_SNAPSHOT
    return now - this.#receivedAt > SILENCE + SLOWER * (this.#firstAt - this.#openedAt)
  }
}
