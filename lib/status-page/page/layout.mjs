// Where the nodes of the picture are. Pure.

/** @typedef {{ x: number, y: number, radius: number }} Spot */
/** @typedef {{ viewBox: string, local: Spot, spots: Spot[], hasLabels: boolean }} Layout */

/** Room for a name and two lines of figures above and below the nodes, and for half of a name at the sides. */
const LABEL_HEIGHT = 52
const LABEL_WIDTH = 92
/** How far a name stands further outside than its node, so that links do not cross it. */
const LABEL_SHIFT = 18

/** Nodes of the inner ring. */
const RING = 14
/** With more nodes, names are shown only where something is wrong, and for the chosen node. */
export const MAX_LABELS = 20
/** With more nodes, the picture is larger, and shown smaller. */
export const MAX_SMALL = 12

/**
 * A few nodes stand on one circle, the local one at the bottom, so that no link passes through a node. With more, the local node is in the
 * middle, and its peers are around it on rings that hold more nodes the wider they are.
 * @param {number} count of peers
 * @returns {Layout}
 */
export const layOut = (count) => (count <= MAX_LABELS ? oneCircle(count) : manyRings(count))

/** @param {number} turn from the top, clockwise @param {number} distance @param {number} radius @returns {Spot} */
function spotAt(turn, distance, radius) {
  const angle = 2 * Math.PI * turn - Math.PI / 2
  return { x: distance * Math.cos(angle), y: distance * Math.sin(angle), radius }
}

/**
 * @param {number} count
 * @returns {Layout}
 */
function oneCircle(count) {
  // So wide that the line between the neighbors of a node does not touch it.
  const [distance, radius] = count <= 6 ? [150, 20] : count <= MAX_SMALL ? [190, 14] : [290, 12]
  const [local, ...spots] = Array.from({ length: count + 1 }, (_, index) =>
    spotAt(1 / 2 + index / (count + 1), distance, radius),
  )
  const all = /** @type {[Spot, ...Spot[]]} */ ([local, ...spots])
  return { viewBox: frame(all), local: all[0], spots, hasLabels: true }
}

/**
 * @param {number} count
 * @returns {Layout}
 */
function manyRings(count) {
  const spots = ringSizes(count).flatMap((size, ring) =>
    // Half a place further on every second ring, so that links do not pass through nodes.
    Array.from({ length: size }, (_, index) => spotAt((index + (ring % 2) / 2) / size, 150 + 78 * ring, 9)),
  )
  const local = { x: 0, y: 0, radius: 16 }
  return { viewBox: frame([local, ...spots]), local, spots, hasLabels: false }
}

/**
 * @param {readonly Spot[]} spots
 * @returns {string} the smallest part of the plane that shows them with their names
 */
function frame(spots) {
  const [left, right] = [Math.min(...spots.map(({ x }) => x)), Math.max(...spots.map(({ x }) => x))]
  const [top, bottom] = [Math.min(...spots.map(({ y }) => y)), Math.max(...spots.map(({ y }) => y))]
  const radius = Math.max(...spots.map((spot) => spot.radius))
  const [x, y] = [left - LABEL_WIDTH, top - radius - LABEL_HEIGHT]
  return [x, y, right + LABEL_WIDTH - x, bottom + radius + LABEL_HEIGHT - y].map(Math.round).join(' ')
}

/**
 * Where the lines of text of a node are: on its side that is away from the middle, so that links do not cross them.
 * @param {Spot} spot
 * @param {number} lines
 * @returns {number[]} the y of each line, from the first
 */
export function labelLines({ y, radius }, lines) {
  const isAbove = y < 0
  return Array.from({ length: lines }, (_, index) => {
    const distance = radius + 15 + 13 * (isAbove ? lines - 1 - index : index)
    return isAbove ? y - distance + 8 : y + distance
  })
}

/**
 * Where the names of a node of the circle are: further outside than the node.
 * @param {Spot} spot
 * @returns {number} the x of the middle
 */
export const labelX = ({ x, y }) => x + (LABEL_SHIFT * x) / (Math.hypot(x, y) || 1)

/**
 * @param {number} count
 * @returns {number[]} the number of nodes on each ring, from the inner one
 */
function ringSizes(count) {
  const sizes = []
  for (let left = count, size = RING; left > 0; size += 8) {
    const next = left < size + size / 2 ? left : size
    sizes.push(next)
    left -= next
  }
  return sizes
}

/**
 * The line from one node to another, beside the line of the other direction.
 * @param {Spot} from
 * @param {Spot} to
 * @param {number} offset to the right of the direction
 * @returns {{ path: string, arrow: string }} the line, and the tip at its end
 */
export function linkPath(from, to, offset) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1
  const [dx, dy] = [(to.x - from.x) / length, (to.y - from.y) / length]
  /** @param {number} along @param {number} aside */
  const at = (along, aside) => {
    const x = from.x + dx * along - dy * aside
    const y = from.y + dy * along + dx * aside
    return `${x.toFixed(1)} ${y.toFixed(1)}`
  }
  const [start, end] = [from.radius + 4, length - to.radius - 5]
  return {
    path: `M${at(start, offset)} L${at(end, offset)}`,
    arrow: `M${at(end - 8, offset - 5)} L${at(end, offset)} L${at(end - 8, offset + 5)}`,
  }
}

/**
 * The width of a line for so many transactions per second: each factor of ten adds the same.
 * @param {number} rate
 * @param {number} most
 * @returns {number}
 */
export function linkWidth(rate, most) {
  const width = 1.5 + 1.1 * Math.log10(1 + Math.max(0, rate))
  return Math.round(Math.min(most < 7 ? width / 1.4 : width, most) * 10) / 10
}
