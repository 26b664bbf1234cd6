// `enmesh watch URL`: the snapshots of the status page as they come. On a terminal they fill the screen; into a file or a pipe goes one line
// for each event, or with `--json` for each snapshot.

import { formatPlace } from '../status-page/page/format.mjs'
import type { Snapshot } from '../status-page/snapshot.ts'
import { pause } from '../util/pause.ts'
import { printableJson } from '../util/printable.ts'
import { systemTimers } from '../util/timers.ts'
import type { ExitCode, Flags, Io, Terminal } from './io.ts'
import { streamSnapshots } from './snapshots.ts'
import { snapshotText } from './status-text.ts'

/** ms from a lost connection to the next attempt. */
const RETRY_MS = 2_000

interface Display {
  show(snapshot: Snapshot): void
  /** The connection is lost. */
  lost(reason: string): void
  end(): void
}

/** Resolves with 0 when it is ended, and with 2 when not even the first snapshot came. */
export async function watch(url: string, { json }: Flags, io: Io): Promise<ExitCode> {
  let display: Display | undefined
  try {
    for (;;) {
      try {
        for await (const snapshot of streamSnapshots(url, io)) {
          display ??= createDisplay(json, io)
          display.show(snapshot)
        }
        display?.lost('the server has ended the connection')
      } catch (error) {
        if (io.signal.aborted) return 0
        if (!display) {
          io.printError(`${(error as Error).message}\n`)
          return 2
        }
        display.lost((error as Error).message)
      }
      await pause(systemTimers, RETRY_MS, io.signal).catch(() => {})
      if (io.signal.aborted) return 0
    }
  } finally {
    display?.end()
  }
}

function createDisplay(json: boolean, io: Io): Display {
  if (json) return new JsonLines(io)
  return io.terminal ? new Screen(io, io.terminal) : new EventLines(io)
}

const ALTERNATE_SCREEN = '\u001b[?1049h\u001b[?25l'
const NORMAL_SCREEN = '\u001b[?25h\u001b[?1049l'
const HOME = '\u001b[H'
const CLEAR_LINE = '\u001b[K'
const CLEAR_BELOW = '\u001b[J'

class Screen implements Display {
  readonly #io: Io
  readonly #terminal: Terminal
  #snapshot: Snapshot | undefined
  #lost: string | undefined
  readonly #draw = () => this.#drawNow()

  constructor(io: Io, terminal: Terminal) {
    this.#io = io
    this.#terminal = terminal
    io.print(ALTERNATE_SCREEN)
    terminal.on('resize', this.#draw)
  }

  show(snapshot: Snapshot): void {
    this.#snapshot = snapshot
    this.#lost = undefined
    this.#draw()
  }

  lost(reason: string): void {
    this.#lost = `No connection, trying again: ${reason}`
    this.#draw()
  }

  end(): void {
    this.#terminal.off('resize', this.#draw)
    this.#io.print(NORMAL_SCREEN)
  }

  #drawNow(): void {
    const { columns, rows } = this.#terminal
    const color = !this.#io.environment.NO_COLOR
    const limit = Math.max(3, Math.floor(rows / 4))
    const lines = this.#snapshot ? snapshotText(this.#snapshot, { columns, color, limit }) : []
    if (this.#lost !== undefined) lines.unshift(this.#lost.slice(0, columns))
    // Overwritten in place: clearing the screen first would flicker.
    const shown = lines.slice(0, Math.max(1, rows - 1)).map((line) => `${line}${CLEAR_LINE}\n`)
    this.#io.print(`${HOME}${shown.join('')}${CLEAR_BELOW}`)
  }
}

/** Reports each loss of the connection once. */
class Lines {
  protected readonly io: Io
  #isLost = false

  constructor(io: Io) {
    this.io = io
  }

  protected found(): void {
    this.#isLost = false
  }

  lost(reason: string): void {
    if (!this.#isLost) this.io.printError(`No connection, trying again: ${reason}\n`)
    this.#isLost = true
  }

  end(): void {}
}

class JsonLines extends Lines implements Display {
  show(snapshot: Snapshot): void {
    this.found()
    this.io.print(`${printableJson(JSON.stringify(snapshot))}\n`)
  }
}

class EventLines extends Lines implements Display {
  #lastId = 0

  show({ node, events }: Snapshot): void {
    this.found()
    // The process was restarted: its numbers begin again.
    if ((events[0]?.id ?? 0) < this.#lastId) this.#lastId = 0
    for (const record of events.filter(({ id }) => id > this.#lastId).reverse()) {
      const place = formatPlace(record)
      const time = new Date(record.time).toISOString()
      this.io.print(`${time} ${node} ${record.level} ${record.event} ${place ? `${place}: ` : ''}${record.text}\n`)
    }
    this.#lastId = events[0]?.id ?? this.#lastId
  }
}
