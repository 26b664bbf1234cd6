// The output of the demo: numbered steps with their duration, indented results, and a last line.

import type { Progress } from '../../lib/index.ts'

const color = process.stdout.isTTY && !process.env.NO_COLOR
const paint = (code: number, text: string) => (color ? `\u001b[${code}m${text}\u001b[0m` : text)

const BAR_WIDTH = 24

export class Story {
  #isDrawn = false
  readonly #started = performance.now()
  #steps = 0

  /** Runs one step and prints the lines that it returns. */
  async step(title: string, run: () => Promise<string[]>): Promise<void> {
    process.stdout.write(`${paint(1, `${++this.#steps}. ${title}`)}\n`)
    const started = performance.now()
    const lines = await run()
    this.say(...lines)
    process.stdout.write(
      `   ${paint(32, 'ok')} ${paint(2, `${((performance.now() - started) / 1000).toFixed(1)} s`)}\n`,
    )
  }

  /** A progress line that the next output replaces. Only on a terminal. */
  draw(nodeName: string, { task, step, node, done, total = 0, rate, remaining }: Progress): void {
    if (!process.stdout.isTTY) return
    const filled = total > 0 ? Math.round((BAR_WIDTH * done) / total) : BAR_WIDTH
    const bar = `${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}`
    const speed = rate === undefined ? '' : `, ${Math.round(rate)} a second`
    const rest = remaining === undefined ? '' : `, ${remaining.toFixed(1)} s left`
    const label = [nodeName, task, node, step].filter(Boolean).join(' ')
    process.stdout.write(`\r\u001b[2K   ${bar} ${label}: ${done} of ${total}${speed}${rest}`)
    this.#isDrawn = true
  }

  say(...lines: string[]): void {
    if (this.#isDrawn) process.stdout.write('\r\u001b[2K')
    this.#isDrawn = false
    for (const line of lines) process.stdout.write(`   ${line.replaceAll('\n', '\n   ')}\n`)
  }

  /** Throws if the condition is false. */
  check(condition: boolean, description: string): void {
    if (!condition) throw new Error(`check failed: ${description}`)
  }

  end(summary: string): void {
    const seconds = ((performance.now() - this.#started) / 1000).toFixed(1)
    process.stdout.write(`${paint(32, 'Success')}: ${summary}. ${seconds} s\n`)
  }

  fail(error: unknown): void {
    process.stderr.write(`${paint(31, 'Failed')}: ${error instanceof Error ? error.message : String(error)}\n`)
  }
}
