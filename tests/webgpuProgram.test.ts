/** Compiled steps on WebGPU. A machine without an adapter fails here. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createWebGPU } from '../src/backends/webgpu/index.js';
import type { Backend } from '../src/core/backend.js';
import { use } from '../src/core/tensor.js';
import { randomStep, runBoth } from './programs.js';

let backend: Backend;
beforeAll(async () => {
  backend = await createWebGPU();
  use(backend);
});
afterAll(async () => {
  await backend?.sync();
  backend?.dispose();
});

const near = (a: number[][], b: number[][]) => {
  a.forEach((row, i) => {
    row.forEach((v, j) => {
      expect(Math.abs(v - b[i][j])).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(b[i][j])));
    });
  });
};

test('random steps: compiled equals eager, whatever is fused, packed or donated', async () => {
  await fc.assert(
    fc.asyncProperty(randomStep, async step => {
      const { eager, first, again } = await runBoth(step);
      near(first, eager);
      near(again, eager);
    }),
    { numRuns: 60, seed: 1 },
  );
}, 120_000);
