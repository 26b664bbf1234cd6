// The check at the end of a run: compares rows, journals and reported incidents of all nodes, and lists the violations.

import { isDeepStrictEqual } from 'node:util'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { Exceptions } from './exceptions.ts'
import type { Incident } from './incidents.ts'
import type { Entry } from './journal.ts'
import { type Commit, isOwn, originOf, startOf, tableAfter } from './writes.ts'

/** The data on a node's disk after all nodes have ended. */
export type NodeState = {
  name: string
  /** Rows by table and id. */
  tables: Map<string, Map<string, Attributes>>
  journal: Entry[]
  incidents: Incident[]
}

export type Verdict = {
  applied: number
  /** Transactions that are missing on a subscriber and were reported as gaps. */
  lost: number
  gaps: number
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
    lost: 0,
    gaps: 0,
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
  for (const node of nodes)
    for (const [table, rows] of node.tables) {
      const held = committedAt(node, table)
      for (const source of nodes) if (source !== node) held.push(...judgeFlow(node, source, table, verdict, exceptions))
      compare(node.name, table, rows, tableAfter(held), verdict)
    }
  return verdict
}

/** The local transactions of a node on a table, in commit order. */
const committedAt = ({ name, tables }: NodeState, table: string): Commit[] =>
  [...(tables.get(table)! as Map<string, unknown> as Map<string, Commit>).values()]
    .filter(({ id }) => isOwn(id) && originOf(id) === name)
    .sort(inCommitOrder)

/** Timestamps increase within one start of a node, and over its starts unless its database is restored. */
const inCommitOrder = (a: Commit, b: Commit) => startOf(a.id) - startOf(b.id) || (a.timestamp < b.timestamp ? -1 : 1)

/** Returns the commits of `source` that `node` has. */
function judgeFlow(
  node: NodeState,
  source: NodeState,
  table: string,
  verdict: Verdict,
  exceptions: Exceptions,
): Commit[] {
  const fault = (text: string) => verdict.violations.push(`${table} from ${source.name} to ${node.name}: ${text}`)
  const ofFlow = <T extends Incident>(incident: T) =>
    incident.source.node === source.name && incident.source.table === table
  const incidents = node.incidents.filter(ofFlow)
  const quarantined = new Set(incidents.flatMap((each) => (each.event === 'quarantined' ? [each.sequence] : [])))
  const gaps = incidents.filter((each): each is Gap => each.event === 'gap')
  const undone = new Set(exceptions.undoneOf(source.name, table))
  const mayRepeat = exceptions.hasLostCheckpoints(node.name)
  const commits = [...committedAt(source, table), ...undone].sort(inCommitOrder)
  const index = new Map(commits.map(({ tx }, at) => [tx, at]))
  /** Keyed by position among the commits. */
  const applied = new Map<number, Entry>()
  /** Applied in order, with their positions. Transactions from quarantine may be late. */
  const inOrder: { entry: Entry; at: number }[] = []
  for (const entry of node.journal) {
    if (entry.node !== source.name || entry.table !== table) continue
    verdict.applied++
    const at = index.get(entry.tx)
    const before = inOrder.at(-1)
    if (at === undefined) fault(`'${entry.key}' at ${entry.epoch}/${entry.sequence} was applied, but never committed`)
    else if (applied.has(at) && (mayRepeat || exceptions.mayBeRepeated(entry.tx))) verdict.repeated++
    else if (applied.has(at)) {
      verdict.duplicates++
      const { epoch, sequence } = applied.get(at)!
      fault(`'${entry.key}' was applied twice, at ${epoch}/${sequence} and at ${entry.epoch}/${entry.sequence}`)
    } else {
      applied.set(at, entry)
      if (before === undefined || at > before.at) inOrder.push({ entry, at })
      else if (!quarantined.has(entry.sequence) && !mayRepeat) {
        verdict.disorder++
        fault(`'${entry.key}' was applied after '${before.entry.key}', which was committed later`)
      }
    }
  }
  verdict.quarantined += quarantined.size
  verdict.gaps += gaps.length
  if (mayRepeat) {
    const missing = commits.filter((commit, at) => !applied.has(at) && !undone.has(commit)).length
    const reported = gaps.reduce((sum, gap) => sum + sizeOf(gap), 0)
    verdict.lost += missing
    if (missing > reported) fault(`${missing} are missing, ${reported} are reported`)
    return [...applied.keys()].map((at) => commits[at]!)
  }
  // The missing transactions between two consecutive applied ones must equal the reported gaps.
  for (let i = -1; i < inOrder.length; i++) {
    const [before, next] = [inOrder[i], inOrder[i + 1]]
    const from = (before?.at ?? -1) + 1
    const notApplied = commits.slice(from, next?.at ?? commits.length).filter((_, at) => !applied.has(from + at))
    const missing = notApplied.filter((commit) => !undone.has(commit))
    const reported = gaps.filter(
      ({ after }) => (!before || after >= before.entry.id) && (!next || after < next.entry.id),
    )
    const count = reported.reduce((sum, gap) => sum + sizeOf(gap), 0)
    verdict.lost += missing.length
    if (missing.length === 0 && count === 0) continue
    const place = before ? `after ${before.entry.epoch}/${before.entry.sequence}` : 'at the beginning'
    const summary = reported.map(({ from, to, reason }) => `${reason} ${from} to ${to}`).join(', ') || 'none'
    // A commit that was undone may be part of a gap, or in no stream at all.
    const mayDiffer = notApplied.length - missing.length
    const wrongStart =
      before && quarantined.size === 0 && mayDiffer === 0 && reported[0]?.from !== before.entry.sequence + 1
    if (count < missing.length || count > missing.length + mayDiffer || wrongStart)
      fault(`${missing.length} are missing ${place}, beginning with '${missing[0]?.id}'; reported gaps: ${summary}`)
  }
  return [...applied.keys()].map((at) => commits[at]!)
}

const sizeOf = ({ from, to }: Gap) => to - from + 1

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
