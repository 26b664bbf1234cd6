// How the demo talks: numbered steps with their time, what was seen indented below, one line at the end.

import type { Progress } from '../../lib/index.ts'

const color = process.stdout.isTTY && !process.env.NO_COLOR
const paint = (code: number, text: string) => (color ? `\u001b[${code}m${text}\u001b[0m` : text)

const WIDTH = 24

export class Story {
  #isDrawn = false
  readonly #started = performance.now()
  #steps = 0

  /** Runs one step and prints what it gives. */
  async step(title: string, run: () => Promise<string[]>): Promise<void> {
    process.stdout.write(`${paint(1, `${++this.#steps}. ${title}`)}\n`)
    const started = performance.now()
    const lines = await run()
    this.say(...lines)
    process.stdout.write(
      `   ${paint(32, 'ok')} ${paint(2, `${((performance.now() - started) / 1000).toFixed(1)} s`)}\n`,
    )
  }

  /** One line that the next takes the place of; on a terminal only. */
  draw(who: string, { task, step, node, done, total, rate, remaining }: Progress): void {
    if (!process.stdout.isTTY) return
    const filled = total > 0 ? Math.round((WIDTH * done) / total) : WIDTH
    const bar = `${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}`
    const speed = rate === undefined ? '' : `, ${Math.round(rate)} a second`
    const rest = remaining === undefined ? '' : `, ${remaining.toFixed(1)} s left`
    const what = [who, task, node, step].filter(Boolean).join(' ')
    process.stdout.write(`\r\u001b[2K   ${bar} ${what}: ${done} of ${total}${speed}${rest}`)
    this.#isDrawn = true
  }

  say(...lines: string[]): void {
    if (this.#isDrawn) process.stdout.write('\r\u001b[2K')
    this.#isDrawn = false
    for (const line of lines) process.stdout.write(`   ${line.replaceAll('\n', '\n   ')}\n`)
  }

  /** Throws unless it is so. */
  check(holds: boolean, what: string): void {
    if (!holds) throw new Error(`not so: ${what}`)
  }

  end(proved: string): void {
    const seconds = ((performance.now() - this.#started) / 1000).toFixed(1)
    process.stdout.write(`${paint(32, 'Proved')}: ${proved}. ${seconds} s\n`)
  }

  fail(error: unknown): void {
    process.stderr.write(`${paint(31, 'Failed')}: ${error instanceof Error ? error.message : String(error)}\n`)
  }
}
