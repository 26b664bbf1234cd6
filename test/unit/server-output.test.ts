// The output of servers, which quotes strangers, takes bounded memory and bounded room in the log.

import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { LineReader, MAX_LINE_BYTES } from '../../lib/mesh/nats/line-reader.ts'
import { LogWatch } from '../../lib/mesh/nats/log-watch.ts'
import { ServerProcess } from '../../lib/mesh/nats/server-process.ts'
import { systemTime } from '../../lib/util/timers.ts'
import { temporaryDirectory } from '../support/cluster.ts'

function linesOf(...chunks: (string | Buffer)[]): string[] {
  const lines: string[] = []
  const reader = new LineReader((line) => lines.push(line))
  for (const chunk of chunks) reader.push(Buffer.from(chunk))
  reader.end()
  return lines
}

describe('lines', () => {
  it('end with a newline, with a return before it, or with the output', () => {
    assert.deepEqual(linesOf('one\ntwo\r\n\nthr', 'ee\n', 'fo', 'ur'), ['one', 'two', '', 'three', 'four'])
    assert.deepEqual(linesOf(), [])
  })

  it('are complete when a chunk ends within a character', () => {
    const bytes = Buffer.from('日本語\n')
    assert.deepEqual(linesOf(bytes.subarray(0, 4), bytes.subarray(4)), ['日本語'])
  })

  it('are cut when they are too long, and the next one is complete', () => {
    const long = 'x'.repeat(MAX_LINE_BYTES + 10)
    const [first, second] = linesOf(long.slice(0, 100), long.slice(100), `${long}\nnext\n`)
    assert.equal(first, 'x'.repeat(MAX_LINE_BYTES))
    assert.equal(second, 'next')
  })
})

it('400 MB without a newline take no memory', { skip: process.platform === 'win32' }, async (t) => {
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  const path = join(directory, 'server')
  await writeFile(path, '#!/bin/sh\nhead -c 400000000 /dev/zero >&2\necho >&2\necho "[1] a b [INF] the end" >&2\n')
  await chmod(path, 0o755)
  const lines: { level: string; length: number; text: string }[] = []
  const peak = { bytes: 0 }
  const measure = setInterval(() => {
    const { rss } = process.memoryUsage()
    peak.bytes = Math.max(peak.bytes, rss)
  }, 5)
  t.after(() => clearInterval(measure))
  const before = process.memoryUsage().rss
  await new Promise<void>((resolve) => {
    new ServerProcess({
      path,
      configFile: join(directory, 'none'),
      line: (level, text) => {
        lines.push({ level, length: text.length, text: text.slice(0, 20) })
        if (text === 'the end') resolve()
      },
    })
  })
  assert.deepEqual(
    lines.map(({ level, length }) => [level, length]),
    [
      ['INF', MAX_LINE_BYTES],
      ['INF', 7],
    ],
  )
  // Buffers that were read are garbage until the next collection.
  assert.ok(peak.bytes - before < 130_000_000, `${peak.bytes - before} bytes more`)
})

function watch(t: TestContext) {
  const clock = { now: 0 }
  t.mock.method(systemTime, 'elapsed', () => clock.now)
  const log: { level: string; text: string; fields: object }[] = []
  const note = (level: string) => (fields: object, text: string) => void log.push({ level, text, fields })
  const state = { rejected: [] as [string, string][], routesLost: 0, linked: 0 }
  const logWatch = new LogWatch({
    rejected: (peer, reason) => void state.rejected.push([peer, reason]),
    linked: () => void state.linked++,
    routeLost: () => void state.routesLost++,
    logger: { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') },
  })
  return { logWatch, state, log, clock }
}

describe('the log of servers', () => {
  it('reports each stranger once a minute, and not more than 60 of them', (t) => {
    const { logWatch, state, log, clock } = watch(t)
    const attempts = (count: number) => {
      for (let index = 0; index < count; index++)
        for (const port of [1, 2])
          logWatch.line(
            'hub',
            'ERR',
            `10.0.${index >> 8}.${index & 255}:${port} - rid:${index} - authorization violation`,
          )
    }
    attempts(2)
    assert.deepEqual(
      state.rejected.map(([peer]) => peer),
      ['10.0.0.0:1', '10.0.1.0:1'].map((_, index) => `10.0.0.${index}:1`),
    )
    attempts(5_000)
    assert.equal(state.rejected.length, 60)
    clock.now += 61_000
    attempts(1)
    assert.equal(state.rejected.length, 61)
    assert.deepEqual(log.at(-1)?.text, 'more connections rejected than are listed')
  })

  it('takes no warning of a server about itself for a rejection', (t) => {
    const { logWatch, state, log } = watch(t)
    const warning =
      'TLS certificate chain and hostname of solicited routes will not be verified. DO NOT USE IN PRODUCTION!'
    logWatch.line('hub', 'WRN', warning)
    assert.deepEqual(state.rejected, [])
    assert.deepEqual(
      log.map(({ level, text }) => [level, text]),
      [['debug', warning]],
    )
    logWatch.line('hub', 'WRN', '10.0.0.1:1 - rid:1 - TLS handshake error: x509: unknown authority')
    assert.equal(state.rejected.length, 1)
  })

  it('quotes strangers in part, and without control characters or passwords', (t) => {
    const { logWatch, state, log } = watch(t)
    logWatch.line('hub', 'ERR', `10.0.0.1:1 - rid:1 - authorization violation \u001b[2J ${'x'.repeat(10_000)}`)
    const [[, reason]] = state.rejected as [[string, string]]
    assert.ok(reason.length < 600 && !reason.includes('\u001b'), reason)
    logWatch.line('hub', 'ERR', 'cannot connect to nats-route://user:secret@10.0.0.1:9932')
    assert.equal(log.at(-1)?.text, 'cannot connect to nats-route://10.0.0.1:9932')
  })

  it('has bounded numbers of errors and of other lines', (t) => {
    const { logWatch, log, clock } = watch(t)
    const letters = (index: number) => String.fromCodePoint(0x4e00 + index)
    for (let index = 0; index < 5_000; index++) {
      logWatch.line('hub', 'ERR', `unknown protocol ${letters(index)}`)
      logWatch.line('hub', 'INF', `a line ${letters(index)}`)
    }
    const count = (level: string) => log.filter((entry) => entry.level === level).length
    assert.deepEqual([count('warn'), count('debug')], [100, 2_000])
    clock.now += 61_000
    logWatch.line('hub', 'ERR', 'unknown protocol')
    logWatch.line('hub', 'INF', 'a line')
    assert.deepEqual(
      log.slice(-4).map(({ text, fields }) => [text, (fields as { count?: number }).count]),
      [
        ['errors in the server log left out: too many', 4_900],
        ['unknown protocol', undefined],
        ['lines of the server log left out: too many', 3_000],
        ['a line', undefined],
      ],
    )
  })

  it('takes no memory and little time for a flood of different, long lines', (t) => {
    const { logWatch } = watch(t)
    const started = process.hrtime.bigint()
    const hostile = `${'a.a:1'.repeat(1_000)} ${'://'.repeat(3_000)}`
    for (let index = 0; index < 2_000; index++)
      logWatch.line('hub', 'ERR', `${index} ${hostile}`.slice(0, MAX_LINE_BYTES))
    const seconds = Number(process.hrtime.bigint() - started) / 1e9
    assert.ok(seconds < 20, `${seconds} s`)
  })

  it('says when a hub lost a link, and not when it refused a second one', (t) => {
    const { logWatch, state } = watch(t)
    const line = (reason: string) =>
      logWatch.line('hub', 'INF', `10.0.0.1:9932 - rid:7 - Router connection closed: ${reason}`)
    line('Duplicate Route')
    assert.equal(state.routesLost, 0)
    line('Client Closed')
    assert.equal(state.routesLost, 1)
  })
})
