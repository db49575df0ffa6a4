import { describe, expect, it } from 'vitest';
import { compiledAgainstEager } from '../src/cli/check.js';
import { opened } from './backends.js';
import { cases } from './cases.js';

const backend = opened('webgpu');

describe('compiled, an op and its derivatives give nearly the same on webgpu', () => {
  for (const name of Object.keys(cases))
    it(name, { timeout: 300_000 }, async context => {
      const gpu = backend('webgpu', context);
      for (const [index, row] of cases[name].entries()) {
        // A fused shader may contract a product and a sum, so each side has an error of its own.
        const { value, gradient = 0, second = 0 } = row.tolerance;
        const error = await compiledAgainstEager(name, index, row, gpu);
        expect(error, `row ${index}`).not.toBeNull();
        expect(error, `row ${index}`).toBeLessThanOrEqual(2 * Math.max(value, gradient, second));
      }
    });
});
