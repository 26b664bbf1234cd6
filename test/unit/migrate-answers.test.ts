// What HarperDB answers is checked: a wrong, short or missing answer ends a migration with a reason, and no row is lost or deleted by it.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { HarperApi } from '../../lib/migrate/harper-api.ts'
import { compareNodes } from '../../lib/migrate.ts'
import { type HarperConnectionAnswer, HarperHttp, harperLogin } from '../support/harper-http.ts'
import { dogs, harperSite, ROW_TIME } from '../support/harper-site.ts'

type Test = { after(work: () => unknown): void }

const connection = (more: object = {}): HarperConnectionAnswer => ({
  node_name: 'node2',
  ports: { clustering: 9932, operations_api: 9925 },
  subscriptions: [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }],
  system_info: { hdb_version: '4.3.0' },
  ...more,
})

/** A node with this number of rows. */
async function siteWithRows(test: Test, count: number) {
  const site = await harperSite(test)
  for (let id = 1; id <= count; id++) site.harper.tables[0]!.put(id, { id }, ROW_TIME)
  return { ...site, ids: () => site.host.records('dev', 'dog').length }
}

const isSearch = ({ operation }: { operation: string }) => /^search_by_(value|conditions)$/.test(operation)

describe('a migration', { concurrency: true, timeout: 180_000 }, () => {
  it('rejects a null in a page of rows, which is no end of the table', async (test) => {
    for (const wrong of [null, [null], [{ id: 1 }, null], [[1]], 'x']) {
      const { migrate, harper, ids } = await siteWithRows(test, 300)
      harper.changeAnswer = (body, answer) => (body.operation === 'search_by_conditions' ? wrong : answer)
      await assert.rejects(migrate(), { code: 'harperdb_rejected', message: /another form/ }, JSON.stringify(wrong))
      harper.changeAnswer = undefined
      await migrate()
      assert.equal(ids(), 300)
    }
  })

  it('rejects more rows than it asked for', async (test) => {
    const { migrate, harper } = await siteWithRows(test, 1)
    harper.changeAnswer = (body, answer) => (isSearch(body) ? Array(201).fill({ id: 1 }) : answer)
    await assert.rejects(migrate(), { code: 'harperdb_rejected' })
  })

  it('reads all rows of a server that limits its pages', async (test) => {
    const { migrate, harper, ids } = await siteWithRows(test, 300)
    harper.changeAnswer = (body, answer) => (isSearch(body) ? (answer as unknown[]).slice(0, 50) : answer)
    const { isComplete } = await migrate({ writersStopped: true })
    assert.deepEqual([ids(), isComplete], [300, true])
  })

  it('reports fewer rows than HarperDB counts, and deletes none', async (test) => {
    const { migrate, harper, ids } = await siteWithRows(test, 300)
    await migrate()
    harper.changeAnswer = (body, answer) => (isSearch(body) || body.operation === 'search_by_hash' ? [] : answer)
    const states = []
    for (const writersStopped of [false, true]) {
      const { steps, isComplete, imported } = await migrate({ writersStopped })
      states.push(steps.find(({ message }) => /300 rows more than it answered/.test(message))?.state)
      assert.deepEqual([isComplete, imported[0]!.unread, imported[0]!.deleted, ids()], [false, 300, 0, 300])
    }
    assert.deepEqual(states, ['warning', 'problem'])
  })

  it('deletes a row only when another search does not find it either', async (test) => {
    const { migrate, harper, host } = await siteWithRows(test, 10)
    await migrate()
    harper.tables[0]!.delete(10, ROW_TIME + 1)
    harper.changeAnswer = (body, answer) => (body.operation === 'search_by_hash' ? null : answer)
    await migrate()
    assert.deepEqual(
      host.records('dev', 'dog').map(({ id }) => id),
      [1, 2, 3, 4, 5, 6, 7, 8, 9],
    )
  })

  it('takes the lower bound of an estimated count, and has rows counted if it read fewer', async (test) => {
    for (const [range, asked] of [
      [[2, 10_000], 0],
      [[4, 10_000], 1],
    ]) {
      const { migrate, harper } = await siteWithRows(test, 3)
      let counts = 0
      harper.changeAnswer = ({ operation, exact_count }, answer) => {
        if (operation === 'describe_table' && exact_count) counts++
        if (operation !== 'describe_all') return answer
        const table = harper.table('dev', 'dog').describe()
        return { dev: { dog: { ...table, record_count: 5_000, estimated_record_range: range } } }
      }
      const { isComplete, imported } = await migrate({ writersStopped: true })
      assert.deepEqual([isComplete, imported[0]!.unread, counts], [true, 0, asked])
    }
  })

  it('goes on when its rows cannot be counted, and deletes none', async (test) => {
    const { migrate, harper, ids } = await siteWithRows(test, 3)
    await migrate()
    harper.tables[0]!.delete(3, ROW_TIME + 1)
    harper.changeAnswer = ({ operation }, answer) => {
      const table = harper.table('dev', 'dog').describe()
      return operation === 'describe_all' ? { dev: { dog: { ...table, record_count: 5_000 } } } : answer
    }
    const failures: ((body: { operation: string }) => void)[] = [
      ({ operation }) => {
        if (operation === 'describe_table') throw new Error('power failure')
      },
      (body) => {
        if (body.operation === 'describe_table') body.operation = 'unknown'
      },
    ]
    for (const fail of failures) {
      harper.beforeAnswer = fail
      const { steps, imported } = await migrate({ writersStopped: true })
      assert.equal(steps.find(({ message }) => /dev\.dog: its rows were not counted/.test(message))?.state, 'warning')
      assert.deepEqual([imported[0]!.deleted, ids()], [0, 3])
    }
    harper.beforeAnswer = undefined
    assert.deepEqual([(await migrate({ writersStopped: true })).imported[0]!.deleted, ids()], [1, 2])
  })

  it('waits for a count longer than for other answers', async (test) => {
    const { harper } = await siteWithRows(test, 3)
    const api = new HarperApi({ ...harperLogin, url: harper.url, timeout: 50, patience: 0 })
    harper.beforeAnswer = () => delay(150)
    await assert.rejects(api.tables(), { code: 'harperdb_unreachable' })
    assert.equal(await api.countRows({ database: 'dev', table: 'dog' }), 3)
  })

  it('rejects names, ports and counts that no HarperDB has', async (test) => {
    const { migrate, harper } = await siteWithRows(test, 1)
    for (const connections of [
      [connection({ node_name: 'a b' })],
      [connection({ node_name: 'node1' })],
      [connection(), connection()],
      [connection({ ports: { operations_api: 0.5 } })],
      [connection({ ports: { operations_api: 70_000 } })],
    ]) {
      harper.connections = connections
      await assert.rejects(migrate(), { code: 'harperdb_rejected' }, JSON.stringify(connections))
    }
    harper.connections = []
    harper.members = [{ name: '\u001b[2J', routes: [] }]
    await assert.rejects(migrate(), { code: 'harperdb_rejected' })
  })

  it('shows texts of HarperDB without control characters', async (test) => {
    const { harper, options, migrate } = await siteWithRows(test, 1)
    harper.connections = [connection({ subscriptions: [{ ...connection().subscriptions[0], table: 'a\u001b[2J' }] })]
    options.addresses = { node2: { host: '10.0.0.2', port: 9932 } }
    const { steps } = await migrate({ compareNeighbours: false })
    const messages = steps.map(({ message }) => message).join('')
    assert.match(messages, /a\ufffd\[2J cannot be replicated/)
    assert.ok(!messages.includes('\u001b'))
  })

  it('decodes no answer that would fill the memory', async (test) => {
    const { harper } = await siteWithRows(test, 1)
    // A list of 2^32 - 1 values.
    harper.sent = Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff, ...Array(5_000_000).fill(0x80)])
    const api = new HarperApi({ ...harperLogin, url: harper.url })
    await assert.rejects(api.network(), { code: 'harperdb_rejected', message: /cannot be read: it contains more than/ })
  })
})

/** A list of as many objects as no answer may have. */
const tooLarge = Buffer.concat([Buffer.from([0xdd, 0, 0x10, 0, 0]), Buffer.alloc(2 ** 20, 0x80)])

/** Answers that match are too large to be read. */
function limitAnswers(harper: HarperHttp, isTooLarge: (records: Record<string, unknown>[]) => boolean): void {
  harper.changeAnswer = ({ get_attributes }, answer) => {
    const isWhole = Array.isArray(get_attributes) && get_attributes.includes('*')
    harper.sent = isWhole && isTooLarge(answer as Record<string, unknown>[]) ? tooLarge : undefined
    return answer
  }
}

describe('rows of which few fit into an answer', { concurrency: true, timeout: 180_000 }, () => {
  it('are imported, and looked for to be deleted', async (test) => {
    const { migrate, harper, ids } = await siteWithRows(test, 300)
    limitAnswers(harper, ({ length }) => length > 30)
    await migrate()
    harper.tables[0]!.delete(300, ROW_TIME + 1)
    const { isComplete, imported } = await migrate({ writersStopped: true })
    assert.deepEqual([isComplete, imported[0]!.deleted, ids()], [true, 1, 299])
  })

  it('are compared', async (test) => {
    const nodes = []
    for (const name of ['node1', 'node2']) {
      const harper = await HarperHttp.start(test, { name, tables: [dogs] })
      for (let id = 1; id <= 100; id++) harper.tables[0]!.put(id, { id, name }, ROW_TIME)
      limitAnswers(harper, ({ length }) => length > 30)
      nodes.push({ ...harperLogin, url: harper.url })
    }
    const [comparison] = await compareNodes({ here: nodes[0]!, there: nodes[1]!, settle: 1 })
    assert.deepEqual([comparison!.rows, comparison!.different], [[100, 100], 100])
  })

  it('are named in the error when a single one cannot be read', async (test) => {
    for (const [id, row] of [
      [1, 'the first row'],
      [8, 'the row after 7'],
    ] as const) {
      const { migrate, harper, ids } = await siteWithRows(test, 10)
      limitAnswers(harper, (records) => records.some((each) => each.id === id))
      const message = new RegExp(`the answer with ${row} of dev\\.dog cannot be read: it contains more than`)
      await assert.rejects(migrate(), { code: 'harperdb_rejected', message })
      assert.equal(ids(), id - 1)
    }
  })
})

describe('the password of the super user', { concurrency: true, timeout: 180_000 }, () => {
  async function withNeighbour(test: Test) {
    const site = await siteWithRows(test, 3)
    const neighbour = await HarperHttp.start(test, { name: 'node2', tables: [dogs] })
    for (let id = 1; id <= 3; id++) neighbour.tables[0]!.put(id, { id }, ROW_TIME)
    site.harper.connections = [connection({ ports: { operations_api: neighbour.port } })]
    site.options.addresses = { node2: { host: '127.0.0.1', port: 9932 } }
    return { ...site, neighbour }
  }

  it('is sent to the neighbours whose addresses are reported, and to none without the comparison', async (test) => {
    const { migrate, neighbour } = await withNeighbour(test)
    const sentTo = (steps: readonly { message: string }[]) =>
      steps.map(({ message }) => message).filter((each) => /password of HDB_ADMIN/.test(each))
    const without = await migrate({ compareNeighbours: false })
    assert.deepEqual([neighbour.operations, sentTo(without.steps)], [[], []])
    assert.deepEqual(
      without.compared.map(({ node }) => node),
      ['HarperDB of this node'],
    )
    const dry = await migrate({ dryRun: true })
    assert.deepEqual(neighbour.operations, [])
    assert.match(sentTo(dry.steps).join(), /would be sent to other nodes, to compare: node2 at http:.*, unencrypted$/)
    const compared = await migrate()
    assert.match(sentTo(compared.steps).join(), new RegExp(`is sent .* node2 at ${neighbour.url}`))
    assert.ok(neighbour.operations.length > 0)
  })
})

describe('an aborted signal', { concurrency: true, timeout: 180_000 }, () => {
  it('ends a migration with aborted, at whichever step it aborts', async (test) => {
    for (const step of ['configuration', 'routes', 'import', 'compare']) {
      const { migrate } = await siteWithRows(test, 3)
      const stop = new AbortController()
      const result = migrate({ signal: stop.signal, onStep: (each) => each.step === step && stop.abort() })
      await assert.rejects(result, { name: 'ClusterError', code: 'aborted' }, step)
    }
  })

  it('ends a comparison with aborted, also while it waits', async (test) => {
    const [here, there] = [
      await HarperHttp.start(test, { name: 'node1', tables: [dogs] }),
      await HarperHttp.start(test, { name: 'node2', tables: [dogs] }),
    ]
    here.tables[0]!.put(1, { id: 1 }, ROW_TIME)
    const stop = new AbortController()
    there.beforeAnswer = ({ operation }) => {
      if (operation === 'search_by_hash') setImmediate(() => stop.abort(new Error('enough')))
    }
    const logins = { here: { ...harperLogin, url: here.url }, there: { ...harperLogin, url: there.url } }
    await assert.rejects(compareNodes({ ...logins, settle: 60_000, signal: stop.signal }), {
      name: 'ClusterError',
      code: 'aborted',
    })
  })
})
