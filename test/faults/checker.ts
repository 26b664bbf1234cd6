// The check at the end of a run: compares rows, journals and reported incidents of all nodes, and lists the violations.

import { isDeepStrictEqual } from 'node:util'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { Exceptions } from './exceptions.ts'
import type { Incident } from './incidents.ts'
import type { Entry } from './journal.ts'
import { type Commit, inCommitOrder, isOwn, type Local, type Marker, originOf, tableAfter } from './writes.ts'

/** The data on a node's disk after all nodes have ended. */
export type NodeState = {
  /** The first name of the node. */
  name: string
  /** Rows by table and id. */
  tables: Map<string, Map<string, Attributes>>
  journal: Entry[]
  incidents: Incident[]
  /** Announcements of copied rows that the node began to store. */
  markers: Marker[]
}

export type Verdict = {
  applied: number
  /** From how many messages, and how many transactions of one message at most. */
  messages: number
  largest: number
  /** Transactions that a subscriber did not apply and reported as gaps. Copies bring their rows. */
  lost: number
  gaps: number
  /** Gaps whose size the subscriber could not know. */
  uncounted: number
  quarantined: number
  duplicates: number
  /** Applied again after checkpoints or messages were lost. */
  repeated: number
  disorder: number
  violations: string[]
}

type Gap = Incident & { event: 'gap' }

export function judge(
  nodes: readonly NodeState[],
  acknowledged: Iterable<readonly [key: string, tables: readonly string[]]>,
  exceptions = new Exceptions(),
): Verdict {
  const verdict: Verdict = {
    applied: 0,
    messages: 0,
    largest: 0,
    lost: 0,
    gaps: 0,
    uncounted: 0,
    quarantined: 0,
    duplicates: 0,
    repeated: 0,
    disorder: 0,
    violations: [],
  }
  const byName = new Map(nodes.map((node) => [node.name, node]))
  const undone = new Set(
    nodes.flatMap(({ name, tables }) =>
      [...tables.keys()].flatMap((table) => exceptions.undoneOf(name, table).map(({ id }) => id)),
    ),
  )
  for (const [key, tables] of acknowledged)
    for (const table of tables)
      if (!undone.has(key) && !byName.get(originOf(key))?.tables.get(table)?.has(key))
        verdict.violations.push(`'${key}' was acknowledged, but is missing in ${table} of its node`)
  for (const table of new Set(nodes.flatMap(({ tables }) => [...tables.keys()]))) {
    const expected = tableAfter(nodes.flatMap((node) => validAt(node, table, exceptions)))
    for (const node of nodes) {
      for (const source of nodes) if (source !== node) judgeFlow(node, source, table, verdict, exceptions)
      compare(node.name, table, node.tables.get(table)!, expected, verdict)
    }
  }
  return verdict
}

/**
 * The local transactions of a node that every node must have in the end, since copies repair what gaps leave out. The undone ones are
 * among them when a peer had applied them: the copies after a restored database bring them back to their node.
 */
function validAt(node: NodeState, table: string, exceptions: Exceptions): Local[] {
  const own = committedAt(node, table, exceptions)
  const voided = voidedOf(own)
  return own.filter((commit) => !voided.has(commit))
}

/** The local transactions of a node on a table, in commit order, restamps included. */
const committedAt = ({ name, tables }: NodeState, table: string, exceptions: Exceptions): Local[] =>
  [
    ...[...(tables.get(table)! as Map<string, unknown> as Map<string, Commit>).values()].filter(
      ({ id }) => isOwn(id) && originOf(id) === name,
    ),
    ...exceptions.rewritesOf(name, table),
  ].sort(inCommitOrder)

/**
 * The commits that a later restamp of their node voids: their rows came again with it. Only commits of a clock that is days ahead are
 * voided, and no other clock of a run is nearly as far ahead, so no peer may apply them.
 */
function voidedOf(commits: readonly Local[]): Set<Local> {
  const voided = new Set<Local>()
  for (const [at, later] of commits.entries())
    if ('voids' in later)
      for (const commit of commits.slice(0, at))
        if (commit.timestamp >= later.voids.from && commit.timestamp <= later.voids.to) voided.add(commit)
  return voided
}

/** What one node has of the transactions of another one on a table. */
type Flow = {
  /** All transactions of the source, in commit order. */
  commits: readonly (Local | Marker)[]
  /** Undone, voided, or markers, which no host applies: these may be missing without a gap, or be part of one. */
  mayBeMissing: ReadonlySet<Local | Marker>
  /** Keyed by position among the commits. */
  applied: Map<number, Entry>
  /** Applied in order, with their positions. Transactions from quarantine may be late. */
  inOrder: { entry: Entry; at: number }[]
  gaps: readonly Gap[]
  /** As `placeOf`. */
  quarantined: ReadonlySet<string>
  /** From the outbox of a restored database: sent again, and applied late by a node that had a gap there. */
  isResent(tx: string): boolean
  fault(text: string): void
}

/** Checks what `node` applied of the transactions of `source`. */
function judgeFlow(node: NodeState, source: NodeState, table: string, verdict: Verdict, exceptions: Exceptions): void {
  const incidents = node.incidents.filter(
    (incident) => incident.source.node === source.name && incident.source.table === table,
  )
  const undone = new Map(exceptions.undoneOf(source.name, table).map((commit) => [commit.tx, commit]))
  // Copies may have brought undone ones back.
  const kept = committedAt(source, table, exceptions).filter(({ tx }) => !undone.has(tx))
  const transactions = [...kept, ...undone.values()].sort(inCommitOrder)
  const voided: ReadonlySet<Local | Marker> = voidedOf(transactions)
  const markers = source.markers.filter((marker) => marker.table === table)
  const commits = [...transactions, ...markers].sort(inCommitOrder)
  const flow: Flow = {
    commits,
    mayBeMissing: new Set([...undone.values(), ...voided, ...markers]),
    applied: new Map(),
    inOrder: [],
    gaps: incidents.filter((each): each is Gap => each.event === 'gap'),
    quarantined: new Set(incidents.flatMap(placesInQuarantine)),
    isResent: (tx) => exceptions.mayBeRepeated(tx),
    fault: (text) => void verdict.violations.push(`${table} from ${source.name} to ${node.name}: ${text}`),
  }
  const mayRepeat = exceptions.hasLostCheckpoints(node.name)
  const entries = node.journal.filter((entry) => entry.node === source.name && entry.table === table)
  judgeEntries(flow, entries, verdict, mayRepeat)
  for (const [at, { key }] of flow.applied)
    if (voided.has(commits[at]!)) flow.fault(`'${key}' was applied, although a restamp of its node voids it`)
  verdict.quarantined += flow.quarantined.size
  verdict.gaps += flow.gaps.length
  verdict.uncounted += flow.gaps.filter((gap) => sizeOf(gap).most === Infinity).length
  if (mayRepeat) judgeTotal(flow, verdict)
  else judgeGaps(flow, verdict)
}

/** Each is applied once and in order, unless checkpoints were lost. */
function judgeEntries(
  { commits, applied, inOrder, quarantined, isResent, fault }: Flow,
  entries: readonly Entry[],
  verdict: Verdict,
  mayRepeat: boolean,
): void {
  const index = new Map(commits.map(({ tx }, at) => [tx, at]))
  verdict.applied += entries.length
  countMessages(entries, verdict)
  for (const entry of entries) {
    const at = index.get(entry.tx)
    const before = inOrder.at(-1)
    if (at === undefined) fault(`'${entry.key}' at ${placeOf(entry)} was applied, but never committed`)
    else if (applied.has(at) && (mayRepeat || isResent(entry.tx))) verdict.repeated++
    else if (applied.has(at)) {
      verdict.duplicates++
      fault(`'${entry.key}' was applied twice, at ${placeOf(applied.get(at)!)} and at ${placeOf(entry)}`)
    } else {
      applied.set(at, entry)
      if (before === undefined || at > before.at) inOrder.push({ entry, at })
      else if (!quarantined.has(placeOf(entry)) && !mayRepeat && !isResent(entry.tx)) {
        verdict.disorder++
        fault(`'${entry.key}' was applied after '${before.entry.key}', which was committed later`)
      }
    }
  }
}

function countMessages(entries: readonly Entry[], verdict: Verdict): void {
  const sizes = new Map<string, number>()
  for (const { epoch, sequence } of entries) {
    const message = `${epoch}/${sequence}`
    sizes.set(message, (sizes.get(message) ?? 0) + 1)
  }
  verdict.messages += sizes.size
  for (const size of sizes.values()) verdict.largest = Math.max(verdict.largest, size)
}

/** Where checkpoints were lost, positions of gaps mean nothing: no more are missing than are reported. */
function judgeTotal({ commits, mayBeMissing, applied, gaps, fault }: Flow, verdict: Verdict): void {
  const missing = commits.filter((commit, at) => !applied.has(at) && !mayBeMissing.has(commit)).length
  const { most } = sizeOfAll(gaps)
  verdict.lost += missing
  if (missing > most) fault(`${missing} are missing, ${most} are reported`)
}

/** The missing transactions between two consecutive applied ones must equal the reported gaps. */
function judgeGaps(
  { commits, mayBeMissing, applied, inOrder, gaps, quarantined, isResent, fault }: Flow,
  verdict: Verdict,
): void {
  for (let i = -1; i < inOrder.length; i++) {
    const [before, next] = [inOrder[i], inOrder[i + 1]]
    const from = (before?.at ?? -1) + 1
    const between = commits.slice(from, next?.at ?? commits.length)
    const notApplied = between.filter((_, at) => !applied.has(from + at))
    const late = between.filter(({ tx }, at) => applied.has(from + at) && isResent(tx))
    const missing = notApplied.filter((commit) => !mayBeMissing.has(commit))
    const reported = gaps.filter(
      ({ after }) => (!before || after >= before.entry.id) && (!next || after < next.entry.id),
    )
    const { least, most } = sizeOfAll(reported)
    verdict.lost += missing.length
    if (missing.length === 0 && least === 0) continue
    const place = before ? `after ${placeOf(before.entry)}` : 'at the beginning'
    const summary =
      reported.map(({ from, to, reason }) => `${reason} ${from ?? '?'} to ${to ?? '?'}`).join(', ') || 'none'
    const mayDiffer = notApplied.length - missing.length + late.length
    const wrongStart =
      before && quarantined.size === 0 && mayDiffer === 0 && !mayBegin(reported[0], before.entry, next?.entry)
    if (most < missing.length || least > missing.length + mayDiffer || wrongStart)
      fault(`${missing.length} are missing ${place}, beginning with '${missing[0]?.id}'; reported gaps: ${summary}`)
  }
}

/** Epoch and running number. */
const placeOf = ({ epoch, index }: { epoch: string; index: number }) => `${epoch}/${index}`

const placesInQuarantine = (incident: Incident): string[] =>
  incident.event === 'quarantined'
    ? Array.from({ length: incident.count }, (_, at) => placeOf({ ...incident, index: incident.index + at }))
    : []

/**
 * The first gap after `before` begins with the next running number. If all that is missing is of a new epoch, the gap is too: that
 * epoch may begin with what was applied in the old one and never acknowledged.
 */
function mayBegin(gap: Gap | undefined, before: Entry, next: Entry | undefined): boolean {
  if (!gap) return false
  if (gap.from === undefined || gap.from === before.index + 1) return true
  return gap.from <= before.index && next?.epoch !== before.epoch
}

/** At least one where it is not known; what is in no stream is counted nowhere. */
function sizeOf({ lost, reason }: Gap): { least: number; most: number } {
  if (lost !== undefined) return { least: lost, most: lost }
  return reason === 'unrecorded' ? { least: 0, most: 0 } : { least: 1, most: Infinity }
}

const sizeOfAll = (gaps: readonly Gap[]) =>
  gaps.map(sizeOf).reduce((sum, { least, most }) => ({ least: sum.least + least, most: sum.most + most }), {
    least: 0,
    most: 0,
  })

function compare(
  node: string,
  table: string,
  actual: Map<string, Attributes>,
  expected: Map<string, Attributes>,
  verdict: Verdict,
): void {
  for (const id of new Set([...actual.keys(), ...expected.keys()]))
    if (!isDeepStrictEqual(actual.get(id), expected.get(id)))
      verdict.violations.push(
        `${table} of ${node}: '${id}' is ${JSON.stringify(actual.get(id))}, expected ${JSON.stringify(expected.get(id))}`,
      )
}
