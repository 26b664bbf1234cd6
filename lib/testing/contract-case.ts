// One case of a contract suite: any test runner can run it, or a plain program.

/** `run` rejects with an AssertionError when the implementation breaks the contract, or with the implementation's own error. */
export type ContractCase = { name: string; run(): Promise<void> }

/** Runs all cases in order. Rejects with an AggregateError of all failures; each message begins with the name of its case. */
export async function runCases(subject: string, cases: readonly ContractCase[]): Promise<void> {
  const failures: Error[] = []
  for (const { name, run } of cases)
    await run().catch((error) => failures.push(new Error(`${name}: ${(error as Error).message}`, { cause: error })))
  if (failures.length > 0)
    throw new AggregateError(
      failures,
      `the ${subject} fails ${failures.length} cases: ${failures.map((each) => each.message).join('; ')}`,
    )
}
