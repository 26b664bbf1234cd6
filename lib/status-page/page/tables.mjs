// The list of remote tables, with the details of those that are opened.

import { Chart } from './charts.mjs'
import { byId, html, setAttribute, setText, showList } from './dom.mjs'
import { formatCount, formatLag, formatRate, formatTime, plural, stateLook } from './format.mjs'
import { chooseRows, downNodes, stateOf } from './table-rows.mjs'

/** @import { Snapshot, TableRow } from '../../status-page.ts' */

const PAGE = 100
const COLUMNS = /** @type {const} */ ([
  ['state', 'State'],
  ['table', 'Table'],
  ['node', 'Node'],
  ['rate', 'From it'],
  ['lag', 'Behind here'],
  ['sentRate', 'To it'],
  ['sentLag', 'Behind there'],
  ['quarantined', 'Lost or set aside'],
])
const NUMBERS = ['rate', 'lag', 'sentRate', 'sentLag']

/** @param {TableRow} row */
const keyOf = ({ node, database, table }) => JSON.stringify([node, database, table])

/**
 * @param {TableRow} row
 * @param {ReturnType<typeof stateLook> | undefined} look
 */
function cellTexts({ node, database, table, received, sent }, look) {
  const problems = [
    received && received.quarantined > 0 && `${formatCount(received.quarantined)} quarantined`,
    received?.unrepairedGaps && plural(received.unrepairedGaps, 'gap'),
    sent?.missing && `${formatCount(sent.missing)} missing there`,
  ]
  return {
    state: look ? `${look.mark} ${look.text === 'down' ? 'node down' : look.text}` : '→ publishes only',
    table: `${database}.${table}`,
    node,
    rate: received ? formatRate(received.rate) : '',
    lag: received ? formatLag(received.lag, received.lagSeconds) : '',
    sentRate: sent ? formatRate(sent.rate) : '',
    sentLag: sent ? (sent.lag === undefined ? 'not reported' : formatLag(sent.lag, sent.lagSeconds)) : '',
    quarantined: problems.filter(Boolean).join(', '),
  }
}

/**
 * Names and values of the details of a row.
 * @param {TableRow} row
 * @returns {[string, string][]}
 */
function details({ received, sent }) {
  /** @type {[string, string | undefined | false][]} */
  const list = []
  if (received) {
    const { error, disagreement, refused, copy, copied, gaps, lost, unrepairedGaps = 0, staleSince } = received
    list.push(['Error', error])
    list.push(['Agreement', disagreement && `${disagreement.state}: ${disagreement.reason}`])
    list.push(['Refused', refused && `transaction ${refused.id}, number ${refused.index}`])
    const speed = copy?.rate ? `, ${formatRate(copy.rate)}` : ''
    list.push(['Copy', copy && `${plural(copy.rows, 'row')} so far (${copy.reason})${speed}`])
    list.push(['Copied rows', copied > 0 && formatCount(copied)])
    const open =
      unrepairedGaps > 0 ? `, ${unrepairedGaps} not repaired: copy the rows with cluster.copy()` : ', repaired'
    list.push(['Gaps', gaps > 0 && `${plural(gaps, 'gap')}, ${plural(lost, 'lost transaction')}${open}`])
    list.push(['Stale since', staleSince !== undefined && new Date(staleSince).toLocaleString()])
  }
  if (sent) {
    const { missing, copying, paused, reportedAt } = sent
    list.push(['Missing there', missing !== undefined && missing > 0 && plural(missing, 'transaction')])
    list.push(['There', [copying && 'copies rows', paused && 'is paused'].filter(Boolean).join(', ')])
    list.push(['Last report', reportedAt === undefined ? 'none yet' : formatTime(reportedAt)])
  }
  return /** @type {[string, string][]} */ (list.filter(([, value]) => value))
}

/** Which rows are open, with the chart of each. */
class Details {
  #row = html('tr', { class: 'detail' })
  #list = html('dl')
  #chart = new Chart('Transactions', formatRate)
  #lag = new Chart('Behind', formatCount)
  #place
  #isLoading = false
  element = this.#row

  /** @param {TableRow} row */
  constructor({ node, database, table }) {
    this.#place = { node, database, table }
    const charts = html('div', { class: 'charts' }, this.#chart.element, this.#lag.element)
    this.#row.append(html('td', { colspan: COLUMNS.length }, this.#list, charts))
  }

  /** @param {TableRow} row */
  async update(row) {
    const entries = details(row)
    const text = JSON.stringify(entries)
    if (this.#list.dataset.shown !== text) {
      this.#list.dataset.shown = text
      this.#list.replaceChildren(...entries.flatMap(([name, value]) => [html('dt', {}, name), html('dd', {}, value)]))
    }
    if (this.#isLoading) return
    this.#isLoading = true
    const response = await fetch(`history.json?${new URLSearchParams(this.#place)}`).catch(() => undefined)
    this.#isLoading = false
    if (!response?.ok) return
    const { times, values } = await response.json()
    const end = times.at(-1) ?? Date.now()
    this.#chart.show(
      [
        { label: 'from it', times, values: values.applied },
        { label: 'to it', times, values: values.sent },
      ],
      end,
    )
    this.#lag.show(
      [
        { label: 'here', times, values: values.lag },
        { label: 'there', times, values: values.sentLag },
      ],
      end,
    )
  }
}

export class Tables {
  #body = html('tbody')
  #head = html('tr')
  #more = html('button', { type: 'button', class: 'more', hidden: true })
  /** @type {Map<string, Element>} */
  #elements = new Map()
  /** @type {Map<string, Details>} */
  #open = new Map()
  /** @type {readonly TableRow[]} */
  #rows = []
  /** @type {ReadonlySet<string>} */
  #down = new Set()
  /** @type {string | undefined} */
  #node
  #sort = 'state'
  #isDescending = false
  #limit = PAGE

  /** @param {HTMLElement} parent */
  constructor(parent) {
    for (const [name, title] of COLUMNS) this.#head.append(this.#headerCell(name, title))
    const table = html('table', {}, html('caption', {}, 'Remote tables'), html('thead', {}, this.#head), this.#body)
    parent.replaceChildren(table, this.#more)
    this.#more.addEventListener('click', () => {
      this.#limit += PAGE
      this.#render()
    })
    this.#body.addEventListener('click', (event) => this.#onClick(event))
    const form = byId('table-filter')
    form.addEventListener('submit', (event) => event.preventDefault())
    form.addEventListener('input', () => this.#render())
  }

  /** @param {Snapshot} snapshot */
  show({ tables, peers }) {
    this.#rows = tables
    this.#down = downNodes(peers)
    this.#render()
  }

  /** @param {string | undefined} node only the tables of this node */
  choose(node) {
    this.#node = node
    this.#render()
  }

  /**
   * @param {string} name
   * @param {string} title
   */
  #headerCell(name, title) {
    const button = html('button', { type: 'button' }, title)
    button.addEventListener('click', () => {
      this.#isDescending = this.#sort === name ? !this.#isDescending : NUMBERS.includes(name) || name === 'quarantined'
      this.#sort = name
      this.#render()
    })
    return html('th', { scope: 'col', class: NUMBERS.includes(name) && 'number', 'data-sort': name }, button)
  }

  #render() {
    const search = /** @type {HTMLInputElement} */ (byId('search')).value
    const show = /** @type {HTMLSelectElement} */ (byId('show')).value
    const choice = { search, show, node: this.#node, sort: this.#sort, isDescending: this.#isDescending }
    const found = chooseRows(this.#rows, choice, this.#down)
    const shown = found.slice(0, this.#limit)
    const options = {
      key: keyOf,
      create: (/** @type {TableRow} */ row) => createRow(row),
      update: (/** @type {Element} */ element, /** @type {TableRow} */ row) => this.#update(element, row),
    }
    // Details stand between rows: they are taken out while the rows are sorted.
    for (const { element } of this.#open.values()) element.remove()
    showList(this.#body, shown, options, this.#elements)
    for (const [key, opened] of this.#open) {
      const element = this.#elements.get(key)
      if (element) element.after(opened.element)
      else this.#open.delete(key)
    }
    for (const cell of this.#head.children) {
      const isSorted = /** @type {HTMLElement} */ (cell).dataset.sort === this.#sort
      setAttribute(cell, 'aria-sort', isSorted ? (this.#isDescending ? 'descending' : 'ascending') : null)
    }
    const rest = found.length - shown.length
    this.#more.hidden = rest === 0
    setText(this.#more, `Show ${Math.min(rest, PAGE)} more of ${formatCount(rest)}`)
    const where = this.#node === undefined ? '' : ` of ${this.#node}`
    setText(byId('table-count'), `${formatCount(found.length)} of ${plural(this.#rows.length, 'table')}${where}`)
  }

  /**
   * @param {Element} element
   * @param {TableRow} row
   */
  #update(element, row) {
    const isKnown = row.received || this.#down.has(row.node)
    const look = isKnown ? stateLook(stateOf(row, this.#down)) : undefined
    const texts = cellTexts(row, look)
    for (const [index, [name]] of COLUMNS.entries()) {
      const cell = /** @type {Element} */ (element.children[index])
      setText(name === 'table' ? /** @type {Element} */ (cell.firstElementChild) : cell, texts[name])
      if (name === 'state') setAttribute(cell, 'class', `state ${look?.tone ?? ''}`)
      if (name === 'quarantined') setAttribute(cell, 'class', texts.quarantined && 'error')
    }
    void this.#open.get(keyOf(row))?.update(row)
  }

  /** @param {Event} event */
  #onClick(event) {
    const button = event.target instanceof Element ? event.target.closest('button') : null
    const key = button?.dataset.key
    const row = this.#rows.find((each) => keyOf(each) === key)
    if (!button || key === undefined || !row) return
    const opened = this.#open.get(key)
    if (opened) {
      opened.element.remove()
      this.#open.delete(key)
    } else this.#open.set(key, new Details(row))
    setAttribute(button, 'aria-expanded', String(!opened))
    this.#render()
  }
}

/** @param {TableRow} row */
function createRow(row) {
  return html(
    'tr',
    {},
    ...COLUMNS.map(([name, title]) =>
      name === 'table'
        ? html(
            'th',
            { scope: 'row' },
            html('button', { type: 'button', 'data-key': keyOf(row), 'aria-expanded': 'false' }),
          )
        : html('td', { 'data-label': title, class: NUMBERS.includes(name) && 'number' }),
    ),
  )
}
