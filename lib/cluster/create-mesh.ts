// The mesh that a service runs on: the one of the options, or NATS as the configuration file describes it.

import { dirname, resolve } from 'node:path'
import { clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh } from '../mesh/mesh.ts'
import { passwordFault, userFault } from '../mesh/nats/credentials.ts'
import { NatsMesh } from '../mesh/nats/nats-mesh.ts'
import { storeDirectory } from './locks.ts'
import type { CheckedOptions } from './options.ts'

/** `directory`: where the servers keep their state. Throws config_rejected; the mesh rejects with invalid_option when it needs a password that is missing. */
export function createMesh(options: CheckedOptions, store: ManifestStore, directory: string): Mesh {
  if (options.mesh) return options.mesh
  const { configFile, natsServer, serverEnvironment, logger } = options
  const { settings } = store
  const { user, tls } = settings
  if (!user)
    throw clusterError('config_rejected', store.file, "'clustering.user' is required while clustering is enabled")
  const fault = userFault(user)
  if (fault) throw clusterError('config_rejected', store.file, `'clustering.user' ${fault}`)
  const fromConfigDirectory = (path: string) => resolve(dirname(configFile), path)
  return new NatsMesh({
    user,
    password: () => fetchPassword(options.password),
    clusterName: settings.clusterName,
    // Without certificates the hub accepts local connections only, unless the file names an address.
    listen: settings.clusterHost ?? (tls ? '0.0.0.0' : '127.0.0.1'),
    ports: settings.ports,
    tls: tls && {
      ...tls,
      certificate: fromConfigDirectory(tls.certificate),
      certificateAuthority: fromConfigDirectory(tls.certificateAuthority),
      privateKey: fromConfigDirectory(tls.privateKey),
    },
    logLevel: settings.logLevel,
    directory,
    storeDirectory: storeDirectory(configFile, settings),
    sync: settings.streams.sync,
    routeCompression: settings.routeCompression,
    natsServer,
    serverEnvironment,
    logger,
  })
}

async function fetchPassword(option: CheckedOptions['password']): Promise<string> {
  let password: unknown = option
  if (typeof password === 'function')
    try {
      password = await password()
    } catch (error) {
      throw clusterErrorFrom(error, 'invalid_option', `Option 'password' rejected: ${reasonOf(error)}`)
    }
  if (typeof password === 'string' && password !== '') {
    const fault = passwordFault(password)
    if (fault) throw clusterError('invalid_option', `Option 'password' ${fault}`)
    return password
  }
  // An empty password usually is an unset environment variable, and would let any process into the mesh.
  const received = password === '' ? 'an empty string' : typeof password
  throw clusterError(
    'invalid_option',
    `Option 'password' is required while clustering is enabled, received ${received}`,
  )
}
