// Reads the command line and runs one command. Exit codes: 0 all is well, 1 something is wrong with what was asked about, 2 it could not
// be found out.

import { type ParseArgsConfig, parseArgs } from 'node:util'
import { packageVersion } from '../cluster/version.ts'
import { suggestion } from '../util/suggestion.ts'
import { check } from './check.ts'
import type { ExitCode, Flags, Io } from './io.ts'
import { status } from './status.ts'
import { watch } from './watch.ts'

type Command = {
  readonly argument: string
  readonly summary: string
  run(argument: string, flags: Flags, io: Io): Promise<ExitCode>
}

const commands: Readonly<Record<string, Command>> = {
  check: {
    argument: 'FILE',
    summary: 'validates a configuration file, and explains each fault; opens nothing',
    run: check,
  },
  status: { argument: 'URL', summary: 'prints what the status page at this address shows', run: status },
  watch: { argument: 'URL', summary: 'shows the same in the terminal as it changes; Ctrl+C ends it', run: watch },
}

const OPTIONS = {
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
  version: { type: 'boolean', short: 'v', default: false },
} as const satisfies ParseArgsConfig['options']

const usage = [
  'Usage:',
  ...Object.entries(commands).map(
    ([name, { argument, summary }]) => `  ${`enmesh ${name} ${argument}`.padEnd(20)} ${summary}`,
  ),
  '',
  'Options:',
  '  --json               prints JSON; watch: one line for each snapshot',
  '  -h, --help           prints this text',
  '  -v, --version        prints the version',
  '',
  'URL is the address of the status page, such as http://127.0.0.1:9925/status/. A user name and a password are in the URL, or in the',
  'environment variables ENMESH_USER and ENMESH_PASSWORD, which other users of the machine do not see.',
  '',
  'Exit codes: 0 all is well; 1 the file is invalid, or the node needs attention; 2 wrong usage, or no answer.',
  '',
].join('\n')

/** Resolves with the exit code; never rejects. */
export async function run(args: readonly string[], io: Io): Promise<ExitCode> {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true })
    if (values.help) return printed(io, usage)
    if (values.version) return printed(io, `${packageVersion}\n`)
    const [name, ...rest] = positionals
    if (name === undefined) return misused(io, 'No command.')
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined
    if (!command) return misused(io, `Unknown command '${name}'.${suggestion(name, Object.keys(commands))}`)
    const [argument] = rest
    if (argument === undefined || rest.length > 1)
      return misused(io, `enmesh ${name} takes one argument, ${command.argument}; it has ${rest.length}.`)
    return await command.run(argument, { json: values.json }, io)
  } catch (error) {
    return misused(io, (error as Error).message)
  }
}

function printed(io: Io, text: string): ExitCode {
  io.print(text)
  return 0
}

function misused(io: Io, problem: string): ExitCode {
  io.printError(`${problem}\n\n${usage}`)
  return 2
}
