// The example of deployment does not go on without encryption when it cannot see its certificates.

import assert from 'node:assert/strict'
import { mkdir, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ensureConfigFile, readSettings } from '../examples/deploy/settings.ts'
import { temporaryDirectory } from '../support/cluster.ts'

test('certificates that cannot be looked at are an error, and none are no TLS', async (t) => {
  const [directory, remove] = await temporaryDirectory()
  t.after(remove)
  const tls = join(directory, 'tls')
  await mkdir(tls)
  const settings = readSettings({
    ...{ NODE_NAME: 'node1', DATA_DIRECTORY: join(directory, 'data'), TLS_DIRECTORY: tls },
    ...{ CLUSTER_PASSWORD: 'secret', API_TOKEN: 'secret' },
  })
  // Fails for every user, root included, as a directory that is closed to this one does.
  await symlink('tls.crt', join(tls, 'tls.crt'))
  await assert.rejects(ensureConfigFile(settings), { code: 'ELOOP' })
  const file = await ensureConfigFile({ ...settings, tlsDirectory: join(directory, 'none') })
  assert.doesNotMatch(await readFile(file, 'utf8'), /tls/)
})
