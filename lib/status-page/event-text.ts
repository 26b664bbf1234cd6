// Which events the page shows, and in which words.

import type { EventName, Payload } from '../events/events.ts'
import type { EventLine } from './event-log.ts'

type Texts = { readonly [Name in EventName]?: (payload: Payload<Name>) => EventLine | undefined }
type Place = { node: string; database: string; table: string }

const placeOf = ({ node, database, table }: Place): Place => ({ node, database, table })
const plural = (count: number, one: string) => `${count.toLocaleString('en')} ${one}${count === 1 ? '' : 's'}`
const withReason = (text: string, reason: string | undefined) => (reason === undefined ? text : `${text}: ${reason}`)

/** A problem of a file as `line 3: clustering.nodes is not a list`. */
const problemsText = (problems: readonly { line?: number; path?: string; message: string }[]) =>
  problems
    .map(({ line, path, message }) =>
      [line === undefined ? '' : `line ${line}:`, path, message].filter(Boolean).join(' '),
    )
    .join('; ')

const info = (text: string, place: Partial<Place> = {}): EventLine => ({ level: 'info', text, ...place })
const good = (text: string, place: Partial<Place> = {}): EventLine => ({ level: 'good', text, ...place })
const warning = (text: string, place: Partial<Place> = {}): EventLine => ({ level: 'warning', text, ...place })
const failure = (text: string, place: Partial<Place> = {}): EventLine => ({ level: 'error', text, ...place })

/** States in which nothing is applied. */
const HALTED: readonly string[] = ['stalled', 'pending', 'paused']

/** Catching up, copying and live are the normal day of a table. */
function stateLine({ source, state, previous, error }: Payload<'subscription:state'>): EventLine | undefined {
  const text = withReason(`${previous} → ${state}`, error)
  const group = `${previous} → ${state}`
  if (HALTED.includes(state)) return { ...(state === 'stalled' ? failure : warning)(text, placeOf(source)), group }
  if (state === 'ended' || !HALTED.includes(previous)) return undefined
  return { ...good(text, placeOf(source)), group, isRecovery: true }
}

const configuration: Texts = {
  'route:added': ({ server, route }) => info(`route of the ${server} added: ${route.host}:${route.port}`),
  'route:removed': ({ server, route }) => info(`route of the ${server} removed: ${route.host}:${route.port}`),
  'node:added': ({ node }) =>
    info(`node added, with ${plural(node.subscriptions.length, 'table')}`, { node: node.name }),
  'node:updated': ({ node }) => info('subscriptions changed', { node: node.name }),
  'node:removed': ({ node }) => info('node removed', { node: node.name }),
  'config:rejected': ({ problems }) => failure(`configuration file rejected: ${problemsText(problems)}`),
  'config:missing': () => warning('configuration file missing: the manifest stays in effect'),
  'config:warning': ({ problems }) => warning(`configuration file: ${problemsText(problems)}`),
  'certificates:replaced': () => info('new certificates are in use'),
  'certificates:rejected': ({ reason }) => failure(`new certificates are not usable: ${reason}`),
}

const nodes: Texts = {
  'peer:up': ({ node }) => good('node is up', { node }),
  'peer:down': ({ node, reason }) => failure(withReason('node is down', reason), { node }),
  'connection:rejected': ({ node, reason }) => failure(withReason('connection rejected', reason), { node }),
  'node:superseded': ({ superseded, reason }) =>
    superseded
      ? failure(withReason('another process uses this node name', reason))
      : good('this process takes part again'),
  'mesh:state': ({ state, reason }) => {
    const text = withReason(`mesh is ${state}`, reason)
    if (state === 'connecting') return info(text)
    return state === 'connected' ? good(text) : failure(text)
  },
  'clock:ahead': ({ aheadMs }) =>
    failure(`clock is ${Math.round(aheadMs / 1_000)} s ahead: peers quarantine what is committed here`),
  'clock:ok': () => good('clock is no longer ahead'),
  'host:slow': ({ method, ms, answered, node, database, table }) =>
    (answered ? good : warning)(
      answered
        ? `the database answers again: ${method}`
        : `the database has not answered for ${Math.round(ms)} ms: ${method}`,
      {
        ...(node !== undefined && { node }),
        ...(database !== undefined && { database }),
        ...(table !== undefined && { table }),
      },
    ),
}

const tables: Texts = {
  'subscription:refused': ({ reason, ...place }) => failure(`subscription refused: ${reason}`, placeOf(place)),
  'subscription:state': stateLine,
  'replication:gap': ({ source, from, to, lost, reason, repair }) => {
    const range = from === undefined || to === undefined ? '' : `, numbers ${from} to ${to}`
    const what = lost === undefined ? 'transactions' : plural(lost, 'transaction')
    const next = repair ? 'a copy of the rows follows' : 'copy the rows to repair it'
    return failure(`gap (${reason}): ${what} lost${range}; ${next}`, placeOf(source))
  },
  // An empty table is no news.
  'replication:copied': ({ rows, reason, ms, ...place }) =>
    rows === 0
      ? undefined
      : good(`${plural(rows, 'row')} copied in ${(ms / 1_000).toFixed(1)} s (${reason})`, placeOf(place)),
  'replication:repaired': ({ reason, ...place }) => good(`repaired after ${reason}`, placeOf(place)),
  'replication:verified': ({ rows, missingHere, missingThere, different, inFlight, repaired, ...place }) => {
    const found = missingHere + missingThere + different
    const line = `compared ${plural(rows, 'row')}: ${found === 0 ? 'equal' : `${missingHere} missing here, ${missingThere} missing there, ${different} different`}`
    const more = [inFlight > 0 && `${inFlight} in flight`, repaired > 0 && `${repaired} repaired`].filter(Boolean)
    return (found > repaired ? warning : good)([line, ...more].join(', '), placeOf(place))
  },
  'replication:refused-old': ({ writes, ...place }) =>
    warning(`${plural(writes, 'write')} ignored: older than a dropped tombstone`, placeOf(place)),
  'replication:stale': (place) => failure('stale: replace the table by a copy', placeOf(place)),
  'replication:diverged': ({ database, table, reason }) =>
    failure(`local stream and database differ: ${reason}`, { database, table }),
  'replication:stalled': ({ source, error, attempts }) =>
    failure(`the database refuses a transaction (${plural(attempts, 'attempt')}): ${error}`, placeOf(source)),
  'replication:quarantined': ({ source, index, count, error }) =>
    failure(`${plural(count, 'transaction')} quarantined, number ${index}: ${error}`, placeOf(source)),
  'table:created': ({ node, database, table }) => info('table created', { node, database, table }),
  'table:attributes': ({ node, database, table, attributes }) =>
    info(`attributes added: ${attributes.join(', ')}`, { node, database, table }),
}

const texts: Texts = { ...configuration, ...nodes, ...tables }

/** The events that are shown. */
export const shownEvents = Object.keys(texts) as readonly EventName[]

/** Undefined when this one is no news. */
export const eventLine = <Name extends EventName>(event: Name, payload: Payload<Name>): EventLine | undefined =>
  (texts[event] as ((payload: Payload<Name>) => EventLine | undefined) | undefined)?.(payload)
