// The host's own part of the YAML file. The cluster manager reads the section `clustering` itself.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { HostError } from './errors.ts'
import { isObject } from './request.ts'
import type { User } from './users.ts'

export type Config = {
  /** Absolute path. */
  rootPath: string
  /** Port of the operations API; 0 for a free one. */
  port: number
  users: User[]
  /** Whether writes that lost against concurrent ones are kept for `list_conflicts`. */
  logConflicts: boolean
  /** Password of the user that `clustering.user` names; undefined if clustering is disabled. */
  clusterPassword: string | undefined
}

const DEFAULT_PORT = 9925

/** Rejects with a HostError that names the file and the invalid key. */
export async function readConfig(file: string): Promise<Config> {
  const configError = (message: string, hint: string) => new HostError(500, `${file}: ${message}`, hint)
  const text = await readFile(file, 'utf8').catch((error) => {
    throw configError(`cannot be read: ${(error as Error).message}`, 'Name the configuration file: --config FILE')
  })
  const document = parseDocument(text)
  const syntaxError = document.errors[0]
  if (syntaxError) throw configError(syntaxError.message.split('\n')[0]!, 'Correct the YAML.')
  const root = document.toJS() as unknown
  if (!isObject(root)) throw configError('is not a YAML map', 'Required keys: rootPath and users.')

  const { rootPath, users } = root
  if (typeof rootPath !== 'string' || rootPath === '') {
    throw configError("'rootPath' must be a path", 'The data directory, relative to the directory of this file.')
  }
  const port = valueAt(root, 'operationsApi', 'network', 'port') ?? DEFAULT_PORT
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw configError("'operationsApi.network.port' must be an integer from 0 to 65535", '0 selects a free port.')
  }
  const { logConflicts = false } = root
  if (typeof logConflicts !== 'boolean')
    throw configError("'logConflicts' must be true or false", 'The default is false.')
  const checked = readUsers(users, configError)
  const path = resolve(dirname(file), rootPath)
  return { rootPath: path, port, users: checked, logConflicts, clusterPassword: clusterPassword() }

  function clusterPassword(): string | undefined {
    const name = valueAt(root, 'clustering', 'user')
    if (valueAt(root, 'clustering', 'enabled') !== true) return undefined
    const user = checked.find(({ username }) => username === name)
    if (!user)
      throw configError(`'clustering.user' must name one of the users, received ${String(name)}`, 'Add it to users.')
    return user.password
  }
}

function readUsers(users: unknown, configError: (message: string, hint: string) => Error): User[] {
  const shape = 'Example: users: [{ username: admin, password: "secret", role: super_user }]'
  if (!Array.isArray(users) || users.length === 0)
    throw configError("'users' must be a list of at least one user", shape)
  const names = new Set<string>()
  return users.map((user: unknown, i) => {
    for (const key of ['username', 'password', 'role']) {
      const value = valueAt(user, key)
      if (typeof value !== 'string' || value === '')
        throw configError(`'users[${i}].${key}' must be a non-empty string`, shape)
    }
    const { username, password, role } = user as User
    if (names.has(username)) throw configError(`'users' names '${username}' twice`, 'Remove one of them.')
    names.add(username)
    return { username, password, role }
  })
}

/** The value at this path of keys; undefined if it does not exist. */
const valueAt = (value: unknown, ...keys: string[]): unknown =>
  keys.reduce<unknown>((node, key) => (isObject(node) ? node[key] : undefined), value)
