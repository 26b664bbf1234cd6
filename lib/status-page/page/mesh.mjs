// The live picture: this node, its peers, and what flows between them in each direction.

import { html, setAttribute, setText, svg } from './dom.mjs'
import { formatLag, formatRate, plural, stateLook } from './format.mjs'
import { labelLines, labelX, layOut, linkPath, linkWidth, MAX_LABELS, MAX_SMALL } from './layout.mjs'
import { createLine, describeLinks, MeshLinks, placeLine, showLine } from './mesh-links.mjs'
import { downNodes } from './table-rows.mjs'

/** @import { LinkRow, PeerRow, Snapshot } from '../../status-page.ts' */
/** @import { Layout, Spot } from './layout.mjs' */
/** @typedef {NonNullable<PeerRow['received']>} Flow */

const LONG_NAME = 16

/** @param {string} name */
const shortName = (name) => (name.length > LONG_NAME ? `${name.slice(0, LONG_NAME - 1)}…` : name)

/**
 * What a screen reader says of a peer. Pure.
 * @param {PeerRow} peer
 * @returns {string}
 */
export function describePeer({ node, state, received, sent }) {
  const parts = [`${node}: ${stateLook(state).text}`]
  if (received)
    parts.push(`from it ${formatRate(received.rate)}, behind here ${formatLag(received.lag, received.lagSeconds)}`)
  if (sent) parts.push(`to it ${formatRate(sent.rate)}, behind there ${formatLag(sent.lag, sent.lagSeconds)}`)
  return parts.join('; ')
}

/**
 * The classes of a line. Pure.
 * @param {PeerRow} peer
 * @param {'in' | 'out'} direction
 * @param {Flow} flow
 * @returns {string}
 */
export function linkClass({ up, state }, direction, { rate, lag }) {
  const isBroken = !up || (direction === 'in' && state === 'stalled')
  const mark = isBroken ? ' is-broken' : lag > 0 && rate === 0 ? ' is-behind' : rate === 0 ? ' is-idle' : ''
  return `link ${direction}${mark}`
}

class PeerElement {
  #circle = svg('circle')
  /** What can be clicked: the node and its name. */
  #area = svg('rect', { class: 'area' })
  #mark = svg('text', { class: 'mark' })
  #label = svg('text', {})
  #sent = svg('text', { class: 'figure-text' })
  #received = svg('text', { class: 'figure-text' })
  #links = { in: createLine(), out: createLine() }
  node = svg(
    'g',
    { class: 'node', role: 'option', tabindex: -1 },
    this.#area,
    this.#circle,
    this.#mark,
    this.#label,
    this.#sent,
    this.#received,
  )
  lines = svg('g', {}, ...this.#links.in, ...this.#links.out)
  #isSmall
  #hasFigures

  /**
   * @param {string} name
   * @param {Spot} spot
   * @param {Layout} layout
   * @param {boolean} hasFigures
   */
  constructor(name, spot, { local, hasLabels }, hasFigures) {
    this.#hasFigures = hasFigures
    this.#isSmall = !hasLabels
    this.node.dataset.node = name
    const offset = hasLabels ? 6 : 3
    placeLine(this.#links.out, linkPath(local, spot, offset), hasLabels)
    placeLine(this.#links.in, linkPath(spot, local, offset), hasLabels)
    fillAttributes(this.#circle, { cx: spot.x, cy: spot.y, r: spot.radius })
    fillAttributes(this.#mark, { x: spot.x, y: spot.y })
    const figures = hasFigures ? [this.#sent, this.#received] : []
    // The name is next to the node.
    const texts = spot.y < 0 ? [...figures, this.#label] : [this.#label, ...figures]
    const lines = labelLines(spot, texts.length)
    const [top, bottom] = hasLabels
      ? [Math.min(lines[0] ?? 0, spot.y) - spot.radius, Math.max(lines.at(-1) ?? 0, spot.y) + spot.radius]
      : [spot.y - spot.radius - 3, spot.y + spot.radius + 3]
    const halfWidth = hasLabels ? 40 : spot.radius + 3
    fillAttributes(this.#area, { x: spot.x - halfWidth, y: top, width: 2 * halfWidth, height: bottom - top })
    const x = hasLabels ? labelX(spot) : spot.x
    for (const [index, y] of lines.entries()) fillAttributes(/** @type {Element} */ (texts[index]), { x, y })
    setText(this.#label, shortName(name))
  }

  /**
   * @param {PeerRow} peer
   * @param {boolean} isChosen
   */
  update(peer, isChosen) {
    const { mark, tone } = stateLook(peer.state)
    setAttribute(this.node, 'class', `node is-${tone}${isChosen ? ' is-chosen' : ''}`)
    setAttribute(this.node, 'aria-label', describePeer(peer))
    setAttribute(this.node, 'aria-selected', String(isChosen))
    setText(this.#mark, this.#isSmall && tone === 'good' ? '' : mark)
    setAttribute(this.#mark, 'class', `mark`)
    // Names of many nodes would cover each other.
    setAttribute(this.#label, 'display', this.#isSmall && !isChosen && tone !== 'error' ? 'none' : null)
    setText(this.#sent, this.#hasFigures && peer.sent ? `→ ${formatRate(peer.sent.rate)}${behind(peer.sent.lag)}` : '')
    setText(
      this.#received,
      this.#hasFigures && peer.received ? `← ${formatRate(peer.received.rate)}${behind(peer.received.lag)}` : '',
    )
    this.#updateLink('out', peer, peer.sent, isChosen)
    this.#updateLink('in', peer, peer.received, isChosen)
  }

  /**
   * @param {'in' | 'out'} direction
   * @param {PeerRow} peer
   * @param {Flow | undefined} flow
   * @param {boolean} isChosen
   */
  #updateLink(direction, peer, flow, isChosen) {
    const line = this.#links[direction]
    for (const element of line) setAttribute(element, 'display', flow ? null : 'none')
    if (!flow) return
    const classes = `${linkClass(peer, direction, flow)}${isChosen ? ' is-chosen' : ''}`
    showLine(line, classes, linkWidth(flow.rate, this.#isSmall ? 2.9 : 7))
  }
}

const behind = (/** @type {number} */ lag) => (lag > 0 ? `, behind ${formatLag(lag)}` : '')

/**
 * @param {Element} element
 * @param {Record<string, number>} attributes
 */
function fillAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value.toFixed(1))
}

/** With so few peers, figures stand beside the nodes. */
const MAX_FIGURES = 8
/** Lines about the links of the chosen node. */
const MAX_LINES = 20

export class MeshPicture {
  #parent
  #onChoose
  /** @type {Map<string, PeerElement>} */
  #elements = new Map()
  #names = ''
  /** @type {readonly PeerRow[]} */
  #peers = []
  /** @type {readonly LinkRow[]} */
  #links = []
  /** @type {MeshLinks | undefined} */
  #linkLayer
  #image = svg('svg')
  #size = ''
  #summary = html('p')
  #linkList = html('ul', { class: 'peer-links', hidden: true })
  /** @type {string | undefined} */
  #chosen
  #local = svg('g', { class: 'node is-local' })

  /**
   * @param {HTMLElement} parent
   * @param {HTMLElement} detail
   * @param {(node: string | undefined) => void} onChoose a node was chosen, or none
   */
  constructor(parent, detail, onChoose) {
    this.#parent = parent
    this.#onChoose = onChoose
    detail.append(this.#summary, this.#linkList)
    parent.addEventListener('click', (event) => this.#onClick(event))
    parent.addEventListener('keydown', (event) => this.#onKey(event))
  }

  /** @param {Snapshot} snapshot */
  show({ node, peers, links, ready, mesh }) {
    this.#peers = peers
    this.#links = links
    const names = JSON.stringify([node, peers.map((peer) => peer.node)])
    if (names !== this.#names) this.#draw(node, peers)
    this.#names = names
    if (this.#chosen !== undefined && !peers.some((peer) => peer.node === this.#chosen)) this.#choose(undefined)
    const tone = !ready ? 'error' : mesh?.state === 'isolated' ? 'warning' : 'good'
    setAttribute(this.#local, 'class', `node is-local is-${tone}`)
    this.#update()
  }

  /**
   * @param {string} node
   * @param {readonly PeerRow[]} peers
   */
  #draw(node, peers) {
    this.#elements.clear()
    if (peers.length === 0) {
      this.#parent.replaceChildren(html('p', { class: 'quiet' }, 'This node has no peers.'))
      return
    }
    const layout = layOut(peers.length)
    const { local, viewBox } = layout
    /** @type {Map<string, Spot>} */
    const spots = new Map()
    for (const [index, peer] of peers.entries()) {
      const spot = /** @type {Spot} */ (layout.spots[index])
      spots.set(peer.node, spot)
      this.#elements.set(peer.node, new PeerElement(peer.node, spot, layout, peers.length <= MAX_FIGURES))
    }
    this.#local = svg(
      'g',
      { class: 'node is-local' },
      svg('circle', { cx: local.x, cy: local.y, r: local.radius }),
      svg('text', { class: 'mark', x: local.x, y: local.y }, '◆'),
      svg('text', { x: local.x, y: local.y + local.radius + 15 }, shortName(node)),
    )
    const all = [...this.#elements.values()]
    this.#linkLayer = new MeshLinks(spots, layout)
    this.#image = svg(
      'svg',
      {
        viewBox,
        role: 'listbox',
        'aria-label': `${node} and ${plural(peers.length, 'peer')}`,
        'aria-describedby': 'mesh-caption',
      },
      this.#linkLayer.element,
      ...all.map(({ lines }) => lines),
      this.#local,
      ...all.map((each) => each.node),
    )
    this.#parent.replaceChildren(this.#image)
    // One stop for the tab key; arrow keys move on from there.
    setAttribute(/** @type {Element} */ (all[0]?.node), 'tabindex', 0)
    this.#size = peers.length > MAX_LABELS ? 'has-many' : peers.length > MAX_SMALL ? 'has-several' : ''
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const name = nodeOf(event.target)
    if (name !== undefined) this.#choose(name === this.#chosen ? undefined : name)
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const name = nodeOf(event.target)
    if (name === undefined) return
    const names = this.#peers.map(({ node }) => node)
    const at = names.indexOf(name)
    const target = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: -1 }[
      event.key
    ]
    if (event.key === 'Enter' || event.key === ' ') this.#choose(name === this.#chosen ? undefined : name)
    else if (event.key === 'Escape') this.#choose(undefined)
    else if (target !== undefined) this.#focus(/** @type {string} */ (names.at(target % names.length)))
    else return
    event.preventDefault()
  }

  /** @param {string} name */
  #focus(name) {
    for (const [each, { node }] of this.#elements) setAttribute(node, 'tabindex', each === name ? 0 : -1)
    this.#elements.get(name)?.node.focus()
  }

  /** @param {string | undefined} name */
  #choose(name) {
    this.#chosen = name
    this.#update()
    this.#onChoose(name)
  }

  #update() {
    for (const peer of this.#peers) this.#elements.get(peer.node)?.update(peer, peer.node === this.#chosen)
    const down = downNodes(this.#peers)
    this.#linkLayer?.show(this.#links, down, this.#chosen)
    const classes = [this.#size, this.#chosen !== undefined && 'has-chosen'].filter(Boolean)
    setAttribute(this.#image, 'class', classes.join(' ') || null)
    this.#showDetail()
  }

  #showDetail() {
    const peer = this.#peers.find(({ node }) => node === this.#chosen)
    setText(this.#summary, peer ? `${describePeer(peer)}; ${plural(peer.tables, 'table')}` : '')
    const lines = peer ? describeLinks(peer.node, this.#links) : []
    const rest = lines.length - MAX_LINES
    const shown = rest > 0 ? [...lines.slice(0, MAX_LINES), `and ${rest} more`] : lines
    this.#linkList.hidden = shown.length === 0
    while (this.#linkList.childElementCount > shown.length) this.#linkList.lastElementChild?.remove()
    for (const [index, text] of shown.entries())
      setText(this.#linkList.children[index] ?? this.#linkList.appendChild(html('li')), text)
  }
}

/** @param {EventTarget | null} target */
const nodeOf = (target) =>
  target instanceof Element ? /** @type {SVGElement | null} */ (target.closest('[data-node]'))?.dataset.node : undefined
