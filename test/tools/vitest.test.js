import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { recordAfterPartition } from './scene.js'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

test('a cluster works under fake timers', async () => {
  expect(await recordAfterPartition()).toEqual({ id: 1, name: 'Rex' })
}, 30_000)
