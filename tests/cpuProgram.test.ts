/** Compiled steps on the native backend: the bits of eager runs, at any number of threads. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import type { Backend } from '../src/core/backend.js';
import { use } from '../src/core/tensor.js';
import { randomStep, runBoth } from './programs.js';

let backend: Backend;
beforeAll(async () => {
  backend = await createCpu();
  use(backend);
});
afterAll(() => backend.dispose());

test('random steps: compiled equals eager to the bit, whatever is fused, packed or donated', async () => {
  await fc.assert(
    fc.asyncProperty(randomStep, async step => {
      const { eager, first, again } = await runBoth(step);
      expect(first).toEqual(eager);
      expect(again).toEqual(eager);
    }),
    { numRuns: 300, seed: 1 },
  );
});
