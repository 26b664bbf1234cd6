// Basic authentication of the HTTP API against the users of the configuration file.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { Caller } from '../../lib/index.ts'
import { HostError } from './errors.ts'

/** `role`: `super_user`, or any other name for an ordinary user. `cluster_user` is an ordinary user here; its rights are in the mesh. */
export type User = { username: string; password: string; role: string }

const digest = (text: string) => createHash('sha256').update(text).digest()
const UNKNOWN_USER = digest('')

type UserCaller = Caller & { username: string }

const callerOf = ({ username, role }: User): UserCaller => ({ username, superUser: role === 'super_user' })
const headerOf = ({ username, password }: User): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

export class Users {
  readonly #users: Map<string, { digest: Buffer; caller: UserCaller }>
  /** Callers by the header that most clients send: no digest for each request. */
  readonly #callers: Map<string, UserCaller>

  constructor(users: User[]) {
    // A name with a colon cannot log in: the header would name another user.
    const named = users.filter(({ username }) => !username.includes(':'))
    this.#callers = new Map(named.map((user) => [headerOf(user), callerOf(user)]))
    this.#users = new Map(
      users.map((user) => [user.username, { digest: digest(user.password), caller: callerOf(user) }]),
    )
  }

  /** Throws HostError 401. Takes the same time for an unknown user as for a wrong password. */
  authenticate(authorization: string | undefined): UserCaller {
    if (!authorization) throw new HostError(401, 'Must login')
    const caller = this.#callers.get(authorization)
    if (caller) return caller
    const [scheme = '', credentials = ''] = authorization.split(' ', 2)
    const text = Buffer.from(credentials, 'base64').toString()
    const colon = text.indexOf(':')
    const username = text.slice(0, Math.max(colon, 0))
    const user = this.#users.get(username)
    // Digests have the same length, as timingSafeEqual requires.
    const matches = timingSafeEqual(digest(text.slice(colon + 1)), user?.digest ?? UNKNOWN_USER)
    if (!user || !matches || colon < 0 || scheme.toLowerCase() !== 'basic') throw new HostError(401, 'Login failed')
    return user.caller
  }
}
