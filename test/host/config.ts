// What this host reads from its YAML file. The section `clustering` belongs to the cluster manager, which reads it itself.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { HostError } from './errors.ts'
import { isObject } from './request.ts'
import type { User } from './users.ts'

export type Config = {
  /** Absolute. */
  rootPath: string
  /** Of the operations API; 0 for a free one. */
  port: number
  users: User[]
  /** The password of the user that `clustering.user` names; undefined while clustering is disabled. */
  clusterPassword: string | undefined
}

const DEFAULT_PORT = 9925

/** Rejects with a HostError that says which key of which file is wrong. */
export async function readConfig(file: string): Promise<Config> {
  const wrong = (message: string, hint: string) => new HostError(500, `${file}: ${message}`, hint)
  const text = await readFile(file, 'utf8').catch((error) => {
    throw wrong(`cannot be read: ${(error as Error).message}`, 'Name the configuration file: --config FILE')
  })
  const document = parseDocument(text)
  const fault = document.errors[0]
  if (fault) throw wrong(fault.message.split('\n')[0]!, 'Mend the YAML.')
  const root = document.toJS() as unknown
  if (!isObject(root)) throw wrong('is not a YAML map', 'It needs at least rootPath and users.')

  const { rootPath, users } = root
  if (typeof rootPath !== 'string' || rootPath === '') {
    throw wrong("'rootPath' must be a path", "The folder for the data, relative to this file's.")
  }
  const port = at(root, 'operationsApi', 'network', 'port') ?? DEFAULT_PORT
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw wrong("'operationsApi.network.port' must be an integer from 0 to 65535", '0 means a free port.')
  }
  const checked = readUsers(users, wrong)
  return { rootPath: resolve(dirname(file), rootPath), port, users: checked, clusterPassword: clusterPassword() }

  function clusterPassword(): string | undefined {
    const name = at(root, 'clustering', 'user')
    if (at(root, 'clustering', 'enabled') !== true) return undefined
    const user = checked.find(({ username }) => username === name)
    if (!user) throw wrong(`'clustering.user' must name one of the users, received ${String(name)}`, 'Add it to users.')
    return user.password
  }
}

function readUsers(users: unknown, wrong: (message: string, hint: string) => Error): User[] {
  const shape = 'Like this: users: [{ username: admin, password: "secret", role: super_user }]'
  if (!Array.isArray(users) || users.length === 0) throw wrong("'users' must be a list of at least one user", shape)
  const names = new Set<string>()
  return users.map((user: unknown, i) => {
    for (const key of ['username', 'password', 'role']) {
      const value = at(user, key)
      if (typeof value !== 'string' || value === '') throw wrong(`'users[${i}].${key}' must be a text`, shape)
    }
    const { username, password, role } = user as User
    if (names.has(username)) throw wrong(`'users' names '${username}' twice`, 'Remove one of them.')
    names.add(username)
    return { username, password, role }
  })
}

/** The value below these keys, if there is one. */
const at = (value: unknown, ...keys: string[]): unknown =>
  keys.reduce<unknown>((below, key) => (isObject(below) ? below[key] : undefined), value)
