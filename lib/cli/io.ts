// What a command gets and gives.

/** A terminal that shows a whole screen. */
export type Terminal = {
  readonly columns: number
  readonly rows: number
  on(event: 'resize', listener: () => void): unknown
  off(event: 'resize', listener: () => void): unknown
}

/** What a command uses of its process. */
export type Io = {
  print(text: string): void
  printError(text: string): void
  environment: Readonly<Record<string, string | undefined>>
  /** Undefined when the output is a file or a pipe. */
  terminal: Terminal | undefined
  /** Aborts when the command is to end. */
  signal: AbortSignal
}

export type Flags = { json: boolean }
export type ExitCode = 0 | 1 | 2
