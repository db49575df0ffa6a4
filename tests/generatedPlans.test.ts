import fc from 'fast-check';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { type Backend, use } from '../src/index.js';
import { applied, expectPlansAgree, kinds } from './plans.js';

describe.each([
  ['ref', 20],
  ['cpu', 60],
] as const)('on %s every plan is within 1e-5 of materialising', (name, numRuns) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await open(name);
    use(backend);
  });
  afterAll(() => backend.dispose());

  for (const kind of kinds)
    for (const [what, cases] of Object.entries(applied))
      it(`${kind} ${what}: value, gradient and second gradient`, () =>
        fc.assert(fc.asyncProperty(cases(kind), expectPlansAgree), { numRuns, seed: 3 }));
});
