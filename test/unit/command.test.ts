// The command `enmesh`: its exit codes, what it says about a configuration file, and what it shows of a status page.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import type { Io, Terminal } from '../../lib/cli/io.ts'
import { run } from '../../lib/cli/run.ts'
import { defaultConfigText } from '../../lib/manifest/config.ts'
import { type Snapshot, statusPage } from '../../lib/status-page.ts'
import { freePorts } from '../../lib/testing.ts'
import { systemTime } from '../../lib/util/timers.ts'
import { StatusView } from '../support/status-view.ts'
import { temporaryDirectory } from './store-fixture.ts'

type Options = { environment?: Record<string, string>; terminal?: Terminal; signal?: AbortSignal }

/** Runs the command with these arguments in this process. */
function start(args: string[], { environment = {}, terminal, signal = new AbortController().signal }: Options = {}) {
  const output = { out: '', err: '' }
  const wake: (() => void)[] = []
  const add = (name: 'out' | 'err') => (text: string) => {
    output[name] += text
    for (const each of wake.splice(0)) each()
  }
  const io: Io = { print: add('out'), printError: add('err'), environment, terminal, signal }
  return {
    output,
    code: run(args, io),
    /** Resolves when the output has this. */
    async shows(pattern: RegExp): Promise<void> {
      while (!pattern.test(output.out + output.err)) await new Promise<void>((resolve) => wake.push(resolve))
    },
  }
}

async function result(args: string[], options?: Options) {
  const { output, code } = start(args, options)
  return { code: await code, ...output }
}

async function check(t: TestContext, text: string | Buffer, ...flags: string[]) {
  const file = join(await temporaryDirectory(t), 'config.yaml')
  await writeFile(file, text)
  const { code, out, err } = await result(['check', file, ...flags])
  return { code, lines: out.replaceAll(file, 'FILE').trimEnd().split('\n'), out, err }
}

const valid = `clustering:
  enabled: true
  nodeName: one
  user: cluster_user
  nodes:
    - name: two
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }
`

test('check: a valid file is summed up, and the exit code is 0', async (t) => {
  const { code, lines, err } = await check(t, valid)
  assert.deepEqual([code, lines, err], [0, ["FILE: valid: node 'one', 0 routes, 1 peer, 1 subscription"], ''])
  assert.deepEqual((await check(t, defaultConfigText)).lines, ['FILE: valid: clustering is disabled'])
})

test('check: each fault has its line and column, and the exit code is 1', async (t) => {
  const wrong = valid.replace('name: two', 'name: one').replace('publish: true', 'publish: 7')

  const { code, lines } = await check(t, wrong)
  assert.equal(code, 1)
  assert.match(lines[0]!, /^FILE:6:13: error: clustering\.nodes\[0\]\.name must not be the name of the local node/)
  assert.match(
    lines[1]!,
    /^FILE:8:49: error: clustering\.nodes\[0\]\.subscriptions\[0\]\.publish must be true or false/,
  )
  assert.equal(lines[2], 'FILE: invalid: 2 errors')
})

test('check: keys that only an enabled node needs are missed, and unknown keys are warnings', async (t) => {
  const { code, lines } = await check(t, 'clustering:\n  enabled: true\n  nodName: one\n')
  assert.equal(code, 1)
  assert.match(lines[0]!, /error: clustering\.nodeName is missing while clustering is enabled$/)
  assert.match(lines[1]!, /error: clustering\.user is missing while clustering is enabled$/)
  assert.match(lines[2]!, /^FILE:3:3: warning: clustering\.nodName is an unknown key .* Did you mean 'nodeName'\?$/)
  assert.equal((await check(t, valid.replace('  nodeName: one', '  nodeName: one\n  other: 1'))).code, 0)
})

test('check: syntax errors, bytes that are no text and names that cannot be replicated are faults', async (t) => {
  assert.match((await check(t, 'a: [1\nb: }')).lines[0]!, /^FILE:2:1: error: /)
  assert.match(
    (await check(t, Buffer.from([0x61, 0x0a, 0xff]))).lines[0]!,
    /^FILE:2:1: error: the byte 0xFF is not UTF-8/,
  )
  assert.match(
    (await check(t, valid.replace('table: dog', 'table: "a.b"'))).lines[0]!,
    /table must be a name that can be replicated/,
  )
  assert.match(
    (await check(t, valid.replace('cluster_user', `"${'x'.repeat(600)}"`))).lines[0]!,
    /user must have at most 512 bytes/,
  )
})

test('check: what depends on the machine is a warning', async (t) => {
  const tls = '  tls: { certificate: a.pem, certificateAuthority: b.pem, privateKey: c.pem }\n'
  const { code, lines } = await check(t, valid.replace('name: two', 'name: two@home') + tls)
  assert.equal(code, 0)
  assert.equal(lines.filter((line) => line.includes('is no file on this machine')).length, 3)
  assert.match(lines.join('\n'), /should not be 'two@home': nats-server 2\.9\.0 cannot carry '@'/)
})

test('check: as JSON, and a file that cannot be read', async (t) => {
  const { code, out } = await check(t, valid, '--json')
  const { file: _file, ...answer } = JSON.parse(out)
  assert.equal(code, 0)
  assert.deepEqual([answer.valid, answer.problems, answer.warnings], [true, [], []])
  const missing = await result(['check', '/nonexistent/file.yaml'])
  assert.deepEqual([missing.code, missing.out], [2, ''])
  assert.match(missing.err, /cannot be read/)
})

test('check: a value of the host is in no message, and control characters of a value do not reach the terminal', async (t) => {
  const { lines } = await check(t, `users: [{ password: secret ]\n${valid}`)
  assert.doesNotMatch(lines.join(), /secret/)
  const { out } = await check(t, valid.replace('name: two', 'name: "\\e[2J"'))
  assert.match(out, /name/)
  assert.ok(!out.includes('\u001b'))
})

test('wrong usage is explained, with exit code 2', async () => {
  for (const [args, message] of [
    [[], /No command/],
    [['chek', 'x'], /Did you mean 'check'/],
    [['check'], /takes one argument, FILE; it has 0/],
    [['check', 'a', 'b'], /it has 2/],
    [['status', 'localhost'], /is not an address such as/],
    [['status', '--wrong'], /wrong/],
    [['constructor', 'x'], /Unknown command/],
  ] as const) {
    const { code, out, err } = await result([...args])
    assert.deepEqual([code, out], [2, ''])
    assert.match(err, message)
  }
  assert.match((await result(['--help'])).out, /enmesh watch URL/)
  assert.match((await result(['-v'])).out, /^\d+\.\d+\.\d+\n$/)
})

/** Limits of ten seconds pass in half a second: enough for a busy machine. */
function shortenTimers(t: TestContext, isShortened = (_ms: number) => true): void {
  const { setTimeout: later } = systemTime
  const wait = (work: () => void, ms: number) => later(work, isShortened(ms) ? ms / 20 : ms)
  t.mock.method(systemTime, 'setTimeout', wait)
}

async function listen(t: TestContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A status page, and the headers of the requests to it. */
async function openPage(t: TestContext, source = new StatusView()) {
  const page = statusPage(source.view, { path: '/status' })
  t.after(() => page.close())
  const headers: IncomingHttpHeaders[] = []
  const server = createServer((request, response) => {
    headers.push(request.headers)
    page(request, response)
  })
  return { source, server, headers, url: `${await listen(t, server)}/status/` }
}

test('status: shows what the page shows; the exit code says whether an operator has to act', async (t) => {
  const { url, source } = await openPage(t)
  const well = await result(['status', url])
  assert.deepEqual([well.code, well.err], [0, ''])
  assert.match(well.out, /^node1 {2}● ready {2}mesh connected/)
  assert.match(well.out, /● live +node2 +1 table/)
  source.degraded = [
    { code: 'subscription_stalled', node: 'node2', database: 'dev', table: 'dog', message: 'disk full' },
  ]
  Object.assign(source.statuses[0]!, { state: 'stalled', error: 'disk full', lag: 12 })
  // A snapshot is shared for half a second.
  const { url: other } = await openPage(t, source)
  const { code, out } = await result(['status', other.replace(/\/$/, '')])
  assert.equal(code, 1)
  assert.match(out, /▲ ready, needs attention/)
  assert.match(out, /Subscription stalled {2}dev\.dog of node2: disk full\n.*cluster\.quarantine\.add/)
  assert.match(out, /■ stalled +dev\.dog of node2 {2}← behind 12/)
  assert.equal((JSON.parse((await result(['status', other, '--json'])).out) as Snapshot).node, 'node1')
})

test('status: a node that is not ready has exit code 1, and one that does not answer has 2', async (t) => {
  const source = new StatusView()
  source.ready = false
  const { url } = await openPage(t, source)
  assert.equal((await result(['status', url])).code, 1)
  const server = createServer((request, response) => {
    const status = Number(request.url!.split('/')[1])
    response.writeHead(status).end(status === 200 ? request.url!.split('/')[2] : '')
  })
  const answers = await listen(t, server)
  for (const [path, message] of [
    ['401', /needs a user name and a password/],
    ['403', /may not see/],
    ['404', /no status page at this address/],
    ['500', /HTTP 500/],
    ['200/x', /not that of a status page/],
    ['200/null', /not that of a status page/],
    ['200/%7B%22version%22:7%7D', /./],
  ] as const) {
    const { code, out, err } = await result(['status', `${answers}/${path}`])
    assert.deepEqual([code, out], [2, ''], path)
    assert.match(err, message)
  }
  const [port] = await freePorts(1)
  const { code, err } = await result(['status', `http://127.0.0.1:${port}/`])
  assert.equal(code, 2)
  assert.match(err, /ECONNREFUSED/)
})

test('a page of another version is refused with both versions', async (t) => {
  const url = await listen(
    t,
    createServer((_, response) => response.end('{"version":7}')),
  )
  const { code, err } = await result(['status', url])
  assert.equal(code, 2)
  assert.match(err, /version 7, this command has version 1/)
})

test('credentials come from the address or the environment, and are in no message', async (t) => {
  const { url, headers } = await openPage(t)
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
  await result(['status', url.replace('://', '://anna:pass%20word@')])
  await result(['status', url], { environment: { ENMESH_USER: 'bert', ENMESH_PASSWORD: 'secret' } })
  await result(['status', url])
  assert.deepEqual(
    headers.map(({ authorization }) => authorization),
    [basic('anna:pass word'), basic('bert:secret'), undefined],
  )
  const { err } = await result(['status', `${url.replace('://', '://anna:password@')}nothing/`])
  assert.match(err, /404/)
  assert.doesNotMatch(err, /password/)
})

const HOSTILE = '\u001b[2J\u202enode\r\n'

test('names and reasons of other nodes cannot control the terminal', async (t) => {
  const source = new StatusView({ peers: [HOSTILE] })
  source.degraded = [{ code: 'peer_down', node: HOSTILE, message: `no heartbeat of ${HOSTILE}` }]
  Object.assign(source.statuses[0]!, { state: 'stalled', error: HOSTILE })
  const { url } = await openPage(t, source)
  const { out } = await result(['status', url])
  assert.match(out, /node/)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  assert.doesNotMatch(out, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
})

test('watch: one line for each event when the output is no terminal; it continues after the node was away, and ends by a signal', async (t) => {
  const { url, source, server } = await openPage(t)
  // The pause before the next attempt.
  shortenTimers(t, (ms) => ms === 2_000)
  const stop = new AbortController()
  const watching = start(['watch', url], { signal: stop.signal })
  // Otherwise the first event may come before the stream.
  await once(server, 'request')
  source.emit('peer:down', { node: 'node2', reason: 'no heartbeat' })
  await watching.shows(/T\S+Z node1 error peer:down node2: node is down: no heartbeat\n/)
  server.closeAllConnections()
  await watching.shows(/No connection, trying again/)
  source.emit('peer:up', { node: 'node2' })
  await watching.shows(/peer:up node2: node is up\n/)
  assert.equal(watching.output.out.match(/node is down/g)!.length, 1)
  stop.abort()
  assert.equal(await watching.code, 0)
})

test('watch: fills a terminal, within its size, and leaves it as it was', async (t) => {
  const { url } = await openPage(
    t,
    new StatusView({ peers: Array.from({ length: 50 }, (_, index) => `node${index + 2}`) }),
  )
  const stop = new AbortController()
  let resize: (() => void) | undefined
  const terminal = {
    columns: 40,
    rows: 12,
    on: (_: 'resize', listener: () => void) => {
      resize = listener
    },
    off: (_: 'resize', listener: () => void) => {
      if (resize === listener) resize = undefined
    },
  }
  const watching = start(['watch', url], { signal: stop.signal, terminal, environment: { NO_COLOR: '1' } })
  await watching.shows(/node1 {2}● ready/)
  const screen = watching.output.out.split('\u001b[H').at(-1)!
  const lines = stripVTControlCharacters(screen).split('\n')
  assert.ok(lines.length <= 12, `${lines.length} lines`)
  assert.ok(lines.every((line) => line.length <= 40))
  watching.output.out = ''
  terminal.columns = 60
  resize!()
  assert.match(watching.output.out, /node1/)
  stop.abort()
  assert.equal(await watching.code, 0)
  assert.ok(watching.output.out.endsWith('\u001b[?25h\u001b[?1049l'))
  assert.equal(resize, undefined)
})

test('watch: an address without a status page is an error at once', async (t) => {
  const url = await listen(
    t,
    createServer((_, response) => response.writeHead(404).end()),
  )
  const { code, err } = await result(['watch', url])
  assert.equal(code, 2)
  assert.match(err, /no status page at this address/)
})

test('JSON has no characters that change the terminal, and the same values', async (t) => {
  const name = 'tw\u009b31mo\u202e\u{e0001}'
  const { code, out } = await check(t, valid.replace('name: two', `"${name}": two`), '--json')
  assert.equal(code, 1)
  assert.doesNotMatch(out.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u)
  assert.ok(JSON.stringify(JSON.parse(out)).includes(name))
})

const vanished = async (t: TestContext) => {
  const page = statusPage(new StatusView().view)
  t.after(() => page.close())
  const server = createServer((request, response) => {
    page(request, response)
    // The connection stays open, and nothing comes.
    setTimeout(() => (response.write = () => true), 20)
  })
  const url = await listen(t, server)
  const stop = new AbortController()
  const watching = start(['watch', url], { signal: stop.signal })
  await watching.shows(/No connection, trying again: \S+: nothing received for 10 s\n/)
  stop.abort()
  assert.equal(await watching.code, 0)
}

const endless = async (t: TestContext) => {
  const server = createServer((_, response) => response.writeHead(200).write('{')).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  const { code, err } = await result(['status', `http://127.0.0.1:${port}/`])
  assert.equal(code, 2)
  assert.match(err, /the answer does not end/)
}

test('what takes too long is given up', { concurrency: true }, async (t) => {
  shortenTimers(t)
  await Promise.all([
    t.test('watch: a server that has vanished without ending the connection is noticed', vanished),
    t.test('status: an answer that does not end', endless),
  ])
})
