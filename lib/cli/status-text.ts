// A snapshot of the status page as text for a terminal.

import { stripVTControlCharacters } from 'node:util'
import {
  formatCode,
  formatLag,
  formatPlace,
  formatRate,
  formatTime,
  plural,
  stateLook,
} from '../status-page/page/format.mjs'
import { downNodes, needsAttention, stateOf } from '../status-page/page/table-rows.mjs'
import type { Snapshot, SnapshotCondition } from '../status-page/snapshot.ts'

export type TextOptions = {
  /** Lines are cut there; undefined: not cut. */
  columns?: number | undefined
  color: boolean
  /** At most so many of each list. */
  limit: number
}

/** SGR codes: green, yellow, red. */
const COLORS: Readonly<Record<string, number>> = { good: 32, warning: 33, error: 31 }
const BOLD = 1
const sgr = (code: number, text: string) => `\u001b[${code}m${text}\u001b[0m`

class Writer {
  readonly #options: TextOptions
  readonly lines: string[] = []

  constructor(options: TextOptions) {
    this.#options = options
  }

  paint(text: string, tone: string): string {
    const code = COLORS[tone]
    return this.#options.color && code !== undefined ? sgr(code, text) : text
  }

  line(text = ''): void {
    this.lines.push(cut(text, this.#options.columns))
  }

  heading(text: string): void {
    this.line()
    this.line(this.#options.color ? sgr(BOLD, text) : text)
  }

  /** The first items, and how many more there are. */
  list<T>(items: readonly T[], write: (item: T) => void, total = items.length): void {
    for (const item of items.slice(0, this.#options.limit)) write(item)
    const rest = total - Math.min(items.length, this.#options.limit)
    if (rest > 0) this.line(`  and ${rest} more`)
  }
}

/** A colored text that is too long loses its color: escape sequences must not be cut in the middle. */
function cut(text: string, columns: number | undefined): string {
  const plain = stripVTControlCharacters(text)
  if (columns === undefined || plain.length <= columns) return text
  return `${plain.slice(0, Math.max(0, columns - 1))}…`
}

export function snapshotText(snapshot: Snapshot, options: TextOptions): string[] {
  const writer = new Writer(options)
  writeHead(writer, snapshot)
  writeConditions(writer, snapshot)
  writePeers(writer, snapshot)
  writeTables(writer, snapshot)
  if (snapshot.events.length > 0) writer.heading('Events')
  writer.list(snapshot.events, (record) => {
    const { time, level, text, count } = record
    const place = formatPlace(record)
    const times = count === undefined ? '' : ` (${count} times)`
    writer.line(`  ${formatTime(time)}  ${writer.paint(`${place ? `${place}: ` : ''}${text}${times}`, level)}`)
  })
  return writer.lines
}

/** Whether an operator has something to do. */
export const isWell = ({ ready, conditionCount }: Snapshot): boolean => ready && conditionCount === 0

function writeHead(writer: Writer, snapshot: Snapshot): void {
  const { node, ready, mesh, enabled, enmesh, time, sample, state } = snapshot
  const [text, tone] = isWell(snapshot)
    ? ['● ready', 'good']
    : ready
      ? ['▲ ready, needs attention', 'warning']
      : ['■ not ready', 'error']
  const parts = [
    node || 'unnamed node',
    writer.paint(text, tone),
    state === 'open' ? '' : state,
    enabled ? '' : 'clustering disabled',
    mesh ? `mesh ${mesh.state}${mesh.reason ? `: ${mesh.reason}` : ''}` : '',
    `enmesh ${enmesh}`,
    formatTime(time),
  ]
  writer.line(parts.filter(Boolean).join('  '))
  if (!sample) return
  const rates = [`committed here ${formatRate(sample.committed)}`, `applied from others ${formatRate(sample.applied)}`]
  if (sample.copied > 0) rates.push(`rows copied ${formatRate(sample.copied)}`)
  writer.line([...rates, `not applied yet ${formatLag(sample.lag, sample.lagSeconds)}`].join('  '))
}

function writeConditions(writer: Writer, { conditions, conditionCount }: Snapshot): void {
  if (conditionCount === 0) return
  writer.heading(`Needs attention (${conditionCount})`)
  const advised = new Set<string>()
  const write = (condition: SnapshotCondition) => {
    const place = formatPlace(condition)
    writer.line(
      `  ${writer.paint(formatCode(condition.code), 'error')}  ${place ? `${place}: ` : ''}${condition.message}`,
    )
    if (advised.has(condition.code)) return
    advised.add(condition.code)
    writer.line(`    ${condition.advice}`)
  }
  const byCode = [...conditions].sort((one, other) => one.code.localeCompare(other.code))
  writer.list(byCode, write, conditionCount)
}

function writePeers(writer: Writer, { peers }: Snapshot): void {
  if (peers.length === 0) return
  const width = Math.min(30, Math.max(...peers.map(({ node }) => node.length)))
  writer.heading(`Peers (${peers.length})`)
  const order = [...peers].sort((one, other) => Number(isQuiet(one.state)) - Number(isQuiet(other.state)))
  writer.list(order, ({ node, state, tables, received, sent }) => {
    const { mark, tone, text } = stateLook(state)
    const flows = [
      received && `← ${formatRate(received.rate)}, behind ${formatLag(received.lag, received.lagSeconds)}`,
      sent && `→ ${formatRate(sent.rate)}, behind ${formatLag(sent.lag, sent.lagSeconds)}`,
    ]
    const look = writer.paint(`${mark} ${text.padEnd(11)}`, tone)
    writer.line(`  ${look} ${node.padEnd(width)}  ${plural(tables, 'table')}  ${flows.filter(Boolean).join('  ')}`)
  })
}

const isQuiet = (state: string) => state === 'live' || state === 'catching-up'

function writeTables(writer: Writer, { tables, peers }: Snapshot): void {
  const down = downNodes(peers)
  const shown = tables.filter(
    (row) => needsAttention(row, down) || (row.received?.lagSeconds ?? 0) > 1 || (row.sent?.lagSeconds ?? 0) > 5,
  )
  if (tables.length === 0) return
  writer.heading(`Tables that are behind or need attention (${shown.length} of ${tables.length})`)
  writer.list(shown, (row) => {
    const { received, sent } = row
    const { mark, tone, text } = stateLook(stateOf(row, down))
    const isKnown = received !== undefined || down.has(row.node)
    const details = [
      received && `← behind ${formatLag(received.lag, received.lagSeconds)}`,
      sent?.lag !== undefined && `→ behind ${formatLag(sent.lag, sent.lagSeconds)}`,
      received?.copy && `${plural(received.copy.rows, 'row')} copied`,
      received && received.quarantined > 0 && `${received.quarantined} quarantined`,
      received?.unrepairedGaps && plural(received.unrepairedGaps, 'gap'),
      received?.error,
    ]
    const look = writer.paint(`${mark} ${(isKnown ? text : 'publishes').padEnd(11)}`, isKnown ? tone : 'info')
    writer.line(`  ${look} ${formatPlace(row)}  ${details.filter(Boolean).join('  ')}`)
  })
}
