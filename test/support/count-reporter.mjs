// A reporter of Node's test runner that writes only the final counts, as one JSON object. Plain JavaScript, because Node 20
// loads reporters before tsx.

export default async function* countReporter(events) {
  const counts = new Map()
  for await (const { type, data } of events) {
    // The final counts are diagnostics such as 'pass 12': Node 20 has no event for them.
    const match = type === 'test:diagnostic' && data.nesting === 0 && /^(pass|fail|cancelled) (\d+)$/.exec(data.message)
    if (match) counts.set(match[1], Number(match[2]))
  }
  const count = (name) => counts.get(name) ?? 0
  yield JSON.stringify({ passed: count('pass'), failed: count('fail') + count('cancelled') })
}
