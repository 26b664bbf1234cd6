// `enmesh check FILE`: what `ClusterManager.open` would reject in this file, and what it would warn of. Opens no server and no port.

import { readFile, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { decodeBytes } from '../manifest/config-bytes.ts'
import { missingKeyProblems } from '../manifest/config-check.ts'
import { nameProblems } from '../manifest/config-names.ts'
import { ConfigText, type Problem } from '../manifest/config-text.ts'
import { tokenFault } from '../manifest/names.ts'
import { OLDEST_SUPPORTED } from '../mesh/nats/binary.ts'
import { userFault } from '../mesh/nats/credentials.ts'
import { unsupportedName } from '../mesh/nats/name-support.ts'
import { printable, printableJson } from '../util/printable.ts'
import type { ExitCode, Flags, Io } from './io.ts'

export type CheckResult = {
  valid: boolean
  problems: readonly Problem[]
  warnings: readonly Problem[]
  /** What the file configures; absent when it is invalid. */
  summary?: string
}

export async function check(file: string, { json }: Flags, io: Io): Promise<ExitCode> {
  let bytes: Buffer
  try {
    bytes = await readFile(file)
  } catch (error) {
    io.printError(`${printable(file)}: the file cannot be read: ${printable((error as Error).message)}\n`)
    return 2
  }
  const result = await checkConfig(decodeBytes(bytes), dirname(file))
  io.print(json ? `${printableJson(JSON.stringify({ file, ...result }, undefined, 2))}\n` : resultText(file, result))
  return result.valid ? 0 : 1
}

/** `contents`: as `decodeBytes` reads them. `directory`: what paths in the file are relative to. */
export async function checkConfig(contents: string, directory: string): Promise<CheckResult> {
  const text = new ConfigText(contents)
  if (!text.config) return { valid: false, problems: text.problems, warnings: text.warnings }
  const problems = [...missingKeyProblems(text, ['nodeName', 'user']), ...userProblems(text)]
  if (text.config.manifest.nodeName !== '') problems.push(...nameProblems(text, tokenFault))
  const warnings = [...text.warnings, ...nameWarnings(text), ...(await missingFiles(text, directory))]
  if (problems.length > 0) return { valid: false, problems, warnings }
  return { valid: true, problems, warnings, summary: summaryOf(text.config.manifest) }
}

function userProblems(text: ConfigText): Problem[] {
  const { user } = text.config?.settings ?? {}
  const fault = user === undefined ? undefined : userFault(user)
  return fault === undefined ? [] : [text.problem(['clustering', 'user'], fault)]
}

/** Names that only later versions of nats-server carry: which one runs here is not known. */
function nameWarnings(text: ConfigText): Problem[] {
  return nameProblems(text, (name) => unsupportedName(name, OLDEST_SUPPORTED)).map((problem) => ({
    ...problem,
    message: problem.message.replace(/^must not be/, 'should not be'),
  }))
}

/** The file may be checked on another machine than the one that it is for, so these are warnings. */
async function missingFiles(text: ConfigText, directory: string): Promise<Problem[]> {
  const problems: Problem[] = []
  const { tls } = text.config?.settings ?? {}
  for (const key of ['certificate', 'certificateAuthority', 'privateKey'] as const) {
    const path = tls?.[key]
    if (path === undefined) continue
    const exists = await stat(resolve(directory, path)).then(
      (stats) => stats.isFile(),
      () => false,
    )
    if (!exists)
      problems.push(text.problem(['clustering', 'tls', key], `names '${path}', which is no file on this machine`))
  }
  return problems
}

const plural = (count: number, one: string) => `${count} ${one}${count === 1 ? '' : 's'}`

function summaryOf({ enabled, nodeName, nodes, routes }: NonNullable<ConfigText['config']>['manifest']): string {
  if (!enabled) return 'clustering is disabled'
  const tables = nodes.reduce((sum, { subscriptions }) => sum + subscriptions.length, 0)
  const parts = [plural(routes.hub.length, 'route'), plural(nodes.length, 'peer'), plural(tables, 'subscription')]
  return `node '${nodeName}', ${parts.join(', ')}`
}

/** One line for each finding, in the form that editors and CI systems turn into a link. */
function resultText(file: string, { valid, problems, warnings, summary }: CheckResult): string {
  const line = (kind: string, { line: row, column, path, message }: Problem) =>
    [
      [file, row, column].filter((part) => part !== undefined).join(':'),
      kind,
      path ? `${path} ${message}` : message,
    ].join(': ')
  const lines = [
    ...problems.map((problem) => line('error', problem)),
    ...warnings.map((problem) => line('warning', problem)),
    `${file}: ${valid ? `valid: ${summary}` : `invalid: ${plural(problems.length, 'error')}`}${
      warnings.length > 0 ? `, ${plural(warnings.length, 'warning')}` : ''
    }`,
  ]
  return lines.map((each) => `${printable(each)}\n`).join('')
}
