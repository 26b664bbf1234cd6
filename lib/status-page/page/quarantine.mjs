// What is in quarantine, and what to do with it.

import { html } from './dom.mjs'
import { formatPlace, plural } from './format.mjs'

/** @import { Snapshot } from '../../status-page.ts' */

let shown = ''

/**
 * @param {HTMLElement} section
 * @param {HTMLElement} parent
 * @param {Snapshot} snapshot
 */
export function showQuarantine(section, parent, { quarantine, quarantineCount }) {
  const text = JSON.stringify([quarantine, quarantineCount])
  if (text === shown) return
  shown = text
  section.hidden = quarantineCount === 0
  const rest = quarantineCount - quarantine.length
  parent.replaceChildren(
    html(
      'p',
      {},
      `${plural(quarantineCount, 'message')} set aside; later ones are applied. Correct the reason, then `,
      html('code', {}, 'cluster.quarantine.replay(source)'),
      ' applies them, and ',
      html('code', {}, 'cluster.quarantine.discard(source)'),
      ' deletes them.',
    ),
    html(
      'table',
      {},
      html('caption', {}, 'Messages in quarantine'),
      html(
        'thead',
        {},
        html('tr', {}, ...['Table', 'Number', 'Since', 'Reason'].map((each) => html('th', { scope: 'col' }, each))),
      ),
      html('tbody', {}, ...quarantine.map(rowElement)),
    ),
    rest > 0 ? html('p', { class: 'quiet' }, `and ${plural(rest, 'more message')}: cluster.quarantine.list()`) : '',
  )
}

/** @param {Snapshot['quarantine'][number]} row */
function rowElement(row) {
  const range = row.count > 1 ? `${row.index} to ${row.index + row.count - 1}` : String(row.index)
  const note = row.cause === 'timestamp' ? ' (applied by itself when its time has come)' : ''
  return html(
    'tr',
    {},
    html('th', { scope: 'row' }, formatPlace(row)),
    html('td', { 'data-label': 'Number' }, range),
    html('td', { 'data-label': 'Since' }, new Date(row.quarantinedAt).toLocaleString()),
    html('td', { 'data-label': 'Reason' }, `${row.reason}${note}`),
  )
}
