import { afterEach, beforeEach, expect, jest, test } from '@jest/globals'
import { recordAfterPartition } from './scene.js'

beforeEach(() => {
  jest.useFakeTimers()
})
afterEach(() => {
  jest.useRealTimers()
})

test('a cluster works under fake timers', async () => {
  expect(await recordAfterPartition()).toEqual({ id: 1, name: 'Rex' })
}, 30_000)
