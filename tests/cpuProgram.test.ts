/** Compiled steps on the native backend: the bits of eager runs, at any number of threads. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import type { Backend } from '../src/core/backend.js';
import { type Tensor, use } from '../src/core/tensor.js';
import * as o from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';
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

test('what only a reduction reads is never stored, and the values are those of eager runs', () => {
  const steps: [string, (a: Tensor, b: Tensor) => Tensor, number][] = [
    ['a mean of squares', (a, b) => o.mean(o.square(o.sub(a, b))), 2],
    ['products along rows', (a, b) => o.sum(o.mul(a, b), 1), 1],
    ['largest distances', (a, b) => o.maxOver(o.abs(o.sub(a, o.slice(b, 0, 0, 1))), 1), 1],
    ['a transposed factor', (a, b) => o.sum(o.mul(a, o.transpose(o.reshape(b, [300, 20]))), 1), 1],
    ['columns, which are stored first', (a, b) => o.sum(o.mul(a, b), 0), 2],
    ['two readers, for whom it is stored', (a, b) => o.add(o.sum(o.mul(a, b)), o.mul(a, b)), 2],
  ];
  const [k1, k2] = o.split(o.key(5), 2);
  const [a, b] = [o.normal(k1, [20, 300]), o.normal(k2, [20, 300])];
  for (const [what, step, commands] of steps) {
    const fast = compile(step);
    expect(Array.from(fast(a, b).dataSync()), what).toEqual(Array.from(step(a, b).dataSync()));
    expect(fast.stats()[0].commands.length, what).toBe(commands);
    fast.dispose();
  }
});
