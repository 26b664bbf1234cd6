// Command lines of the scripts that run tests. Positionals are test files.

import { existsSync } from 'node:fs'
import { type ParseArgsConfig, parseArgs } from 'node:util'

type Options = NonNullable<ParseArgsConfig['options']>
type Arguments<T extends Options> = ReturnType<typeof parseArgs<{ allowPositionals: true; options: T }>>

/** Prints the problem and the usage, and exits with code 2. */
export function exitWithUsage(usage: string, problem: string): never {
  process.stderr.write(`${problem}\nUsage: ${usage}\n`)
  process.exit(2)
}

/** The parsed command line. Exits with code 2 on an unknown option, a missing file, or files together with --unit or --integration. */
export function readArguments<const T extends Options>(usage: string, options: T): Arguments<T> {
  const parsed = (() => {
    try {
      return parseArgs({ allowPositionals: true, options })
    } catch (error) {
      return exitWithUsage(usage, (error as Error).message)
    }
  })()
  const missing = parsed.positionals.find((file) => !existsSync(file))
  if (missing !== undefined) exitWithUsage(usage, `Test file '${missing}' does not exist`)
  const { unit, integration } = parsed.values as { unit?: boolean; integration?: boolean }
  if (parsed.positionals.length > 0 && (unit || integration))
    exitWithUsage(usage, 'Name test files, or use --unit or --integration, not both')
  return parsed
}
