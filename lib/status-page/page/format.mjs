// Numbers, times and states as short texts.

const whole = new Intl.NumberFormat('en')

/**
 * @param {number} value
 * @returns {string} such as 950, 12,400, 1.2 M
 */
export function formatCount(value) {
  if (value < 100_000) return whole.format(Math.round(value))
  if (value < 1_000_000) return `${whole.format(Math.round(value / 1_000))} k`
  if (value < 1_000_000_000) return `${(value / 1_000_000).toFixed(1)} M`
  return `${(value / 1_000_000_000).toFixed(1)} G`
}

/**
 * @param {number} value per second
 * @returns {string}
 */
export function formatRate(value) {
  if (value === 0) return '0/s'
  return value < 10 ? `${value < 0.1 ? '<0.1' : value.toFixed(1)}/s` : `${formatCount(value)}/s`
}

/**
 * @param {number} seconds
 * @returns {string} such as 0.4 s, 12 s, 3 min, 5 h, 2 d
 */
export function formatSeconds(seconds) {
  if (seconds <= 0) return '0 s'
  if (seconds < 10) return `${seconds < 0.1 ? '<0.1' : seconds.toFixed(1)} s`
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/**
 * @param {number} lag transactions
 * @param {number} [seconds]
 * @returns {string}
 */
export function formatLag(lag, seconds = 0) {
  if (lag === 0) return '0'
  return seconds > 0 ? `${formatCount(lag)} (${formatSeconds(seconds)})` : formatCount(lag)
}

/**
 * @param {number} time ms since 1970
 * @returns {string} the local time of day
 */
export const formatTime = (time) => new Date(time).toLocaleTimeString([], { hour12: false })

/**
 * @param {number} count
 * @param {string} one
 * @returns {string}
 */
export const plural = (count, one) => `${formatCount(count)} ${one}${count === 1 ? '' : 's'}`

/** What a state looks like: a mark beside the color, because not everyone sees colors. */
const STATES = {
  live: { mark: '●', tone: 'good', text: 'live' },
  'catching-up': { mark: '◔', tone: 'warning', text: 'catching up' },
  copying: { mark: '⇊', tone: 'warning', text: 'copying' },
  paused: { mark: '‖', tone: 'warning', text: 'paused' },
  pending: { mark: '○', tone: 'warning', text: 'pending' },
  stalled: { mark: '■', tone: 'error', text: 'stalled' },
  down: { mark: '✕', tone: 'error', text: 'down' },
  ended: { mark: '○', tone: 'warning', text: 'ended' },
}

/**
 * @param {string} state
 * @returns {{ mark: string, tone: string, text: string }}
 */
export const stateLook = (state) =>
  /** @type {Record<string, { mark: string, tone: string, text: string }>} */ (STATES)[state] ?? {
    mark: '?',
    tone: 'warning',
    text: state,
  }

/**
 * @param {string} code of a condition
 * @returns {string} such as Peer down
 */
export function formatCode(code) {
  const text = code.replaceAll('_', ' ')
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/**
 * Where something is, as far as it is about a place.
 * @param {{ node?: string, database?: string, table?: string }} place
 * @returns {string} such as node2, dev.dog of node2
 */
export function formatPlace({ node, database, table }) {
  const name = database === undefined || table === undefined ? undefined : `${database}.${table}`
  if (name === undefined) return node ?? ''
  return node === undefined ? name : `${name} of ${node}`
}
