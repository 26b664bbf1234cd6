// The live picture: this node, its peers, and what flows between them in each direction.

import { html, setAttribute, setText, svg } from './dom.mjs'
import { formatLag, formatRate, plural, stateLook } from './format.mjs'
import { labelLines, layOut, linkPath, linkWidth, MAX_LABELS } from './layout.mjs'

/** @import { PeerRow, Snapshot } from '../../status-page.ts' */
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
    parts.push(`from it ${formatRate(received.rate)}, behind ${formatLag(received.lag, received.lagSeconds)}`)
  if (sent) parts.push(`to it ${formatRate(sent.rate)}, it is behind ${formatLag(sent.lag, sent.lagSeconds)}`)
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
  #links = { in: linkElements('in'), out: linkElements('out') }
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
  constructor(name, spot, { center, hasLabels }, hasFigures) {
    this.#hasFigures = hasFigures
    this.#isSmall = !hasLabels
    this.node.dataset.node = name
    const offset = hasLabels ? 6 : 3
    place(this.#links.out, linkPath(center, spot, offset), hasLabels)
    place(this.#links.in, linkPath(spot, center, offset), hasLabels)
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
    for (const [index, y] of lines.entries()) fillAttributes(/** @type {Element} */ (texts[index]), { x: spot.x, y })
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
    this.#updateLink('out', peer, peer.sent)
    this.#updateLink('in', peer, peer.received)
  }

  /**
   * @param {'in' | 'out'} direction
   * @param {PeerRow} peer
   * @param {Flow | undefined} flow
   */
  #updateLink(direction, peer, flow) {
    for (const element of this.#links[direction]) {
      setAttribute(element, 'display', flow ? null : 'none')
      if (!flow) continue
      setAttribute(element, 'class', linkClass(peer, direction, flow))
      setAttribute(element, 'stroke-width', linkWidth(flow.rate, this.#isSmall))
    }
  }
}

const behind = (/** @type {number} */ lag) => (lag > 0 ? `, behind ${formatLag(lag)}` : '')

/** @param {string} direction */
const linkElements = (direction) => [
  svg('path', { class: `link ${direction}` }),
  svg('path', { class: `link ${direction}` }),
]

/**
 * @param {SVGPathElement[]} elements the line and its tip
 * @param {{ path: string, arrow: string }} link
 * @param {boolean} hasArrow
 */
function place([line, tip], { path, arrow }, hasArrow) {
  line?.setAttribute('d', path)
  tip?.setAttribute('d', hasArrow ? arrow : '')
}

/**
 * @param {Element} element
 * @param {Record<string, number>} attributes
 */
function fillAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value.toFixed(1))
}

/** With so few peers, figures stand beside the nodes. */
const MAX_FIGURES = 8

export class MeshPicture {
  #parent
  #detail
  #onChoose
  /** @type {Map<string, PeerElement>} */
  #elements = new Map()
  #names = ''
  /** @type {readonly PeerRow[]} */
  #peers = []
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
    this.#detail = detail
    this.#onChoose = onChoose
    parent.addEventListener('click', (event) => this.#onClick(event))
    parent.addEventListener('keydown', (event) => this.#onKey(event))
  }

  /** @param {Snapshot} snapshot */
  show({ node, peers, ready, mesh }) {
    this.#peers = peers
    const names = JSON.stringify([node, peers.map((peer) => peer.node)])
    if (names !== this.#names) this.#draw(node, peers)
    this.#names = names
    if (this.#chosen !== undefined && !peers.some((peer) => peer.node === this.#chosen)) this.#choose(undefined)
    const tone = !ready ? 'error' : mesh?.state === 'isolated' ? 'warning' : 'good'
    setAttribute(this.#local, 'class', `node is-local is-${tone}`)
    for (const peer of peers) this.#elements.get(peer.node)?.update(peer, peer.node === this.#chosen)
    this.#showDetail()
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
    const { center, viewBox } = layout
    for (const [index, peer] of peers.entries()) {
      const spot = /** @type {Spot} */ (layout.spots[index])
      this.#elements.set(peer.node, new PeerElement(peer.node, spot, layout, peers.length <= MAX_FIGURES))
    }
    this.#local = svg(
      'g',
      { class: 'node is-local' },
      svg('circle', { cx: center.x, cy: center.y, r: center.radius }),
      svg('text', { class: 'mark', x: center.x, y: center.y }, '◆'),
      svg('text', { x: center.x, y: center.y + center.radius + 15 }, shortName(node)),
    )
    const all = [...this.#elements.values()]
    const image = svg(
      'svg',
      {
        viewBox,
        role: 'listbox',
        'aria-label': `${node} and ${plural(peers.length, 'peer')}`,
        'aria-describedby': 'mesh-caption',
      },
      ...all.map(({ lines }) => lines),
      this.#local,
      ...all.map((each) => each.node),
    )
    this.#parent.replaceChildren(image)
    // One stop for the tab key; arrow keys move on from there.
    setAttribute(/** @type {Element} */ (all[0]?.node), 'tabindex', 0)
    setAttribute(image, 'class', peers.length > MAX_LABELS ? 'has-many' : null)
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
    for (const peer of this.#peers) this.#elements.get(peer.node)?.update(peer, peer.node === name)
    this.#showDetail()
    this.#onChoose(name)
  }

  #showDetail() {
    const peer = this.#peers.find(({ node }) => node === this.#chosen)
    setText(this.#detail, peer ? `${describePeer(peer)}; ${plural(peer.tables, 'table')}` : '')
  }
}

/** @param {EventTarget | null} target */
const nodeOf = (target) =>
  target instanceof Element ? /** @type {SVGElement | null} */ (target.closest('[data-node]'))?.dataset.node : undefined
