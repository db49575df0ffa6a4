import fc from 'fast-check';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { type Backend, use } from '../src/index.js';
import { applied, expectPlansAgree, kinds } from './plans.js';

let gpu: Backend | undefined;
let missing = '';
beforeAll(async () => {
  try {
    gpu = await open('webgpu');
    use(gpu);
  } catch (error) {
    if (process.env.CI) throw error;
    missing = String(error);
  }
});
afterAll(async () => {
  await gpu?.sync();
  gpu?.dispose();
});

describe('on webgpu every plan is within 1e-5 of materialising', () => {
  for (const kind of kinds)
    for (const [what, cases] of Object.entries(applied))
      it(`${kind} ${what}: value, gradient and second gradient`, { timeout: 300_000 }, async context => {
        if (!gpu) return context.skip(missing);
        // Every shape is some other shaders, and software drivers take seconds to compile them.
        await fc.assert(fc.asyncProperty(cases(kind), expectPlansAgree), {
          numRuns: what === 'matrices' ? 2 : 1,
          seed: 4,
        });
      });
});
