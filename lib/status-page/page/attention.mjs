// What is wrong now, by kind, with what to do.

import { html } from './dom.mjs'
import { formatCode, formatPlace, plural } from './format.mjs'

/** @import { Snapshot, SnapshotCondition } from '../../status-page.ts' */

/** Conditions that hold replication up, or lost something: they come first. */
const SERIOUS = [
  'not_open',
  'superseded',
  'mesh_disconnected',
  'isolated',
  'hub_failed',
  'no_route_linked',
  'subscription_stalled',
  'subscription_pending',
  'gap_not_repaired',
  'subscription_stale',
  'peer_down',
  'clock_ahead',
  'disk_low',
]
const MAX_SHOWN = 5

/**
 * Conditions of one kind together, the serious kinds first. Pure.
 * @param {readonly SnapshotCondition[]} conditions
 * @returns {{ code: string, isSerious: boolean, advice: string, conditions: SnapshotCondition[] }[]}
 */
export function groupConditions(conditions) {
  /** @type {Map<string, SnapshotCondition[]>} */
  const groups = new Map()
  for (const condition of conditions) {
    const group = groups.get(condition.code)
    if (group) group.push(condition)
    else groups.set(condition.code, [condition])
  }
  const rank = (/** @type {string} */ code) => (SERIOUS.includes(code) ? SERIOUS.indexOf(code) : SERIOUS.length)
  return [...groups]
    .map(([code, group]) => ({
      code,
      isSerious: SERIOUS.includes(code),
      advice: /** @type {SnapshotCondition} */ (group[0]).advice,
      conditions: group,
    }))
    .sort((one, other) => rank(one.code) - rank(other.code))
}

/** What is shown now: the panel is announced, so it changes only when this does. */
let shown = ''

/**
 * @param {HTMLElement} parent
 * @param {Snapshot} snapshot
 */
export function showAttention(parent, { conditions, conditionCount, enabled }) {
  const groups = groupConditions(conditions)
  const text = JSON.stringify([enabled, groups, conditionCount])
  if (text === shown) return
  shown = text
  if (groups.length === 0) {
    const words = enabled ? 'Nothing: all that is configured works.' : 'Nothing: clustering is disabled on this node.'
    parent.replaceChildren(html('p', { class: 'all-well' }, `✓ ${words}`))
    return
  }
  const rest = conditionCount - conditions.length
  parent.replaceChildren(
    html('ul', { class: 'conditions' }, ...groups.map(groupElement)),
    rest > 0 ? html('p', { class: 'quiet' }, `and ${plural(rest, 'more condition')}`) : '',
  )
}

/** @param {ReturnType<typeof groupConditions>[number]} group */
function groupElement({ code, isSerious, advice, conditions }) {
  const lines = conditions.slice(0, MAX_SHOWN).map((condition) => {
    const place = formatPlace(condition)
    return html('li', {}, place && html('b', {}, `${place}: `), condition.message)
  })
  const rest = conditions.length - lines.length
  return html(
    'li',
    { class: isSerious && 'is-serious', 'data-code': code },
    html('b', {}, `${isSerious ? '■' : '▲'} ${formatCode(code)}`, conditions.length > 1 && ` (${conditions.length})`),
    html('ul', {}, ...lines, rest > 0 && html('li', {}, `and ${rest} more`)),
    html('p', {}, html('b', {}, 'What to do: '), advice),
  )
}
