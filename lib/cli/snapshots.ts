// Asks a status page for its data over HTTP.

import { SAMPLE_INTERVAL_MS } from '../status-page/history.ts'
import { SNAPSHOT_VERSION, type Snapshot } from '../status-page/snapshot.ts'
import { printable, printableStrings } from '../util/printable.ts'
import { clearTimeout, setTimeout } from '../util/timers.ts'
import type { Io } from './io.ts'

/** ms for the answer to begin. */
const TIMEOUT_MS = 10_000
/** ms without data after which a stream counts as lost: its server sends a snapshot with every sample. Without it, a connection whose server has vanished looks as if nothing happened. */
const MAX_SILENCE_MS = 5 * SAMPLE_INTERVAL_MS
/** Characters of one server-sent event: more than ten thousand tables need. */
const MAX_EVENT_LENGTH = 64 * 1024 * 1024

type Target = { address: URL; headers: Record<string, string> }

/** Throws for what is no address of HTTP. */
function targetOf(url: string, name: string, { environment }: Io): Target {
  const address = URL.canParse(url) ? new URL(url) : undefined
  if (!address || !/^https?:$/.test(address.protocol))
    throw new Error(`'${printable(url)}' is not an address such as http://127.0.0.1:9925/status/`)
  const user = address.username ? decodeURIComponent(address.username) : environment.ENMESH_USER
  const password = address.username ? decodeURIComponent(address.password) : (environment.ENMESH_PASSWORD ?? '')
  // fetch takes no address with credentials.
  address.username = ''
  address.password = ''
  address.search = ''
  address.hash = ''
  address.pathname = `${address.pathname.replace(/\/(?:index\.html|snapshot\.json|events)?$/, '')}/${name}`
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
  return { address, headers: user === undefined ? {} : { authorization } }
}

async function request({ address, headers }: Target, signal: AbortSignal): Promise<Response> {
  // Only until the answer begins: a stream of events has no end.
  const expiry = new AbortController()
  const timer = setTimeout(() => expiry.abort(), TIMEOUT_MS)
  let response: Response
  try {
    response = await fetch(address, { headers, redirect: 'error', signal: AbortSignal.any([signal, expiry.signal]) })
  } catch (error) {
    if (signal.aborted) throw error
    const { cause, message } = error as Error
    const reason = expiry.signal.aborted
      ? `no answer within ${TIMEOUT_MS / 1_000} s`
      : ((cause as Error)?.message ?? message)
    throw new Error(`${address}: ${printable(reason || String((cause as { code?: string })?.code))}`)
  } finally {
    clearTimeout(timer)
  }
  if (response.ok) return response
  await response.body?.cancel()
  const hints: Record<number, string> = {
    401: headers.authorization
      ? 'the user name or the password is wrong'
      : 'it needs a user name and a password: ENMESH_USER and ENMESH_PASSWORD',
    403: 'this user may not see the status page',
    404: 'there is no status page at this address',
  }
  throw new Error(`${address}: HTTP ${response.status}${hints[response.status] ? `: ${hints[response.status]}` : ''}`)
}

function parse(text: string, address: URL): Snapshot {
  let value: unknown
  try {
    value = JSON.parse(text, printableStrings)
  } catch {
    throw new Error(`${address}: the answer is not that of a status page`)
  }
  const { version } = (value ?? {}) as { version?: unknown }
  if (typeof version !== 'number') throw new Error(`${address}: the answer is not that of a status page`)
  if (version !== SNAPSHOT_VERSION)
    throw new Error(
      `${address}: the status page has version ${version}, this command has version ${SNAPSHOT_VERSION}: use the enmesh command of that node`,
    )
  return value as Snapshot
}

/** Rejects with an Error whose message has the address. */
export async function fetchSnapshot(url: string, io: Io): Promise<Snapshot> {
  const target = targetOf(url, 'snapshot.json', io)
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), 2 * TIMEOUT_MS)
  try {
    const response = await request(target, AbortSignal.any([io.signal, late.signal]))
    return parse(await response.text(), target.address)
  } catch (error) {
    if (!late.signal.aborted || io.signal.aborted) throw error
    throw new Error(`${target.address}: the answer does not end`)
  } finally {
    clearTimeout(timer)
  }
}

/** Each snapshot from now on, until the server ends the stream. Rejects as `fetchSnapshot`, and when nothing arrives any more. */
export async function* streamSnapshots(url: string, io: Io): AsyncGenerator<Snapshot> {
  const target = targetOf(url, 'events', io)
  const silence = new AbortController()
  const response = await request(target, AbortSignal.any([io.signal, silence.signal]))
  const decoder = new TextDecoder()
  let unread = ''
  const listen = () => setTimeout(() => silence.abort(), MAX_SILENCE_MS)
  let timer = listen()
  try {
    for await (const chunk of response.body ?? []) {
      clearTimeout(timer)
      timer = listen()
      unread += decoder.decode(chunk as Uint8Array, { stream: true })
      const events = unread.split('\n\n')
      unread = events.pop() ?? ''
      if (unread.length > MAX_EVENT_LENGTH)
        throw new Error(`${target.address}: the answer is not that of a status page`)
      // Only the newest is of interest when several have arrived.
      const newest = events.findLast((event) => /^event: snapshot$/m.test(event))
      const data = newest && /^data: (.*)$/m.exec(newest)?.[1]
      if (data) yield parse(data, target.address)
    }
  } catch (error) {
    if (!silence.signal.aborted || io.signal.aborted) throw error
    throw new Error(`${target.address}: nothing received for ${MAX_SILENCE_MS / 1_000} s`)
  } finally {
    clearTimeout(timer)
  }
}
