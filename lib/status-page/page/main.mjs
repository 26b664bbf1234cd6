// Receives the snapshots, and shows them.

import { Arrivals } from './arrivals.mjs'
import { showAttention } from './attention.mjs'
import { Chart, SPAN } from './charts.mjs'
import { byId, setAttribute, setText } from './dom.mjs'
import { Events } from './events.mjs'
import { formatCount, formatRate, formatSeconds, formatTime, plural } from './format.mjs'
import { MeshPicture } from './mesh.mjs'
import { showQuarantine } from './quarantine.mjs'
import { Tables } from './tables.mjs'
import { startTheme } from './theme.mjs'

/** @import { Snapshot } from '../../status-page.ts' */
/** @typedef {{ times: number[], values: Record<string, (number | null)[]> }} History */

const VERSION = 1
/** ms until a stream that the server has ended is requested again. The browser itself repeats only what was interrupted. */
const RECONNECT = 3_000

startTheme()
const tables = new Tables(byId('tables'))
const mesh = new MeshPicture(byId('mesh'), byId('mesh-detail'), (node) => tables.choose(node))
const events = new Events(byId('events'))
const charts = {
  rates: new Chart('Transactions per second', formatRate),
  lag: new Chart('Not applied here yet', formatCount),
  age: new Chart('Age of the oldest of them', formatSeconds),
}
byId('history').append(charts.rates.element, charts.lag.element, charts.age.element)

/** @type {History} */
let history = { times: [], values: { committed: [], applied: [], copied: [], lag: [], lagSeconds: [] } }
/** @type {Snapshot | undefined} */
let snapshot

/** @param {Snapshot} received */
function onSnapshot(received) {
  if (received.version !== VERSION) {
    // The server was upgraded: its page fits.
    location.reload()
    return
  }
  arrivals.received(performance.now())
  snapshot = received
  addSample(received)
  // A page in the background shows the newest snapshot when it is looked at again.
  if (document.visibilityState === 'visible') show(received)
}

/** @param {Snapshot} received */
function addSample({ sample }) {
  if (!sample || sample.time <= (history.times.at(-1) ?? 0)) return
  const { time, ...values } = sample
  history.times.push(time)
  for (const [name, value] of Object.entries(values)) history.values[name]?.push(value)
  while ((history.times[0] ?? time) < time - SPAN) {
    history.times.shift()
    for (const column of Object.values(history.values)) column.shift()
  }
}

/** @param {Snapshot} received */
function show(received) {
  showHeader(received)
  showAttention(byId('attention'), received)
  mesh.show(received)
  tables.show(received)
  showQuarantine(byId('quarantine-section'), byId('quarantine'), received)
  events.show(received)
  showCharts(received.time)
  showConnection()
}

/** @param {Snapshot} received */
function showHeader({ node, state, ready, conditionCount, mesh: meshState, enabled, enmesh, clock, time, outbox }) {
  const name = node || 'unnamed node'
  setText(byId('node-name'), name)
  document.title = `${ready && conditionCount === 0 ? '' : `(${conditionCount}) `}${name} – cluster status`
  const readiness = byId('readiness')
  const isWell = ready && conditionCount === 0
  setText(readiness, !ready ? '■ not ready' : isWell ? '● ready' : '▲ ready, needs attention')
  setAttribute(readiness, 'class', `badge ${!ready ? 'error' : isWell ? 'good' : 'warning'}`)
  const parts = [
    state === 'open' ? '' : state,
    !enabled && 'clustering disabled',
    meshState && `mesh ${meshState.state}${meshState.reason ? `: ${meshState.reason}` : ''}`,
    clock.reason !== undefined && `clock ${formatSeconds(clock.aheadMs / 1_000)} ahead`,
    outbox.waiting > 0 && `${plural(outbox.waiting, 'commit')} not in the local stream yet`,
  ]
  setText(byId('mesh-state'), parts.filter(Boolean).join(' · '))
  setText(
    byId('footer'),
    `enmesh ${enmesh} · as of ${formatTime(time)} · links between other nodes are shown as those nodes report them`,
  )
}

/** @param {number} end */
function showCharts(end) {
  const { times, values } = history
  const line = (/** @type {string} */ name, label = name) => ({ label, times, values: values[name] ?? [] })
  const copies = values.copied?.some((value) => value !== null && value > 0)
  const rates = [line('committed', 'committed here'), line('applied', 'applied from others')]
  charts.rates.show(copies ? [...rates, line('copied', 'rows copied')] : rates, end)
  charts.lag.show([line('lag', 'transactions')], end)
  charts.age.show([line('lagSeconds', 'waiting for')], end)
}

function showConnection() {
  const connection = byId('connection')
  const isLive = arrivals.isLive(performance.now())
  const state = arrivals.isReceiving ? '… receiving' : '✕ no connection'
  const past = snapshot ? `${state}: shows ${formatTime(snapshot.time)}` : state
  setText(connection, isLive ? '● live' : past)
  setAttribute(connection, 'class', isLive ? 'good' : 'error')
}

/** @type {EventSource | undefined} */
let source
/** Of the present connection. */
let arrivals = new Arrivals(performance.now())

function connect() {
  const connection = new EventSource('events')
  source = connection
  arrivals = new Arrivals(performance.now())
  connection.addEventListener('open', () => {
    arrivals.opened(performance.now())
    showConnection()
  })
  connection.addEventListener('history', ({ data }) => {
    history = JSON.parse(data)
  })
  connection.addEventListener('snapshot', ({ data }) => onSnapshot(JSON.parse(data)))
  connection.addEventListener('error', () => {
    if (source !== connection) return
    // The browser itself connects again.
    arrivals = new Arrivals(performance.now())
    showConnection()
    if (connection.readyState === EventSource.CLOSED) disconnect(RECONNECT)
  })
}

/** @param {number} delay ms until the next attempt */
function disconnect(delay) {
  source?.close()
  source = undefined
  setTimeout(connect, delay)
}

function checkConnection() {
  showConnection()
  if (source && arrivals.isLost(performance.now())) disconnect(0)
}

document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && snapshot) show(snapshot)
})
setInterval(checkConnection, 2_000)
connect()
