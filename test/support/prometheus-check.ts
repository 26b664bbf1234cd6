// A real Prometheus scrapes two nodes of the example: its alerts are loaded and one fires, and it answers every query of the dashboard.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually, freePorts, MemoryNetwork } from '../../lib/testing.ts'
import { startNode } from '../examples/deploy/server.ts'
import { readSettings } from '../examples/deploy/settings.ts'

const TIMEOUT_MS = 60_000
const silent = { debug() {}, info() {}, warn() {}, error() {} }

type Rule = { name: string; state: string; health: string; lastError?: string }
type Target = { expr: string }
type Answer<Data> = { status: string; error?: string; data: Data }

async function openNodes(directory: string) {
  const network = new MemoryNetwork({ nodes: ['a', 'b'] })
  const open = async (nodeName: string) => {
    const environment = {
      ...{ CLUSTER_PASSWORD: 'password', API_TOKEN: 'token' },
      ...{ NODE_NAME: nodeName, NODES: 'a b', DATA_DIRECTORY: join(directory, nodeName) },
    }
    const settings = { ...readSettings(environment), port: 0 }
    return startNode(settings, { mesh: network.mesh(nodeName), logger: silent })
  }
  return Promise.all(['a', 'b'].map(open))
}

/** The rules of `directory`, without the time for which a condition must hold. */
async function writeConfiguration(directory: string, examples: string, ports: readonly number[]): Promise<string> {
  const rules = await readFile(join(examples, 'alerts.yaml'), 'utf8')
  await writeFile(join(directory, 'alerts.yaml'), rules.replaceAll(/^ +for: .*\n/gm, ''))
  const file = join(directory, 'prometheus.yaml')
  const targets = ports.map((port) => `127.0.0.1:${port}`)
  await writeFile(
    file,
    JSON.stringify({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: ['alerts.yaml'],
      scrape_configs: [{ job_name: 'enmesh', static_configs: [{ targets }] }],
    }),
  )
  return file
}

async function queriesOf(examples: string): Promise<string[]> {
  const { panels } = JSON.parse(await readFile(join(examples, 'grafana-dashboard.json'), 'utf8')) as {
    panels: { targets?: Target[] }[]
  }
  return panels.flatMap(({ targets = [] }) =>
    targets.map(({ expr }) => expr.replaceAll('$node', '.*').replaceAll('$__rate_interval', '10s')),
  )
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill()
  await exited
}

/** `command`: the binary of Prometheus. Resolves with the faults. */
export async function checkPrometheus(command: string, directory: string, examples: string): Promise<string[]> {
  const nodes = await openNodes(directory)
  const [one, two] = nodes
  const [port] = await freePorts(1)
  const config = await writeConfiguration(
    directory,
    examples,
    nodes.map((node) => node.port),
  )
  const storage = `--storage.tsdb.path=${join(directory, 'prometheus-data')}`
  const args = [`--config.file=${config}`, storage, `--web.listen-address=127.0.0.1:${port}`]
  const child = spawn(command, args, { cwd: directory, stdio: 'ignore' })
  child.on('error', () => {}) // It answers nothing, then.
  const ask = async <Data>(path: string): Promise<Answer<Data>> =>
    (await fetch(`http://127.0.0.1:${port}/api/v1/${path}`)).json() as Promise<Answer<Data>>
  const query = (text: string) => ask<{ result: unknown[] }>(`query?query=${encodeURIComponent(text)}`)
  const rules = async () => (await ask<{ groups: { rules: Rule[] }[] }>('rules')).data.groups[0]!.rules
  const isUp = async () => (await query('up{job="enmesh"} == 1').catch(() => undefined))?.data.result.length === 2
  try {
    await eventually('Prometheus scrapes both nodes', isUp, TIMEOUT_MS)
    const queries = await queriesOf(examples)
    // Delays and rates need transactions between two scrapes.
    const unanswered = async () => {
      await one!.host.commit([{ operation: 'upsert', database: 'dev', table: 'dog', records: [{ id: '1' }] }])
      const answers = await Promise.all(queries.map(query))
      return queries.filter((_, index) => !answers[index]!.data?.result.length)
    }
    const faults: string[] = []
    await eventually(
      'every query of the dashboard has an answer',
      async () => (await unanswered()).length === 0,
      TIMEOUT_MS,
    ).catch(async () => faults.push(...(await unanswered()).map((each) => `no answer to ${each}`)))
    await two!.close()
    const isFiring = async () =>
      (await rules()).some(({ name, state }) => name === 'EnmeshNodeDown' && state === 'firing')
    await eventually('the alert fires', isFiring, TIMEOUT_MS)
    for (const { name, health, lastError } of await rules())
      if (health !== 'ok') faults.push(`alert ${name}: ${health} ${lastError}`)
    return faults
  } finally {
    await end(child)
    for (const node of nodes) await node.close()
  }
}
