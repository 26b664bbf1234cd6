// Where secrets and state lie: a folder of ours, whatever leads there, and files that no link redirects.

import assert from 'node:assert/strict'
import { chmod, chown, lchown, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { writeFileAtomic } from '../../lib/util/atomic-file.ts'
import { ensurePrivateDirectory } from '../../lib/util/private-directory.ts'

const isRoot = process.getuid?.() === 0
const needsRoot = { skip: isRoot ? false : 'only root may give a folder away' }
const SOMEBODY = 12_345

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}
const modeOf = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8)
const rejected = (message: RegExp) => ({ code: 'directory_unusable', message })

describe('a folder of ours', () => {
  it('is made for us alone, with all that leads there', async (t) => {
    const path = join(await place(t), 'a', 'b')
    await ensurePrivateDirectory(path)
    assert.equal(await modeOf(path), '700')
    await ensurePrivateDirectory(path)
  })

  it('that others may write is so no longer; what they may read stays', async (t) => {
    const path = await place(t)
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

  it('may be a link to one', async (t) => {
    const path = await place(t)
    await mkdir(join(path, 'disk'))
    await symlink(join(path, 'disk'), join(path, 'clustering'))
    await ensurePrivateDirectory(join(path, 'clustering'))
  })

  it('is none when it is a file, or leads nowhere', async (t) => {
    const path = await place(t)
    await writeFile(join(path, 'file'), '')
    await symlink(join(path, 'missing'), join(path, 'nowhere'))
    for (const name of ['file', 'file/below', 'nowhere'])
      await assert.rejects(
        ensurePrivateDirectory(join(path, name)),
        rejected(new RegExp(`Directory .*${name} is not usable: E`)),
      )
  })

  it('is none that belongs to somebody else, by itself or by the link that leads there', needsRoot, async (t) => {
    const path = await place(t)
    const theirs = join(path, 'theirs')
    await mkdir(theirs)
    await chown(theirs, SOMEBODY, SOMEBODY)
    await assert.rejects(
      ensurePrivateDirectory(theirs),
      rejected(/belongs to another user \(12345, this process runs as 0\)/),
    )
    await symlink(theirs, join(path, 'to theirs'))
    await assert.rejects(ensurePrivateDirectory(join(path, 'to theirs')), rejected(/belongs to another user/))
    await mkdir(join(path, 'ours'))
    await symlink(join(path, 'ours'), join(path, 'their link'))
    await lchown(join(path, 'their link'), SOMEBODY, SOMEBODY)
    await assert.rejects(ensurePrivateDirectory(join(path, 'their link')), rejected(/belongs to another user/))
  })
})

describe('a file that is written whole', () => {
  it('is never written where a link leads', async (t) => {
    const path = await place(t)
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
