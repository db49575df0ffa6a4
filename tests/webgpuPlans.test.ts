import fc from 'fast-check';
import { describe, it } from 'vitest';
import { use } from '../src/index.js';
import { opened } from './backends.js';
import { applied, expectPlansAgree, kinds } from './plans.js';

const backend = opened('webgpu');

describe('on webgpu every plan is within 1e-5 of materialising', () => {
  for (const kind of kinds)
    for (const [what, cases] of Object.entries(applied))
      it(`${kind} ${what}: value, gradient and second gradient`, { timeout: 300_000 }, async context => {
        use(backend('webgpu', context));
        // Every shape is some other shaders, and software drivers take seconds to compile them.
        await fc.assert(fc.asyncProperty(cases(kind), expectPlansAgree), {
          numRuns: what === 'matrices' ? 6 : 3,
          seed: 4,
        });
      });
});
