// The settings of a container, from the environment, and the configuration file that they become at the first start.

import { randomBytes } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { link, mkdir, unlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'

export type Settings = {
  nodeName: string
  /** Names or addresses of hubs: one name that lists all of them is enough. */
  routes: string[]
  /** Names of all nodes. Every one subscribes to every table of the others. */
  nodes: string[]
  tables: { database: string; table: string }[]
  /** For the rows, the configuration file, streams and servers. */
  dataDirectory: string
  /** With tls.crt, tls.key and ca.crt, as a secret of Kubernetes has them. Without these files the links are not encrypted. */
  tlsDirectory: string
  port: number
  /** Shared by all nodes. */
  clusterPassword: string
  /** `Authorization: Bearer TOKEN` of callers of the API. */
  apiToken: string
}

const listOf = (text = '') => text.split(/[\s,]+/).filter((part) => part !== '')

/** The text of the file that `NAME_FILE` names, otherwise `NAME`. Throws an Error if neither is set. */
function secret(environment: NodeJS.ProcessEnv, name: string): string {
  const file = environment[`${name}_FILE`]
  const value = file === undefined ? environment[name] : readFileSync(file, 'utf8').trim()
  if (!value) throw new Error(`Set ${name}, or ${name}_FILE to the path of a file that contains it`)
  return value
}

export function readSettings(environment: NodeJS.ProcessEnv): Settings {
  const { NODE_NAME, ROUTES, NODES, TABLES, DATA_DIRECTORY, TLS_DIRECTORY, PORT } = environment
  return {
    nodeName: NODE_NAME || hostname(),
    routes: listOf(ROUTES),
    nodes: listOf(NODES),
    tables: listOf(TABLES || 'dev.dog').map((name) => {
      const [database = '', table = ''] = name.split('.')
      return { database, table }
    }),
    dataDirectory: DATA_DIRECTORY || '/data',
    tlsDirectory: TLS_DIRECTORY || '/tls',
    port: Number(PORT || 9925),
    clusterPassword: secret(environment, 'CLUSTER_PASSWORD'),
    apiToken: secret(environment, 'API_TOKEN'),
  }
}

/** The section `clustering`. `ports`: other than the default ones, for several nodes on one machine. */
function clusteringOf(settings: Settings, ports: Ports) {
  const subscriptions = settings.tables.map((table) => ({ ...table, publish: true, subscribe: true }))
  const tls = (name: string) => join(settings.tlsDirectory, name)
  return {
    enabled: true,
    nodeName: settings.nodeName,
    user: 'cluster',
    hubServer: {
      cluster: {
        // Other containers connect to the hub.
        network: {
          host: '0.0.0.0',
          port: ports.cluster,
          routes: settings.routes.map((route) => {
            const [host, port] = route.split(':')
            return { host, port: Number(port ?? ports.cluster) }
          }),
        },
      },
      leafNodes: { network: { port: ports.leafNodes } },
      network: { port: ports.hub },
    },
    leafServer: { network: { port: ports.leaf } },
    // Throws for a certificate that may not be read: the links would not be encrypted without anybody knowing.
    ...(statSync(tls('tls.crt'), { throwIfNoEntry: false }) && {
      tls: { certificate: tls('tls.crt'), privateKey: tls('tls.key'), certificateAuthority: tls('ca.crt') },
    }),
    nodes: settings.nodes.filter((name) => name !== settings.nodeName).map((name) => ({ name, subscriptions })),
  }
}

export type Ports = { cluster: number; leafNodes: number; hub: number; leaf: number }
export const defaultPorts: Ports = { cluster: 9932, leafNodes: 9931, hub: 9930, leaf: 9940 }

/**
 * Creates the configuration file if it is missing, and resolves with its path. From then on it is the manifest: operations change
 * it, and the environment no longer has an effect on it.
 */
export async function ensureConfigFile(settings: Settings, ports: Ports = defaultPorts): Promise<string> {
  const file = join(settings.dataDirectory, 'config.yaml')
  await mkdir(settings.dataDirectory, { recursive: true })
  const temporary = `${file}.${randomBytes(6).toString('hex')}`
  await writeFile(temporary, stringify({ clustering: clusteringOf(settings, ports) }), { mode: 0o600 })
  // Complete or not at all, and never over an existing file.
  await link(temporary, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  await unlink(temporary)
  return file
}
