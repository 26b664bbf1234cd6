// Links between other nodes in the picture of the mesh, and what is said of them.

import { setAttribute, showList, svg } from './dom.mjs'
import { formatLag, formatRate, stateLook } from './format.mjs'
import { linkPath, linkWidth } from './layout.mjs'

/** With more peers, only links are drawn that are not live, and those of the chosen node. */
const MAX_ALL = 8

/** @import { LinkRow } from '../../status-page.ts' */
/** @import { Layout, Spot } from './layout.mjs' */

/**
 * A line and its tip.
 * @returns {[SVGPathElement, SVGPathElement]}
 */
export const createLine = () => [svg('path'), svg('path')]

/**
 * @param {readonly SVGPathElement[]} line
 * @param {{ path: string, arrow: string }} link
 * @param {boolean} hasArrow
 */
export function placeLine([line, tip], { path, arrow }, hasArrow) {
  line?.setAttribute('d', path)
  tip?.setAttribute('d', hasArrow ? arrow : '')
}

/**
 * @param {readonly Element[]} line
 * @param {string} classes
 * @param {number} width
 */
export function showLine([line, tip], classes, width) {
  for (const element of [line, tip]) if (element) setAttribute(element, 'stroke-width', width)
  if (line) setAttribute(line, 'class', classes)
  if (tip) setAttribute(tip, 'class', `${classes} tip`)
}

/**
 * The classes of a link between other nodes. Pure.
 * @param {Pick<LinkRow, 'state' | 'rate' | 'lag'>} link
 * @returns {string}
 */
export function peerLinkClass({ state, rate, lag }) {
  const { tone } = stateLook(state)
  const isIdle = !rate
  const isBehind = tone === 'warning' || (lag > 0 && isIdle)
  return `link peer${tone === 'error' ? ' is-broken' : isBehind ? ' is-behind' : isIdle ? ' is-idle' : ''}`
}

/**
 * What is said of the links of a node with nodes other than the local one: one text for each of them. Pure.
 * @param {string} node
 * @param {readonly LinkRow[]} links
 * @returns {string[]}
 */
export function describeLinks(node, links) {
  /** @type {Map<string, string[]>} */
  const texts = new Map()
  for (const link of links) {
    if (link.from !== node && link.to !== node) continue
    const isFrom = link.to === node
    const peer = isFrom ? link.from : link.to
    const figures = [
      link.state !== 'live' && stateLook(link.state).text,
      link.state !== 'down' && link.rate !== undefined && formatRate(link.rate),
      `behind ${formatLag(link.lag, link.lagSeconds)}`,
    ]
    const text = `${isFrom ? 'from' : 'to'} ${peer}: ${figures.filter(Boolean).join(', ')}`
    texts.set(peer, isFrom ? [text, ...(texts.get(peer) ?? [])] : [...(texts.get(peer) ?? []), text])
  }
  return [...texts.values()].map((each) => each.join('; '))
}

export class MeshLinks {
  element = svg('g', {})
  /** @type {Map<string, Element>} */
  #elements = new Map()
  /** @type {ReadonlyMap<string, Spot>} */
  #spots
  #isSmall

  /**
   * @param {ReadonlyMap<string, Spot>} spots by node
   * @param {Layout} layout
   */
  constructor(spots, { hasLabels }) {
    this.#spots = spots
    this.#isSmall = !hasLabels
  }

  /**
   * @param {readonly LinkRow[]} links
   * @param {ReadonlySet<string>} down nodes that are down, which is shown by the nodes
   * @param {string | undefined} chosen
   */
  show(links, down, chosen) {
    const hasAll = this.#spots.size <= MAX_ALL
    const drawn = links.filter(({ from, to, state }) => {
      if (!this.#spots.has(from) || !this.#spots.has(to)) return false
      const isNotable = state !== 'live' && !down.has(from) && !down.has(to)
      return hasAll || isNotable || from === chosen || to === chosen
    })
    const options = {
      key: (/** @type {LinkRow} */ { from, to }) => JSON.stringify([from, to]),
      create: (/** @type {LinkRow} */ link) => this.#create(link),
      update: (/** @type {Element} */ element, /** @type {LinkRow} */ link) => this.#update(element, link, chosen),
    }
    // The worst are drawn over the others.
    showList(this.element, drawn.reverse(), options, this.#elements)
  }

  /** @param {LinkRow} link */
  #create({ from, to }) {
    const line = createLine()
    const ends = /** @type {[Spot, Spot]} */ ([this.#spots.get(from), this.#spots.get(to)])
    placeLine(line, linkPath(...ends, this.#isSmall ? 2 : 4), !this.#isSmall)
    return svg('g', { 'data-link': `${from} ${to}` }, ...line)
  }

  /**
   * @param {Element} element
   * @param {LinkRow} link
   * @param {string | undefined} chosen
   */
  #update(element, link, chosen) {
    const isChosen = link.from === chosen || link.to === chosen
    showLine(
      [...element.children],
      `${peerLinkClass(link)}${isChosen ? ' is-chosen' : ''}`,
      linkWidth(link.rate ?? 0, 2.4),
    )
  }
}
