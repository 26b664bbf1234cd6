// What leaf and hub know of each other's subscriptions.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { LeafInterest, type LeafInterestOptions } from '../../lib/mesh/nats/leaf-interest.ts'

const AFFECTED = [2, 9, 21] as const
type Answer = string[] | Error | undefined

/** `answers`: one after the other, the last one again and again. */
function scene({ version = () => AFFECTED }: Partial<Pick<LeafInterestOptions, 'version'>> = {}) {
  const answers: Record<'routed' | 'ofHub' | 'ofLeaf', Answer[]> = { routed: [[]], ofHub: [[]], ofLeaf: [[]] }
  let asked = 0
  const next = async (from: Answer[]) => {
    asked++
    const answer = from.length > 1 ? from.shift() : from[0]
    if (answer instanceof Error) throw answer
    return answer
  }
  const monitor = {
    subscribed: () => ['node1.__request__', 'enmesh.heartbeat', '_INBOX.reader'],
    routedSubjects: async () => (await next(answers.routed))!,
    subjectsOfHub: () => next(answers.ofHub),
    subjectsOfLeaf: () => next(answers.ofLeaf),
  }
  const interest = new LeafInterest({ node: 'node1', monitor, version })
  return { interest, answers, asked: () => asked }
}

const own = ['node1.__request__', 'enmesh.heartbeat']
const served = ['enmesh.consumer.node2', 'node2.__request__', '$JS.node2-leaf.API.>']

// Each waits a second until it compares again.
describe('what is missing', { concurrency: true }, () => {
  test('is what one side lacks in two comparisons, of lasting subscriptions', async () => {
    const { interest, answers } = scene()
    answers.routed = [[...served, 'enmesh.heartbeat', '_INBOX.abc', '$SYS.REQ.SERVER.PING', '$JS.node2-leaf.API.INFO']]
    answers.ofHub = [['enmesh.heartbeat'], ['enmesh.heartbeat', 'node2.__request__']]
    answers.ofLeaf = [['enmesh.heartbeat']]
    assert.deepEqual(await interest.missing(), ['node1.__request__', 'enmesh.consumer.node2', '$JS.node2-leaf.API.>'])
  })

  test('is nothing when it has ended, or is there, in the second comparison', async () => {
    const { interest, answers } = scene()
    answers.routed = [served, served.slice(0, 2)]
    answers.ofHub = [[], served.slice(0, 2)]
    answers.ofLeaf = [[], own]
    assert.deepEqual(await interest.missing(), [])
  })

  test('is not known when the second comparison has no answer', async () => {
    const { interest, answers } = scene()
    answers.ofLeaf = [[], new Error('no answer')]
    assert.equal(await interest.missing(), undefined)
  })
})

test('servers in which nothing is lost, or that have not started, are not compared', async () => {
  for (const version of [[2, 9, 22], undefined] as const) {
    const { interest, answers, asked } = scene({ version: () => version })
    answers.ofLeaf = [[]]
    assert.deepEqual([await interest.missing(), asked()], [[], 0])
  }
})

test('what is missing is not known while a server does not answer, or has no link', async () => {
  for (const side of ['routed', 'ofHub', 'ofLeaf'] as const)
    for (const answer of side === 'routed' ? [new Error('no answer')] : [new Error('no answer'), undefined]) {
      const { interest, answers } = scene()
      answers[side] = [answer]
      assert.equal(await interest.missing(), undefined, side)
    }
})

test('the subscriptions of a leaf are sent when its hub knows them', async () => {
  const { interest, answers, asked } = scene()
  answers.ofLeaf = [new Error('the hub is not connected'), undefined, []]
  assert.equal(await interest.sent(() => false), true)
  assert.equal(asked(), 3)
  answers.ofLeaf = [undefined]
  assert.equal(await interest.sent(() => asked() > 5), false, 'another link was waited for')
})
