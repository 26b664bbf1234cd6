import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Users } from '../host/users.ts'

const users = new Users([
  { username: 'admin', password: 'se:cret', role: 'super_user' },
  { username: 'admin:se', password: 'cret', role: 'reader' },
  { username: 'reader', password: 'secret', role: 'reader' },
])
const encoded = (text: string) => Buffer.from(text).toString('base64')

test('a user logs in with every form of the header', () => {
  const admin = { username: 'admin', superUser: true }
  for (const scheme of ['Basic', 'basic', 'BASIC'])
    assert.deepEqual(users.authenticate(`${scheme} ${encoded('admin:se:cret')}`), admin)
  const unpadded = encoded('reader:secret').replaceAll('=', '')
  assert.deepEqual(users.authenticate(`Basic ${unpadded}`), { username: 'reader', superUser: false })
})

test('wrong credentials are rejected, whatever was accepted before', () => {
  users.authenticate(`Basic ${encoded('reader:secret')}`)
  for (const text of ['reader:secret ', 'reader:', 'reader', ':secret', 'nobody:secret', ''])
    assert.throws(() => users.authenticate(`Basic ${encoded(text)}`), { statusCode: 401, message: 'Login failed' })
  assert.throws(() => users.authenticate(`Bearer ${encoded('reader:secret')}`), { statusCode: 401 })
  assert.throws(() => users.authenticate(undefined), { statusCode: 401, message: 'Must login' })
})
