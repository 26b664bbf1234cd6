// The login to a running hub before a migration: with the right and a wrong password, with and without TLS, and without a hub.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type HubLogin, logInToHub } from '../../lib/mesh/nats/hub-login.ts'
import { Authority, type TlsFiles } from '../support/authority.ts'
import { clusterPassword, clusterUser, eventually, freePorts, temporaryDirectory } from '../support/cluster.ts'

type Test = { after(work: () => unknown): void }

/** Hubs in one cluster, each with a route to the first. `tls`: clients must have a certificate. */
async function startHubs(test: Test, names: string[], tls?: TlsFiles): Promise<HubLogin[]> {
  const [directory, remove] = await temporaryDirectory()
  const servers: ChildProcess[] = []
  test.after(async () => {
    for (const server of servers) {
      server.kill('SIGKILL')
      if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    }
    await remove()
  })
  const ports = await freePorts(2 * names.length)
  const route = `nats-route://127.0.0.1:${ports[0]}`
  for (const [index, name] of names.entries()) {
    const file = join(directory, name, 'hub.json')
    await mkdir(join(directory, name))
    const configuration = {
      server_name: name,
      listen: `127.0.0.1:${ports[2 * index + 1]}`,
      accounts: { SYS: { users: [{ user: `${clusterUser}-admin`, password: clusterPassword }] } },
      system_account: 'SYS',
      cluster: { name: 'harperdb', listen: `127.0.0.1:${ports[2 * index]}`, routes: index > 0 ? [route] : [] },
      ...(tls && {
        tls: { cert_file: tls.certificate, key_file: tls.privateKey, ca_file: tls.certificateAuthority, verify: true },
      }),
    }
    await writeFile(file, JSON.stringify(configuration), { mode: 0o600 })
    servers.push(spawn(process.env.NATS_SERVER || 'nats-server', ['-c', file], { stdio: 'ignore' }))
  }
  return names.map((_, index) => ({
    host: '127.0.0.1',
    port: ports[2 * index + 1]!,
    user: clusterUser,
    password: clusterPassword,
    tls,
  }))
}

/** When the hub runs. */
const logIn = (login: HubLogin) =>
  eventually('the hub answers', async () => {
    const result = await logInToHub(login)
    return result.outcome !== 'unreachable' && result
  })

describe('the login to a hub', { concurrency: true }, () => {
  test('finds the other hubs with their addresses, and rejects a wrong password', async (t) => {
    const [login1, login2] = (await startHubs(t, ['node1-hub', 'node2-hub', 'other'])) as [HubLogin, HubLogin]
    await logIn(login2)
    const hubs = await eventually('both hubs are found', async () => {
      const result = await logInToHub(login1)
      return (
        result.outcome === 'accepted' &&
        result.hubs.length === 2 &&
        result.hubs.every(({ address }) => address) &&
        result
      )
    })
    assert.deepEqual(hubs.hubs.map(({ node }) => node).sort(), ['node1', 'node2'])
    const { address } = hubs.hubs.find(({ node }) => node === 'node2')!
    assert.equal(address!.host, '127.0.0.1')
    assert.notEqual(address!.port, login2.port)
    assert.match(hubs.serverVersion, /^2\./)
    const wrong = await logInToHub({ ...login1, password: 'wrong' })
    assert.equal(wrong.outcome, 'rejected')
  })

  test('works with a hub that requires certificates, and one that does not', async (t) => {
    const [directory, remove] = await temporaryDirectory()
    t.after(remove)
    const tls = await (await Authority.create()).issue(directory, 'node1')
    const [secure] = (await startHubs(t, ['node1-hub'], tls)) as [HubLogin]
    const [plain] = (await startHubs(t, ['node2-hub'])) as [HubLogin]
    assert.equal((await logIn(secure)).outcome, 'accepted')
    assert.equal((await logIn({ ...plain, tls })).outcome, 'accepted')
    assert.equal((await logInToHub({ ...secure, password: 'wrong' })).outcome, 'rejected')
  })

  test('is not possible without a hub', async () => {
    const [port = 0] = await freePorts(1)
    const result = await logInToHub({ host: '127.0.0.1', port, user: clusterUser, password: clusterPassword })
    assert.equal(result.outcome, 'unreachable')
  })
})
