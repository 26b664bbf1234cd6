// Private directories for secrets and state, and atomic files that no symbolic link redirects.

import assert from 'node:assert/strict'
import { chmod, chown, lchown, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { writeFileAtomic } from '../../lib/util/atomic-file.ts'
import { ensurePrivateDirectory } from '../../lib/util/private-directory.ts'

const isRoot = process.getuid?.() === 0
const needsRoot = { skip: isRoot ? false : 'only root can change the owner of a directory' }
const OTHER_UID = 12_345

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}
const modeOf = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8)
const rejected = (message: RegExp) => ({ code: 'directory_unusable', message })

describe('ensurePrivateDirectory', () => {
  it('creates the directory and its parents for this user only', async (t) => {
    const path = join(await temporary(t), 'a', 'b')
    await ensurePrivateDirectory(path)
    assert.equal(await modeOf(path), '700')
    await ensurePrivateDirectory(path)
  })

  it('removes write permission of group and others, and keeps their read permission', async (t) => {
    const path = await temporary(t)
    for (const [before, after] of [
      [0o777, '755'],
      [0o1777, '1755'],
      [0o2770, '2750'],
      [0o750, '750'],
    ] as const) {
      await chmod(path, before)
      await ensurePrivateDirectory(path)
      assert.equal(await modeOf(path), after)
    }
  })

  it('accepts a symbolic link to a directory', async (t) => {
    const path = await temporary(t)
    await mkdir(join(path, 'disk'))
    await symlink(join(path, 'disk'), join(path, 'clustering'))
    await ensurePrivateDirectory(join(path, 'clustering'))
  })

  it('rejects a file and a dangling link', async (t) => {
    const path = await temporary(t)
    await writeFile(join(path, 'file'), '')
    await symlink(join(path, 'missing'), join(path, 'nowhere'))
    for (const name of ['file', 'file/below', 'nowhere'])
      await assert.rejects(
        ensurePrivateDirectory(join(path, name)),
        rejected(new RegExp(`Directory .*${name} is not usable: E`)),
      )
  })

  it('rejects a directory of another user, and a link of another user', needsRoot, async (t) => {
    const path = await temporary(t)
    const foreign = join(path, 'foreign')
    await mkdir(foreign)
    await chown(foreign, OTHER_UID, OTHER_UID)
    await assert.rejects(
      ensurePrivateDirectory(foreign),
      rejected(/belongs to another user \(12345, this process runs as 0\)/),
    )
    await symlink(foreign, join(path, 'link to foreign'))
    await assert.rejects(ensurePrivateDirectory(join(path, 'link to foreign')), rejected(/belongs to another user/))
    await mkdir(join(path, 'local'))
    await symlink(join(path, 'local'), join(path, 'foreign link'))
    await lchown(join(path, 'foreign link'), OTHER_UID, OTHER_UID)
    await assert.rejects(ensurePrivateDirectory(join(path, 'foreign link')), rejected(/belongs to another user/))
  })
})

describe('writeFileAtomic', () => {
  it('never writes through a symbolic link', async (t) => {
    const path = await temporary(t)
    const victim = join(path, 'victim')
    await writeFile(victim, 'precious')
    await symlink(victim, join(path, 'hub.json.new'))
    await assert.rejects(writeFileAtomic(join(path, 'hub.json'), 'secret'), { code: 'ELOOP' })
    await symlink(victim, join(path, 'leaf.json'))
    await writeFileAtomic(join(path, 'leaf.json'), 'secret')
    assert.equal(await readFile(victim, 'utf8'), 'precious')
    assert.deepEqual(
      [await readFile(join(path, 'leaf.json'), 'utf8'), await modeOf(join(path, 'leaf.json'))],
      ['secret', '600'],
    )
  })
})
