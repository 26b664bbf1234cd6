// The files of the status page: their pure functions, and what none of them may contain.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { Arrivals } from '../../lib/status-page/page/arrivals.mjs'
import { groupConditions } from '../../lib/status-page/page/attention.mjs'
import { linePath, niceHighest } from '../../lib/status-page/page/charts.mjs'
import {
  formatCode,
  formatCount,
  formatLag,
  formatPlace,
  formatRate,
  formatSeconds,
} from '../../lib/status-page/page/format.mjs'
import { labelLines, labelX, layOut, linkPath, linkWidth } from '../../lib/status-page/page/layout.mjs'
import { describePeer, linkClass } from '../../lib/status-page/page/mesh.mjs'
import { describeLinks, peerLinkClass } from '../../lib/status-page/page/mesh-links.mjs'
import { chooseRows, needsAttention } from '../../lib/status-page/page/table-rows.mjs'
import type { LinkRow, PeerRow, TableRow } from '../../lib/status-page.ts'

const page = new URL('../../lib/status-page/page/', import.meta.url)

test('no file of the page makes HTML of text, loads anything from elsewhere, or has inline code or styles', async () => {
  const names = (await readdir(page)).filter((name) => /\.(mjs|html|css|svg)$/.test(name))
  for (const name of names) {
    const text = await readFile(new URL(name, page), 'utf8')
    assert.doesNotMatch(
      text,
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc/,
      name,
    )
    assert.doesNotMatch(text.replaceAll('http://www.w3.org/2000/svg', ''), /https?:\/\//, name)
    assert.doesNotMatch(text, /<[^>]+\s(?:on\w+|style)=/, name)
    for (const [, imported] of text.matchAll(/^import .* from '([^']+)'/gm))
      assert.ok(names.includes(imported!.slice(2)), `${name}: ${imported}`)
    for (const [, linked] of text.matchAll(/(?:href|src)="([^"#][^"]*)"/g))
      assert.ok(names.includes(linked!), `${name}: ${linked}`)
  }
})

test('every element of the document that a script asks for is there', async () => {
  const html = await readFile(new URL('index.html', page), 'utf8')
  for (const name of await readdir(page))
    for (const [, id] of (await readFile(new URL(name, page), 'utf8')).matchAll(/byId\('([^']+)'\)/g))
      assert.ok(html.includes(`id="${id}"`), `${name}: ${id}`)
})

test('nodes of the picture do not cover each other, whatever their number', () => {
  for (const count of [1, 2, 3, 6, 7, 14, 20, 21, 40, 100, 200]) {
    const { local, spots, viewBox } = layOut(count)
    assert.equal(spots.length, count)
    const all = [local, ...spots]
    for (const [index, one] of all.entries())
      for (const other of all.slice(index + 1)) {
        const distance = Math.hypot(one.x - other.x, one.y - other.y)
        assert.ok(distance > one.radius + other.radius + 4, `${count} nodes: distance ${distance}`)
      }
    const [x, y, width, height] = viewBox.split(' ').map(Number) as [number, number, number, number]
    for (const spot of spots) {
      assert.ok(spot.x - spot.radius > x && spot.x + spot.radius < x + width, `${count}`)
      assert.ok(spot.y - spot.radius > y && spot.y + spot.radius < y + height, `${count}`)
    }
  }
})

test('no link between few nodes passes through a third one', () => {
  for (let count = 1; count <= 20; count++) {
    const { local, spots } = layOut(count)
    const all = [local, ...spots]
    for (const one of all)
      for (const other of all)
        for (const third of all) {
          if (new Set([one, other, third]).size < 3) continue
          const [dx, dy] = [other.x - one.x, other.y - one.y]
          const aside = Math.abs((third.x - one.x) * dy - (third.y - one.y) * dx) / Math.hypot(dx, dy)
          const along = ((third.x - one.x) * dx + (third.y - one.y) * dy) / (dx * dx + dy * dy)
          assert.ok(along < 0 || along > 1 || aside > third.radius, `${count} nodes: ${aside} beside the middle`)
        }
  }
})

test('names of nodes stand on the side away from the middle', () => {
  const above = labelLines({ x: 0, y: -150, radius: 20 }, 3)
  assert.ok(
    above.every((y, index) => y < -170 && (index === 0 || y > above[index - 1]!)),
    String(above),
  )
  const below = labelLines({ x: 0, y: 150, radius: 20 }, 3)
  assert.ok(
    below.every((y, index) => y > 170 && (index === 0 || y > below[index - 1]!)),
    String(below),
  )
})

test('names at the sides stand further outside than their nodes', () => {
  assert.deepEqual(
    [
      { x: -150, y: 0, radius: 20 },
      { x: 0, y: 150, radius: 20 },
    ].map(labelX),
    [-168, 0],
  )
})

test('the two directions of a link are beside each other, and wider with more transactions', () => {
  const [one, other] = [
    { x: 0, y: 0, radius: 10 },
    { x: 100, y: 0, radius: 10 },
  ]
  assert.equal(linkPath(one, other, 5).path, 'M14.0 5.0 L85.0 5.0')
  assert.equal(linkPath(other, one, 5).path, 'M86.0 -5.0 L15.0 -5.0')
  assert.ok(linkWidth(0, 7) < linkWidth(100, 7) && linkWidth(1e9, 7) <= 7)
})

const flow = { tables: 1, rate: 0, lag: 0, lagSeconds: 0 }
const peer: PeerRow = { node: 'node2', up: true, tables: 1, received: flow, sent: flow, state: 'live' }

test('a link shows whether it is interrupted, behind or idle', () => {
  assert.equal(linkClass(peer, 'in', { ...flow, rate: 5 }), 'link in')
  assert.equal(linkClass(peer, 'in', flow), 'link in is-idle')
  assert.equal(linkClass(peer, 'out', { ...flow, lag: 5 }), 'link out is-behind')
  assert.equal(linkClass({ ...peer, up: false }, 'out', flow), 'link out is-broken')
  assert.equal(linkClass({ ...peer, state: 'stalled' }, 'in', flow), 'link in is-broken')
  assert.equal(linkClass({ ...peer, state: 'stalled' }, 'out', flow), 'link out is-idle')
  assert.equal(describePeer(peer), 'node2: live; from it 0/s, behind here 0; to it 0/s, behind there 0')
})

const link: LinkRow = { from: 'node2', to: 'node3', state: 'live', tables: 1, rate: 4, lag: 0, lagSeconds: 0 }

test('a link between other nodes shows its state, also one that only a later version knows', () => {
  assert.equal(peerLinkClass(link), 'link peer')
  const { rate: _rate, ...unknownRate } = link
  assert.equal(peerLinkClass(unknownRate), 'link peer is-idle')
  assert.equal(peerLinkClass({ ...link, rate: 0, lag: 3 }), 'link peer is-behind')
  assert.equal(peerLinkClass({ ...link, state: 'catching-up' }), 'link peer is-behind')
  assert.equal(peerLinkClass({ ...link, state: 'hesitating' }), 'link peer is-behind')
  assert.equal(peerLinkClass({ ...link, state: 'down' }), 'link peer is-broken')
})

test('the links of a node with other nodes are described one by one', () => {
  const links: LinkRow[] = [
    { ...link, lag: 7, lagSeconds: 3, state: 'catching-up' },
    { ...link, from: 'node3', to: 'node2' },
    { ...link, from: 'node4' },
  ]
  assert.deepEqual(describeLinks('node2', links), [
    'from node3: 4.0/s, behind 0; to node3: catching up, 4.0/s, behind 7 (3.0 s)',
  ])
  assert.equal(describeLinks('node3', links).length, 2)
  assert.deepEqual(describeLinks('node9', links), [])
})

test('a chart leaves out what is missing or older than its span, and its scale is round', () => {
  const line = { label: '', times: [0, 58_000, 60_000, 62_000, 90_000, 92_000], values: [9, 1, null, 3, 4, 99] }
  const path = linePath(line, { end: 92_000, span: 60_000, highest: 10 })
  assert.equal(path, 'M130.0 54.0L150.0 42.0M290.0 36.0L300.0 0.0')
  for (const [highest, expected] of [
    [0, 1],
    [0.3, 0.5],
    [1, 1],
    [3, 5],
    [51, 100],
    [999, 1_000],
    [1_001, 2_000],
  ] as const)
    assert.equal(niceHighest([{ ...line, values: [highest, null] }]), expected)
})

const row = (node: string, table: string, received: object = {}): TableRow => ({
  ...{ node, database: 'dev', table },
  received: { state: 'live', lag: 0, lagSeconds: 0, gaps: 0, lost: 0, quarantined: 0, copied: 0, rate: 0, ...received },
})
const all = { search: '', show: 'all', node: undefined, sort: 'state', isDescending: false }

test('tables that need attention come first, and can be searched, filtered and sorted', () => {
  const rows = [
    row('node2', 'table10'),
    row('node2', 'table9', { lag: 5 }),
    row('node3', 'table1', { state: 'stalled' }),
    row('node3', 'cats', { quarantined: 1 }),
  ]
  let down = new Set<string>()
  const names = (choice: object) => chooseRows(rows, { ...all, ...choice }, down).map(({ table }) => table)
  assert.deepEqual(names({}).slice(0, 2), ['table1', 'cats'])
  assert.deepEqual(names({ search: 'NODE3 tab' }), ['table1'])
  assert.deepEqual(names({ search: 'stalled' }), ['table1'])
  assert.deepEqual(names({ show: 'attention' }), ['table1', 'cats'])
  assert.deepEqual(names({ show: 'behind' }), ['table9'])
  assert.deepEqual(names({ node: 'node2', sort: 'table' }), ['table9', 'table10'])
  assert.deepEqual(names({ sort: 'lag', isDescending: true })[0], 'table9')
  assert.deepEqual(
    rows.map((each) => needsAttention(each, down)),
    [false, false, true, true],
  )
  // A subscription stays live while its node is down.
  down = new Set(['node2'])
  assert.deepEqual(names({ search: 'down' }), ['table10', 'table9'])
  assert.deepEqual(names({ show: 'attention' }).length, 4)
})

test('conditions are grouped by code, and those that hold replication up come first', () => {
  const condition = (code: string, node: string) => ({ code, node, message: '', advice: 'do it' }) as never
  const groups = groupConditions([
    condition('server_exposed', 'a'),
    condition('peer_down', 'a'),
    condition('subscription_stalled', 'b'),
    condition('peer_down', 'b'),
  ])
  assert.deepEqual(
    groups.map(({ code, isSerious, conditions }) => [code, isSerious, conditions.length]),
    [
      ['subscription_stalled', true, 1],
      ['peer_down', true, 2],
      ['server_exposed', false, 1],
    ],
  )
})

test('numbers and times are short', () => {
  assert.deepEqual([0, 950, 99_999, 123_456, 1_250_000, 3e9].map(formatCount), [
    '0',
    '950',
    '99,999',
    '123 k',
    '1.3 M',
    '3.0 G',
  ])
  assert.deepEqual([0, 0.01, 2.5, 1_200].map(formatRate), ['0/s', '<0.1/s', '2.5/s', '1,200/s'])
  assert.deepEqual([0, 0.05, 3, 90, 600, 10_000, 1e6].map(formatSeconds), [
    '0 s',
    '<0.1 s',
    '3.0 s',
    '90 s',
    '10 min',
    '3 h',
    '12 d',
  ])
  assert.deepEqual([formatLag(0, 5), formatLag(7, 0), formatLag(7, 2)], ['0', '7', '7 (2.0 s)'])
  assert.equal(formatCode('peer_down'), 'Peer down')
  assert.deepEqual(
    [formatPlace({}), formatPlace({ node: 'n' }), formatPlace({ database: 'd', table: 't' })],
    ['', 'n', 'd.t'],
  )
})

test('on a slow link the page waits for its first snapshot, and later as long as that took', () => {
  const slow = new Arrivals(0)
  assert.deepEqual([slow.isLost(8_000), slow.isLost(8_001)], [false, true])
  slow.opened(1_000)
  assert.deepEqual(
    [slow.isReceiving, slow.isLive(60_000), slow.isLost(60_000), slow.isLost(122_000)],
    [true, false, false, true],
  )
  slow.received(21_000)
  assert.deepEqual([slow.isReceiving, slow.isLive(69_000), slow.isLost(69_001)], [false, true, true])
  const quick = new Arrivals(0)
  quick.opened(10)
  quick.received(20)
  quick.received(2_020)
  assert.deepEqual([quick.isLive(10_000), quick.isLive(10_100), quick.isLost(10_100)], [true, false, true])
})
