// The command of the reference host that migrates a node, as an operator sees it: what the guide shows, and what goes wrong.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { clusterPassword, temporaryDirectory } from '../support/cluster.ts'
import { HarperClusterNode } from '../support/harper-cluster-node.ts'
import { harperLogin } from '../support/harper-http.ts'
import { programArguments } from '../support/program.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const passwords = { HARPERDB_PASSWORD: harperLogin.password, CLUSTER_PASSWORD: clusterPassword }

async function run(args: readonly string[], env: NodeJS.ProcessEnv = passwords) {
  const command = [...programArguments('host/migrate.ts'), ...args]
  const child = spawn(process.execPath, command, { cwd: root, env: { ...process.env, ...env } })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  const [code] = await once(child, 'close')
  return { code, output }
}

/** Lines without what differs from one cluster to another. */
const shapes = (text: string) =>
  new Set(
    text
      .split('\n')
      .filter((line) => /^(ok|warning|problem) +[a-z]+: /.test(line))
      .map((line) =>
        line
          .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
          .replaceAll(/(https?:\/\/)?\d+\.\d+\.\d+\.\d+:\d+/g, 'ADDRESS')
          .replaceAll(/digest [0-9a-f]+/g, 'DIGEST')
          .replaceAll(/\/[\w./-]+/g, 'PATH')
          .replaceAll(/\d+(\.\d+)*/g, 'N'),
      ),
  )

test('the command prints what the guide shows', { timeout: 60_000 }, async (t) => {
  const [directory, remove] = await temporaryDirectory()
  const nodes: HarperClusterNode[] = []
  t.after(async () => {
    for (const node of nodes) await node.stop()
    await remove()
  })
  for (const name of ['node1', 'node2', 'node3']) nodes.push(await HarperClusterNode.create(t, directory, name))
  const [node1, node2] = nodes as [HarperClusterNode, HarperClusterNode]
  for (const node of nodes)
    await node.start(
      t,
      node === node1 ? [] : [node1],
      nodes.filter((each) => each !== node),
    )
  for (const { rows } of nodes) for (let id = 1; id <= 500; id++) rows.put(id, { id, name: 'Rex' }, 1_700_000_000_000)

  const migration = ['--harperdb', node1.configFile, '--directory', join(directory, 'new')]
  const wrong = await run([...migration, '--dry-run'], { ...passwords, CLUSTER_PASSWORD: 'wrong' })
  assert.equal(wrong.code, 1)
  assert.match(wrong.output, /rejects the password of cluster user cluster_user/)

  const dry = await run([...migration, '--dry-run'])
  assert.deepEqual([dry.code, (await readdir(directory)).includes('new')], [0, false], dry.output)
  const first = await run(migration)
  const last = await run([...migration, '--final'])
  const comparison = await run(['compare', node1.http.url, node2.http.url])
  for (const { code, output } of [first, last, comparison]) assert.equal(code, 0, output)

  const shown = shapes(await readFile(join(root, 'lib/migrate/README.md'), 'utf8'))
  const printed = shapes([dry, first, last, comparison].map(({ output }) => output).join('\n'))
  assert.deepEqual(
    [...shown].filter((line) => !printed.has(line)),
    [],
  )
  assert.deepEqual(
    [...printed].filter((line) => !shown.has(line)),
    [],
  )
  for (const { output } of [wrong, dry, first, last, comparison])
    for (const secret of Object.values(passwords)) assert.ok(!output.includes(secret), 'a password was printed')

  node2.rows.put(1, { id: 1, name: 'Max' }, 1_700_000_000_001)
  const differs = await run(['compare', node1.http.url, node2.http.url])
  assert.equal(differs.code, 1)
  assert.match(differs.output, /problem compare: dev\.dog differs.*1 differ\n {8}"1"\n/)
})

test('a wrong command line is explained', async () => {
  for (const [args, message, env] of [
    [[], /--harperdb and --directory are required/],
    [['dance'], /Unknown command 'dance'/],
    [['--harperdb', 'x', '--directory', 'y', '--address', 'node2'], /--address must be NODE=/],
    [['--harperdb', 'x', '--directory', 'y'], /CLUSTER_PASSWORD is not set/, { ...passwords, CLUSTER_PASSWORD: '' }],
  ] as const) {
    const { code, output } = await run(args, env)
    assert.equal(code, 1)
    assert.match(output, message)
    assert.match(output, /Usage: npm run migrate/)
  }
  assert.ok(!existsSync('y'), 'nothing was created')
})
