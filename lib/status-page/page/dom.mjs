// Elements without HTML: every text goes into the page as text, whatever it contains.

const SVG = 'http://www.w3.org/2000/svg'

/** @typedef {Node | string | number | false | null | undefined} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */

/**
 * @template {Element} T
 * @param {T} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 * @returns {T}
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value)
  element.append(...children.filter(isShown).map((child) => (typeof child === 'number' ? String(child) : child)))
  return element
}

/**
 * @param {Child} child
 * @returns {child is Node | string | number}
 */
const isShown = (child) => child !== false && child !== null && child !== undefined && child !== ''

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children)

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children)

/**
 * Changes the document only where it differs: a page that shows the same as before costs no layout.
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name)
    return
  }
  const text = value === true ? '' : String(value)
  if (element.getAttribute(name) !== text) element.setAttribute(name, text)
}

/**
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/**
 * The element of the page with this id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id)
  if (!element) throw new Error(`the page has no element '${id}'`)
  return element
}

/**
 * Shows one element for each item, in this order. Elements of known keys are kept, with their focus.
 * @template T
 * @param {Element} parent
 * @param {readonly T[]} items
 * @param {{ key(item: T): string, create(item: T): Element, update?(element: Element, item: T): void }} options
 * @param {Map<string, Element>} elements kept by the caller from one call to the next
 */
export function showList(parent, items, { key, create, update }, elements) {
  const wanted = new Set()
  let previous = /** @type {Element | null} */ (null)
  for (const item of items) {
    const name = key(item)
    if (wanted.has(name)) continue
    wanted.add(name)
    const known = elements.get(name)
    const element = known ?? create(item)
    elements.set(name, element)
    update?.(element, item)
    const expected = previous ? previous.nextSibling : parent.firstChild
    if (expected !== element) parent.insertBefore(element, expected)
    previous = element
  }
  for (const [name, element] of elements) {
    if (wanted.has(name)) continue
    element.remove()
    elements.delete(name)
  }
}
