// The last events, newest first.

import { html, setText, showList } from './dom.mjs'
import { formatPlace, formatTime } from './format.mjs'

/** @import { EventRecord, Snapshot } from '../../status-page.ts' */

const MARKS = { info: '·', good: '●', warning: '▲', error: '■' }

export class Events {
  #list = html('ul', { class: 'events', tabindex: 0, 'aria-label': 'Events, newest first' })
  #none = html('p', { class: 'quiet' }, 'None since the database was started.')
  /** @type {Map<string, Element>} */
  #elements = new Map()

  /** @param {HTMLElement} parent */
  constructor(parent) {
    parent.replaceChildren(this.#list, this.#none)
  }

  /** @param {Snapshot} snapshot */
  show({ events }) {
    this.#list.hidden = events.length === 0
    this.#none.hidden = events.length > 0
    showList(this.#list, events, { key: ({ id }) => String(id), create: createEvent }, this.#elements)
  }
}

/** @param {EventRecord} record */
function createEvent(record) {
  const { event, level, time, text, count } = record
  const place = formatPlace(record)
  const element = html(
    'li',
    { 'data-event': event },
    html('time', { datetime: new Date(time).toISOString() }, formatTime(time)),
    html('span', { class: level, role: 'img', 'aria-label': level }, MARKS[level] ?? '·'),
    html('span', {}, place && html('b', {}, `${place}: `), html('span'), count !== undefined && ` (${count} times)`),
  )
  setText(/** @type {Element} */ (element.lastElementChild?.querySelector('span')), text)
  return element
}
