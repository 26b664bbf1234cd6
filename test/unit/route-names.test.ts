// Names of routes become the addresses of all remote hubs, and follow the name server.

import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { describe, it, type TestContext } from 'node:test'
import { address } from '../../lib/mesh/nats/configuration.ts'
import { type Resolve, RouteNames } from '../../lib/mesh/nats/route-names.ts'
import { TestClock } from '../../lib/testing.ts'

const PORT = 9932

function scene(t: TestContext, options: { listen?: string; secure?: boolean; resolve?: Resolve } = {}) {
  const clock = new TestClock({ stopped: true })
  const state = {
    answers: {} as Record<string, string[] | Error>,
    lookups: 0,
    linked: [] as string[],
    /** The routes at each call of `changed`. */
    applied: [] as string[],
    failures: 0,
    log: [] as string[],
  }
  const note = (_: object, message: string) => void state.log.push(message)
  const names = new RouteNames({
    resolve:
      options.resolve ??
      (async (name) => {
        state.lookups++
        const answer = state.answers[name] ?? new Error('ENOTFOUND')
        if (answer instanceof Error) throw answer
        return answer
      }),
    local: { host: options.listen ?? '10.0.0.1', port: PORT },
    secure: options.secure ?? false,
    linked: async () => new Set(state.linked),
    changed: async () => {
      if (state.failures-- > 0) throw new Error('the disk is full')
      const routes = names.routes.map(address).join(' ')
      if (state.applied.at(-1) !== routes) state.applied.push(routes)
    },
    timers: clock,
    logger: { debug: note, info: note, warn: note, error: note },
  })
  t.after(() => names.close())
  const set = (...hosts: string[]) => names.set(hosts.map((host) => ({ host, port: PORT })))
  const routes = () => names.routes.map(address)
  return { clock, state, names, set, routes }
}

describe('the routes of a hub', () => {
  it('are all addresses of a name but the local one', async (t) => {
    const { state, set, routes } = scene(t)
    state.answers.hubs = ['10.0.0.3', '10.0.0.1', '10.0.0.2']
    await set('hubs')
    assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.3:9932'])
  })

  it('have IPv6 addresses in brackets', async (t) => {
    const { state, set, routes } = scene(t, { listen: '[fd00::1]' })
    state.answers.hubs = ['fd00::1', 'fd00::2', 'fd00::3']
    await set('hubs')
    assert.deepEqual(routes(), ['[fd00::2]:9932', '[fd00::3]:9932'])
  })

  it('leave out all interfaces when the hub listens on all of them, at its port only', async (t) => {
    const { state, names, set, routes } = scene(t, { listen: '0.0.0.0' })
    const own = Object.values(networkInterfaces()).flatMap((found) => found?.map((each) => each.address) ?? [])
    state.answers.hubs = ['127.0.0.1', '127.3.2.1', ...own, '203.0.113.1', '203.0.113.2']
    await set('hubs')
    assert.deepEqual(routes(), ['203.0.113.1:9932', '203.0.113.2:9932'])
    await names.set([{ host: 'hubs', port: 1 }])
    assert.equal(routes().length, new Set(state.answers.hubs).size)
  })

  it('leave out the addresses of the name that the hub listens on', async (t) => {
    const { state, set, routes } = scene(t, { listen: 'node1' })
    state.answers = { node1: ['10.0.0.7'], hubs: ['10.0.0.7', '10.0.0.8'] }
    await set('hubs')
    assert.deepEqual(routes(), ['10.0.0.8:9932'])
  })

  it('keep a name with one address, or one of each family, and addresses', async (t) => {
    const { state, set, routes } = scene(t)
    state.answers = { node2: ['10.0.0.2'], node3: ['10.0.0.3', 'fd00::3'] }
    await set('node2', 'node3', '10.0.0.4', 'fd00::4')
    assert.deepEqual(routes(), ['node2:9932', 'node3:9932', '10.0.0.4:9932', '[fd00::4]:9932'])
  })

  it('do not contain a name of the local hub alone, which would be given up', async (t) => {
    for (const secure of [false, true]) {
      const { clock, state, names, set, routes } = scene(t, { secure })
      state.answers.hubs = ['10.0.0.1']
      await set('hubs')
      assert.deepEqual(routes(), [])
      names.watch()
      state.answers.hubs = ['10.0.0.2']
      await clock.advance(2_000)
      assert.deepEqual(state.applied.at(-1), 'hubs:9932')
    }
  })

  it('contain an address once', async (t) => {
    const { state, set, routes } = scene(t)
    state.answers = { hubs: ['10.0.0.2', '10.0.0.3'], others: ['10.0.0.3', '10.0.0.4'] }
    await set('10.0.0.2', 'hubs', 'others')
    assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.3:9932', '10.0.0.4:9932'].sort())
  })

  it('with TLS begin with the name that certificates contain', async (t) => {
    const { state, set, routes } = scene(t, { secure: true })
    state.answers = { node2: ['10.0.0.9'], hubs: ['10.0.0.1', '10.0.0.2', '10.0.0.3'] }
    await set('node2', 'hubs')
    assert.deepEqual(routes(), ['hubs:9932', '10.0.0.2:9932', '10.0.0.3:9932', 'node2:9932'])
  })
})

describe('the name server', () => {
  it('is asked every 10 to 20 s when all addresses are linked, and soon when one is not', async (t) => {
    const { clock, state, names, set } = scene(t)
    state.answers.hubs = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
    state.linked = ['10.0.0.2', '10.0.0.3']
    await set('hubs')
    names.watch()
    await clock.advance(2_000)
    const count = async (ms: number) => {
      const before = state.lookups
      for (let second = 0; second < ms / 1_000; second++) await clock.advance(1_000)
      return state.lookups - before
    }
    const quiet = await count(200_000)
    assert.ok(quiet >= 9 && quiet <= 21, `${quiet}`)
    state.linked = ['10.0.0.2']
    names.checkSoon()
    assert.ok((await count(1_000)) === 1)
    const searching = await count(20_000)
    assert.ok(searching >= 3 && searching <= 8, `${searching}`)
    const down = await count(200_000)
    assert.ok(down <= 21, `a node that is down costs no more: ${down}`)
  })

  it('changes the routes, and the hub is only asked for a change', async (t) => {
    const { clock, state, names, set } = scene(t)
    state.answers.hubs = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
    await set('hubs')
    names.watch()
    await clock.advance(60_000)
    state.answers.hubs = ['10.0.0.3', '10.0.0.1', '10.0.0.4']
    await clock.advance(60_000)
    assert.deepEqual(state.applied, ['10.0.0.2:9932 10.0.0.3:9932', '10.0.0.3:9932 10.0.0.4:9932'])
  })

  it('does not cut a link by leaving out an address', async (t) => {
    const { clock, state, names, set, routes } = scene(t)
    state.answers.hubs = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
    state.linked = ['10.0.0.2', '10.0.0.3']
    await set('hubs')
    names.watch()
    state.answers.hubs = ['10.0.0.1', '10.0.0.2', '10.0.0.4']
    await clock.advance(60_000)
    assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.3:9932', '10.0.0.4:9932'])
    state.linked = ['10.0.0.2', '10.0.0.4']
    await clock.advance(60_000)
    assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.4:9932'])
  })

  it('may fail: the last addresses stay, which is logged once', async (t) => {
    const { clock, state, names, set, routes } = scene(t)
    state.answers.hubs = ['10.0.0.2', '10.0.0.3']
    await set('hubs')
    names.watch()
    for (const answer of [new Error('SERVFAIL'), []]) {
      state.answers.hubs = answer
      for (let count = 0; count < 100; count++) await clock.advance(1_000)
      assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.3:9932'])
    }
    assert.deepEqual(state.log, ['name of a route does not resolve, keeping its addresses'])
    state.answers.hubs = ['10.0.0.2', '10.0.0.5']
    await clock.advance(20_000)
    assert.deepEqual(routes(), ['10.0.0.2:9932', '10.0.0.5:9932'])
    assert.deepEqual(state.log.slice(1), ['name of a route resolves again'])
  })

  it('may know the name later: until then the hub itself asks', async (t) => {
    const { clock, state, names, set, routes } = scene(t)
    await set('hubs')
    assert.deepEqual(routes(), ['hubs:9932'])
    assert.deepEqual(state.log, ['name of a route does not resolve, retrying'])
    names.watch()
    await clock.advance(30_000)
    state.answers.hubs = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
    await clock.advance(20_000)
    assert.equal(state.applied.at(-1), '10.0.0.2:9932 10.0.0.3:9932')
  })

  it('may not answer: a start does not wait for it, and it is asked once', async (t) => {
    let asked = 0
    const resolve = () => {
      asked++
      return new Promise<never>(() => {})
    }
    const { clock, names, set, routes } = scene(t, { resolve })
    const started = set('hubs')
    await clock.advance(2_000)
    await started
    assert.deepEqual(routes(), ['hubs:9932'])
    names.watch()
    for (let count = 0; count < 60; count++) await clock.advance(1_000)
    assert.equal(asked, 1)
  })

  it('is not asked after closing, or without names', async (t) => {
    const { clock, state, names, set } = scene(t)
    await set('10.0.0.2')
    names.watch()
    await clock.advance(60_000)
    assert.equal(state.lookups, 0)
    await set('hubs')
    names.close()
    await clock.advance(60_000)
    assert.equal(state.lookups, 1)
  })

  it('is asked again when the hub could not use its answer', async (t) => {
    const { clock, state, names, set } = scene(t)
    state.answers.hubs = ['10.0.0.2', '10.0.0.3']
    await set('hubs')
    state.failures = 2
    names.watch()
    for (let count = 0; count < 10; count++) await clock.advance(1_000)
    assert.deepEqual(state.applied, ['10.0.0.2:9932 10.0.0.3:9932'])
    assert.deepEqual(state.log, new Array(2).fill('changed addresses of routes not in effect, retrying'))
  })
})
