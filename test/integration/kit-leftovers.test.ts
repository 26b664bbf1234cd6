// What a killed test left behind is removed by the next one; what runs is not.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { eventually, isRunning, type ServerKind, serverPid } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'

test('the directory and the servers of a killed test end with the next start of a cluster', {
  timeout: 60_000,
}, async (t) => {
  const child = spawn(process.execPath, programArguments('support/killed-cluster.ts'), {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  const [line] = await once(createInterface(child.stdout!), 'line')
  const [directory] = JSON.parse(line as string) as [string]
  const pidOf = (kind: ServerKind) => eventually(`the ${kind} runs`, () => serverPid({ directory }, kind))
  const pids = await Promise.all([pidOf('hub'), pidOf('leaf')])

  await (await startCluster(1, { network: new MemoryNetwork() })).close()
  assert.ok(existsSync(directory), 'its process runs')
  assert.deepEqual(await Promise.all(pids.map(isRunning)), [true, true])

  child.kill('SIGKILL')
  await once(child, 'exit')
  const running = await startCluster(1, { network: new MemoryNetwork() })
  t.after(() => running.close())
  // Another process that starts a cluster now may be the one that removes it.
  await eventually('the directory is gone', () => !existsSync(dirname(directory)))
  for (const pid of pids) await eventually(`server ${pid} has ended`, async () => !(await isRunning(pid)))

  await (await startCluster(1, { network: new MemoryNetwork() })).close()
  assert.ok((await readdir(running.nodes[0]!.directory)).length > 0, 'the directory of a cluster that runs stays')
})
