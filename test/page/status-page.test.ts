// The status page in real browsers, on clusters in memory: faults are seen when they happen and when they are over. `npm run test:page`;
// with the variable SCREENSHOTS, a directory, the pictures of the README are written there.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import type { Page } from 'playwright-core'
import { statusPage } from '../../lib/status-page.ts'
import { type OpenedBrowser, openBrowsers } from '../support/browsers.ts'
import { peerLinks, StatusView } from '../support/status-view.ts'
import { keepWriting, listen, openScene, openTab, serve } from './scene.ts'

const TIMEOUT_MS = 15_000

const condition = (tab: Page, code: string) => tab.locator(`.conditions [data-code="${code}"]`)
const eventLine = (tab: Page, text: string) => tab.locator('.events li', { hasText: text }).first()
const nodeOf = (tab: Page, name: string) => tab.locator(`#mesh [data-node="${name}"]`)
const link = (tab: Page, ends: string) => tab.locator(`#mesh [data-link="${ends}"] .link`)
const row = (tab: Page, table: string, node: string) =>
  tab.locator('#tables tbody tr', { hasText: table }).filter({ hasText: node })
const seen = { timeout: TIMEOUT_MS }
/** A horizontal line has no height: it does not count as visible. */
const attached = { state: 'attached', timeout: TIMEOUT_MS } as const
const gone = { state: 'detached', timeout: TIMEOUT_MS } as const

/** Where the pictures of the README are written. */
const directory = process.env.SCREENSHOTS

async function screenshot(tab: Page, name: string): Promise<void> {
  // Firefox reports the style that hides the caret in a picture.
  if (!directory || tab.context().browser()?.browserType().name() !== 'chromium') return
  await tab.evaluate('scrollTo(0, 0)')
  await tab.screenshot({ path: join(directory, `${name}.png`), animations: 'disabled' })
}

const title = ({ name }: OpenedBrowser) => `the status page in ${name}`

for (const opened of await openBrowsers()) {
  describe(title(opened), { skip: opened.problem ?? false, timeout: 240_000 }, () => {
    const browser = opened.browser!
    after(() => browser.close())

    it('shows that a node goes down and comes back, that a table stalls and recovers, and who is behind', async (t) => {
      const { network, nodes, node, site } = await openScene(t, 4)
      const stop = keepWriting(nodes, 8)
      t.after(stop)
      const { tab, faults } = await openTab(t, browser, site.url, { colorScheme: 'light' })
      await tab.getByText('Nothing: all that is configured works.').waitFor(seen)
      await nodeOf(tab, 'node4').and(tab.locator('.is-good')).waitFor(seen)
      // A picture of the history needs some.
      if (directory) await tab.waitForTimeout(40_000)

      network.crash('node3', { silent: true })
      await condition(tab, 'peer_down').getByText('no heartbeat of node3').waitFor(seen)
      await nodeOf(tab, 'node3').and(tab.locator('.is-error')).waitFor(seen)
      await eventLine(tab, 'node is down').waitFor(seen)
      assert.ok((await tab.locator('#mesh .link.is-broken').count()) > 0)
      // The links of other nodes with it too, as those nodes describe them.
      await link(tab, 'node2 node3').and(tab.locator('.is-broken')).first().waitFor(attached)
      await link(tab, 'node2 node4').and(tab.locator(':not(.is-broken)')).first().waitFor(attached)

      node('node1').host.beforeApply = ({ source }) => {
        if (source.node === 'node2' && source.table === 'dog') throw new Error('the disk is full')
      }
      const stalled = condition(tab, 'subscription_stalled')
      await stalled.getByText('the disk is full').waitFor(seen)
      await stalled.getByText('cluster.quarantine.add()').waitFor(seen)
      await row(tab, 'dev.dog', 'node2').getByText('■ stalled').waitFor(seen)
      if (directory) await tab.waitForTimeout(8_000)
      await screenshot(tab, 'status-page')
      await row(tab, 'dev.dog', 'node2').locator('button').click()
      await tab.locator('tr.detail dd', { hasText: 'the disk is full' }).waitFor(seen)

      node('node1').host.beforeApply = undefined
      await stalled.waitFor(gone)
      await row(tab, 'dev.dog', 'node2').getByText('● live').waitFor(seen)
      network.restart('node3')
      await condition(tab, 'peer_down').waitFor(gone)
      await eventLine(tab, 'node is up').waitFor(seen)
      await tab.locator('#mesh .link.is-broken').first().waitFor(gone)
      assert.deepEqual(faults, [])
    })

    it('shows a gap that is not repaired, and what to do', async (t) => {
      const { network, node, site } = await openScene(t, 2, { readRows: false })
      const { tab, faults } = await openTab(t, browser, site.url)
      await node('node2').host.insert('dev', 'dog', { id: 1 })
      network.cut('node1', 'node2')
      for (let id = 2; id < 10; id++) await node('node2').host.insert('dev', 'dog', { id })
      await node('node2').cluster.purgeStream({ database: 'dev', table: 'dog' })
      network.heal('node1', 'node2')
      await node('node2').host.insert('dev', 'dog', { id: 10 })
      const gap = condition(tab, 'gap_not_repaired')
      await gap.getByText('dev.dog of node2').waitFor(seen)
      await gap.getByText('cluster.copy(source)').waitFor(seen)
      await eventLine(tab, 'gap (purged): 8 transactions lost').waitFor(seen)
      await row(tab, 'dev.dog', 'node2').getByText('1 gap').waitFor(seen)
      assert.deepEqual(faults, [])
    })

    it('shows a copy while it runs, and when it has ended', async (t) => {
      const { node, site } = await openScene(t, 2, { unsubscribed: ['photo'] })
      for (let id = 0; id < 3_000; id += 100)
        await node('node2').host.insert(
          'dev',
          'photo',
          ...Array.from({ length: 100 }, (_, index) => ({ id: id + index })),
        )
      const { tab, faults } = await openTab(t, browser, site.url)
      let release = () => {}
      const held = new Promise<void>((resolve) => {
        release = resolve
      })
      node('node1').host.beforeApply = ({ transactions }) => (transactions.length > 0 ? held : undefined)
      await node('node1').cluster.updateNode({
        node_name: 'node2',
        subscriptions: [{ database: 'dev', table: 'photo', publish: false, subscribe: true }],
      })
      await row(tab, 'dev.photo', 'node2').getByText('⇊ copying').waitFor(seen)
      release()
      await eventLine(tab, '3,000 rows copied').waitFor(seen)
      await row(tab, 'dev.photo', 'node2').getByText('● live').waitFor(seen)
      assert.deepEqual(faults, [])
    })

    it('has the history of the time before it was opened, and continues after the server was away', async (t) => {
      const source = new StatusView()
      const site = await serve(t, source.view)
      // Samples are two seconds apart.
      for (let samples = 0; samples < 4; await tick())
        samples = ((await (await fetch(`${site.url}history.json`)).json()) as { times: number[] }).times.length
      const { tab, faults } = await openTab(t, browser, site.url)
      const line = await tab.locator('#history path.first').first().getAttribute('d')
      assert.ok(line!.split('L').length >= 3, line!)
      const { port } = new URL(site.url)
      site.close()
      await tab.getByText('no connection').waitFor(seen)
      const again = await serve(t, source.view)
      again.server.close()
      again.server.closeAllConnections()
      again.server.listen(Number(port), '127.0.0.1')
      await tab.locator('#connection', { hasText: '● live' }).waitFor(seen)
      assert.deepEqual(faults, [])
    })

    it('connects again after the server has vanished without ending the connection', async (t) => {
      const source = new StatusView()
      const page = statusPage(source.view)
      t.after(() => page.close())
      let streams = 0
      let resolve = () => {}
      const connectedAgain = new Promise<void>((resolvePromise) => {
        resolve = resolvePromise
      })
      const server = createServer((request, response) => {
        page(request, response)
        if (request.url !== '/events') return
        if (streams++ > 0) return resolve()
        setTimeout(() => {
          response.write = () => true
        }, 1_000)
      })
      const url = await listen(t, server)
      const { tab, faults } = await openTab(t, browser, url)
      await connectedAgain
      await tab.locator('#connection', { hasText: '● live' }).waitFor(seen)
      assert.deepEqual(faults, [])
    })

    it('shows names and reasons as text, and runs no script that is not its own', async (t) => {
      const hostile = '<img src=x onerror="window.taken=1"><script>window.taken=1</script>'
      const source = new StatusView({ peers: [hostile, 'b"onload="window.taken=1'], tables: [hostile] })
      source.degraded = [{ code: 'peer_down', node: hostile, message: hostile }]
      Object.assign(source.statuses[0]!, { state: 'stalled', error: hostile })
      const message = {
        ...source.statuses[0]!,
        epoch: 'e',
        index: 1,
        count: 1,
        sequence: 1,
        reason: hostile,
        cause: 'content',
      }
      source.quarantined = [{ ...message, storedAt: 0, quarantinedAt: 0, bytes: 1 } as never]
      const { url } = await serve(t, source.view)
      const { tab, faults } = await openTab(t, browser, url)
      source.emit('peer:down', { node: hostile, reason: hostile })
      await eventLine(tab, hostile).waitFor(seen)
      await tab.locator('#tables tbody button').first().click()
      await tab.locator('tr.detail dd', { hasText: hostile }).waitFor(seen)
      await tab.locator('#quarantine', { hasText: hostile }).waitFor(seen)
      assert.equal(await tab.locator('main img, main script').count(), 0)
      assert.equal(await tab.evaluate('window.taken'), undefined)
      assert.deepEqual(faults, [])
      // The policy holds even if something were inserted.
      await tab.evaluate(`
      document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.taken=1">')
      document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.taken=1' }))
    `)
      await tab.waitForTimeout(200)
      assert.equal(await tab.evaluate('window.taken'), undefined)
    })

    it('can be used by keyboard alone', async (t) => {
      const peers = ['node2', 'node3', 'node4']
      const source = new StatusView({ peers, tables: ['cat', 'dog'] })
      source.linksOf = (node) => peerLinks(peers.filter((peer) => peer !== node))
      const { url } = await serve(t, source.view)
      const { tab, faults } = await openTab(t, browser, url)
      await nodeOf(tab, 'node2').waitFor(seen)
      const focused = () =>
        tab.evaluate<string>(
          '(({ id, dataset, textContent }) => id || dataset.node || textContent)(document.activeElement)',
        )
      const order: unknown[] = []
      for (let press = 0; press < 8; press++) {
        await tab.keyboard.press('Tab')
        order.push(await focused())
      }
      assert.deepEqual(order, [
        'Skip to what needs attention',
        'Skip to the tables',
        'theme',
        'node2',
        'search',
        'show',
        'State',
        'Table',
      ])
      await nodeOf(tab, 'node2').focus()
      await tab.keyboard.press('ArrowRight')
      assert.equal(await focused(), 'node3')
      await tab.keyboard.press('End')
      assert.equal(await focused(), 'node4')
      await tab.keyboard.press('Enter')
      assert.equal(await nodeOf(tab, 'node4').getAttribute('aria-selected'), 'true')
      await tab.getByText('2 of 6 tables of node4').waitFor(seen)
      await tab.getByText('node4: live; from it').waitFor(seen)
      await tab.getByText(/^from node2: (0\/s, )?behind 0; to node2: (0\/s, )?behind 0$/).waitFor(seen)
      await tab.keyboard.press('Escape')
      await tab.getByText('6 of 6 tables').waitFor(seen)
      const button = tab.locator('#tables tbody button').first()
      await button.focus()
      await tab.keyboard.press('Enter')
      assert.equal(await button.getAttribute('aria-expanded'), 'true')
      // The focus stays while the page changes.
      const { length } = source.statuses
      for (let index = 0; index < length; index++) source.statuses[index]!.lag = index
      source.emit('peer:up', { node: 'node2' })
      await eventLine(tab, 'node is up').waitFor(seen)
      assert.equal(await tab.evaluate('document.activeElement.getAttribute("aria-expanded")'), 'true')
      await tab.locator('th[data-sort="lag"] button').focus()
      await tab.keyboard.press('Enter')
      assert.equal(await tab.locator('th[data-sort="lag"]').getAttribute('aria-sort'), 'descending')
      assert.deepEqual(faults, [])
    })

    it('is light or dark as the system says or as it is chosen, and remembers the choice', async (t) => {
      const { url } = await serve(t, new StatusView().view)
      const { tab } = await openTab(t, browser, url, { colorScheme: 'dark' })
      const background = () => tab.evaluate<string>('getComputedStyle(document.body).backgroundColor')
      await tab.locator('#theme').selectOption('dark')
      const dark = await background()
      await tab.locator('#theme').selectOption('light')
      const light = await background()
      assert.notEqual(light, dark)
      await tab.reload()
      assert.equal(await background(), light)
      await tab.locator('#theme').selectOption('auto')
      if (!opened.isFullyControlled) return
      assert.equal(await background(), dark)
      await tab.emulateMedia({ colorScheme: 'light' })
      assert.equal(await background(), light)
    })

    it('fits a screen of 360 pixels', async (t) => {
      const source = troubledView()
      const { url } = await serve(t, source.view)
      const { tab, faults } = await openTab(t, browser, url, {
        viewport: { width: 360, height: 800 },
        colorScheme: 'dark',
      })
      await condition(tab, 'peer_down').waitFor(seen)
      await tab.locator('#tables tbody button').first().click()
      await tab.locator('tr.detail').waitFor(seen)
      const widest = await tab.evaluate<number>(`Math.max(
      document.documentElement.scrollWidth,
      ...[...document.querySelectorAll('main *')].map((element) => element.getBoundingClientRect().right),
    )`)
      assert.ok(widest <= 360, `${widest} pixels`)
      await screenshot(tab, 'status-page-narrow')
      assert.deepEqual(faults, [])
    })

    it('stays readable and quick with 100 nodes and 1,000 subscriptions', async (t) => {
      const source = troubledView(100, 10)
      const peers = source.view.peers().map(({ node }) => node)
      source.linksOf = (node) =>
        peerLinks(
          peers.filter((peer) => peer !== node),
          (link) => {
            link.up = link.node !== 'node3' && !(node === 'node40' && link.node === 'node50')
          },
        )
      const { url } = await serve(t, source.view)
      const { tab, faults } = await openTab(t, browser, url)
      await tab.getByText('1,000 of 1,000 tables').waitFor(seen)
      assert.equal(await tab.locator('#mesh .node[data-node]').count(), 100)
      assert.equal(await tab.locator('#tables tbody tr').count(), 100)
      const names = tab.locator('#mesh .node[data-node] text:not(.mark):not([display])').filter({ hasText: 'node' })
      assert.deepEqual((await names.allTextContents()).sort(), ['node2', 'node3'])
      // Links between other nodes are shown where something is wrong that the nodes themselves do not show.
      await tab.locator('#mesh [data-link]').first().waitFor(attached)
      assert.equal(await tab.locator('#mesh [data-link]').count(), 2)
      if (opened.isFullyControlled) {
        const share = await processorShare(tab, () => {
          source.committed += 50
          for (const status of source.statuses) {
            source.apply(status, 1 + Math.floor(Math.random() * 100))
            status.lag = Math.random() < 0.2 ? 7 : 0
          }
        })
        assert.ok(share < 0.05, `${(share * 100).toFixed(1)} % of a core`)
      }
      await tab.locator('#search').fill('node77')
      await tab.getByText('10 of 1,000 tables').waitFor(seen)
      assert.deepEqual(faults, [])
    })
  })
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 100))

/** Of a core, in the main thread of the page, for eight seconds in which `change` is called twice a second. */
async function processorShare(tab: Page, change: () => void): Promise<number> {
  const session = await tab.context().newCDPSession(tab)
  await session.send('Performance.enable', { timeDomain: 'threadTicks' })
  const processorSeconds = async () => {
    const { metrics } = await session.send('Performance.getMetrics')
    return metrics.find(({ name }) => name === 'TaskDuration')!.value
  }
  const [before, started] = [await processorSeconds(), performance.now()]
  const changes = setInterval(change, 500)
  await tab.waitForTimeout(8_000)
  clearInterval(changes)
  return ((await processorSeconds()) - before) / ((performance.now() - started) / 1_000)
}

/** Nodes of which one is down and one has a table that stalls. */
function troubledView(peers = 3, tables = 3): StatusView {
  const source = new StatusView({
    peers: Array.from({ length: peers }, (_, index) => `node${index + 2}`),
    tables: Array.from({ length: tables }, (_, index) => (index === 0 ? 'dog' : `table${index}`)),
  })
  Object.assign(source.statuses[0]!, { state: 'stalled', error: 'the disk is full', lag: 1_234, lagSeconds: 56 })
  source.down.add('node3')
  source.degraded = [
    { code: 'peer_down', node: 'node3', message: 'no heartbeat of node3' },
    { code: 'subscription_stalled', ...source.statuses[0]!.source, message: 'the disk is full' },
  ]
  return source
}
