// Line charts of the last ten minutes.

import { html, setAttribute, setText, svg } from './dom.mjs'
import { formatSeconds } from './format.mjs'

const WIDTH = 300
const HEIGHT = 60
/** ms: what the server keeps, and the shortest time that a chart shows. */
export const SPAN = 600_000
const MIN_SPAN = 60_000
/** A longer pause between two samples is a gap in the line. */
const MAX_PAUSE = 7_000

/** @typedef {{ label: string, times: readonly number[], values: readonly (number | null)[] }} Line */

/**
 * The path of a line; gaps where there is no sample. Pure.
 * @param {Pick<Line, 'times' | 'values'>} line
 * @param {{ end: number, span: number, highest: number }} scale `end`: the time at the right edge; `span`: ms from the left one
 * @returns {string}
 */
export function linePath({ times, values }, { end, span, highest }) {
  let path = ''
  let last = Number.NEGATIVE_INFINITY
  for (const [index, time] of times.entries()) {
    const value = values[index]
    if (value === null || value === undefined || time < end - span) continue
    const x = WIDTH * (1 - (end - time) / span)
    const y = HEIGHT * (1 - Math.min(value, highest) / highest)
    path += `${time - last > MAX_PAUSE ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`
    last = time
  }
  return path
}

/**
 * The upper edge of the scale: 1, 2 or 5 times a power of ten. Pure.
 * @param {readonly Line[]} lines
 * @returns {number}
 */
export function niceHighest(lines) {
  let highest = 0
  for (const { values } of lines) for (const value of values) if (value !== null && value > highest) highest = value
  if (highest <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(highest))
  const factor = [1, 2, 5, 10].find((each) => each * power >= highest) ?? 10
  return factor * power
}

const CLASSES = ['first', 'second', 'third']

export class Chart {
  #paths = CLASSES.map((name) => svg('path', { class: name }))
  #labels = CLASSES.map((name) => html('span', { class: `series ${name} quiet`, hidden: true }))
  #scale = html('span', { class: 'quiet' })
  #image
  #title
  #format
  element

  /**
   * @param {string} title
   * @param {(value: number) => string} format
   */
  constructor(title, format) {
    this.#title = title
    this.#format = format
    this.#image = svg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
      svg('path', { class: 'base', d: `M0 ${HEIGHT}H${WIDTH}M0 0H${WIDTH}` }),
      ...this.#paths,
    )
    const heading = html('p', { class: 'chart-title' }, html('b', {}, title), ...this.#labels, this.#scale)
    this.element = html('div', { class: 'chart' }, heading, this.#image)
  }

  /**
   * @param {readonly Line[]} lines at most three
   * @param {number} end ms since 1970
   */
  show(lines, end) {
    // A smaller scale would make much of nothing.
    const highest = Math.max(1, niceHighest(lines))
    const oldest = Math.min(...lines.map(({ times }) => times[0] ?? end))
    const span = Math.min(SPAN, Math.max(MIN_SPAN, end - oldest))
    const texts = []
    for (const [index, path] of this.#paths.entries()) {
      const line = lines[index]
      const label = /** @type {HTMLElement} */ (this.#labels[index])
      setAttribute(path, 'd', line ? linePath(line, { end, span, highest }) : '')
      label.hidden = !line
      if (!line) continue
      const last = line.values.findLast((value) => value !== null) ?? 0
      texts.push(`${line.label} ${this.#format(last)}`)
      setText(label, /** @type {string} */ (texts.at(-1)))
    }
    const time = formatSeconds(span / 1_000)
    setText(this.#scale, `up to ${this.#format(highest)}, last ${time}`)
    setAttribute(
      this.#image,
      'aria-label',
      `${this.#title}, last ${time}: now ${texts.join(', ')}; scale up to ${this.#format(highest)}`,
    )
  }
}
