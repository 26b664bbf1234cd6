// Which remote tables are shown, and in which order. Pure.

/** @import { PeerRow, TableRow } from '../../status-page.ts' */
/** @typedef {{ search: string, show: string, node: string | undefined, sort: string, isDescending: boolean }} Choice */

/** Worst first. */
const ORDER = ['stalled', 'down', 'pending', 'copying', 'paused', 'catching-up', 'live', 'ended']

/**
 * @param {readonly PeerRow[]} peers
 * @returns {Set<string>} nodes that are down
 */
export const downNodes = (peers) => new Set(peers.filter(({ up }) => !up).map(({ node }) => node))

/**
 * A subscription stays live while its node is down: it has all that the node had sent.
 * @param {TableRow} row
 * @param {ReadonlySet<string>} down nodes that are down
 * @returns {string}
 */
export const stateOf = ({ node, received }, down) => (down.has(node) ? 'down' : (received?.state ?? 'ended'))

/**
 * @param {TableRow} row
 * @param {ReadonlySet<string>} down
 * @returns {boolean}
 */
export function needsAttention({ node, received, sent }, down) {
  if (sent?.missing || down.has(node)) return true
  if (!received) return false
  const { state, quarantined, unrepairedGaps = 0, staleSince, disagreement, error } = received
  if (state === 'stalled' || state === 'pending' || state === 'paused') return true
  return (
    quarantined > 0 ||
    unrepairedGaps > 0 ||
    staleSince !== undefined ||
    disagreement !== undefined ||
    error !== undefined
  )
}

/** @param {TableRow} row */
const isBehind = ({ received, sent }) => (received?.lag ?? 0) > 0 || (sent?.lag ?? 0) > 0

/** @type {Record<string, (row: TableRow, down: ReadonlySet<string>) => string | number>} */
const VALUES = {
  table: ({ database, table }) => `${database}.${table}`,
  node: ({ node }) => node,
  state: (row, down) => (needsAttention(row, down) ? -10 : 0) + ORDER.indexOf(stateOf(row, down)),
  lag: ({ received }) => received?.lag ?? -1,
  rate: ({ received }) => received?.rate ?? -1,
  sentLag: ({ sent }) => sent?.lag ?? -1,
  sentRate: ({ sent }) => sent?.rate ?? -1,
  quarantined: ({ received }) => (received?.quarantined ?? 0) + (received?.unrepairedGaps ?? 0),
}

const collator = new Intl.Collator('en', { numeric: true })

/**
 * @param {readonly TableRow[]} rows
 * @param {Choice} choice
 * @param {ReadonlySet<string>} down nodes that are down
 * @returns {TableRow[]}
 */
export function chooseRows(rows, { search, show, node, sort, isDescending }, down) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  const sortValue = VALUES[sort] ?? /** @type {(row: TableRow) => string} */ (VALUES.table)
  const direction = isDescending ? -1 : 1
  const found = rows.filter((row) => {
    if (node !== undefined && row.node !== node) return false
    if (show === 'attention' && !needsAttention(row, down)) return false
    if (show === 'behind' && !isBehind(row)) return false
    const text = `${row.node} ${row.database}.${row.table} ${stateOf(row, down)}`.toLowerCase()
    return words.every((word) => text.includes(word))
  })
  const values = new Map(found.map((row) => [row, sortValue(row, down)]))
  return found.sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)]
    if (typeof a === 'number' && typeof b === 'number') return direction * (a - b)
    return direction * collator.compare(String(a), String(b))
  })
}
