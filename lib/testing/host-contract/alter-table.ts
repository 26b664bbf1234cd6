// The host contract: attributes that a table gets from other nodes, of hosts that implement `alterTable`.

import assert from 'node:assert/strict'
import { at, cat, dog, type HostCase, type HostScene, insert } from './scene.ts'

async function attributesOf(scene: HostScene, table = dog): Promise<string[]> {
  const found = (await scene.host.describe()).find(
    (each) => each.database === table.database && each.table === table.table,
  )
  assert.ok(found, `${table.table} is described`)
  return [...found.attributes].sort()
}

export const alterCases: Record<string, HostCase> = {
  'attributes are added to a table once, and to no other': async (scene) => {
    await scene.tables(dog, cat)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    const before = await attributesOf(scene)
    const others = await attributesOf(scene, cat)
    const added = { ...dog, attributes: ['age', 'owner'] }
    await scene.host.alterTable!(added)
    await scene.host.alterTable!({ ...dog, attributes: ['name', 'owner', 'born'] })
    const expected = [...new Set([...before, 'age', 'owner', 'born'])].sort()
    assert.deepEqual(await attributesOf(scene), expected)
    assert.deepEqual(await attributesOf(scene, cat), others, 'other tables stay as they are')
    await scene.has({ id: 1, name: 'Rex' })
    await scene.lacks('age')
    await scene.apply(at(2), insert({ id: 2, name: 'Ida', age: 3 }))
    await scene.has({ id: 2, name: 'Ida', age: 3 }, 2)
    if (scene.subject.reopen) await scene.reopen()
    assert.deepEqual(await attributesOf(scene), expected, 'after a restart')
  },
  'a table that does not exist gets no attributes, and is not created': async (scene) => {
    await assert.rejects(async () => scene.host.alterTable!({ ...dog, attributes: ['age'] }))
    assert.deepEqual(await scene.host.describe(), [])
  },
}
