/** One seeded training run on every backend: the same gradients, and losses that stay together. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type Backend,
  key,
  meta,
  mul,
  normal,
  open,
  sgd,
  square,
  sub,
  sum,
  type Tensor,
  use,
} from '../src/index.js';
import { type Run, sinusoidRun } from './sinusoid-run.js';

const STEPS = 50;
const opened: Backend[] = [];
const runs: Record<string, Run> = {};
beforeAll(async () => {
  for (const name of ['ref', 'cpu', 'webgpu'] as const) {
    const backend = await open(name);
    opened.push(backend);
    use(backend);
    runs[name] = await sinusoidRun(STEPS);
  }
}, 180_000);
afterAll(async () => {
  for (const backend of opened) {
    await backend.sync();
    backend.dispose();
  }
});

/** Distance of two vectors over the length of the second. */
const apart = (a: number[], b: number[]) => Math.hypot(...a.map((x, i) => x - b[i])) / Math.hypot(...b);

test.each(['cpu', 'webgpu'])('%s: the first gradient is that of ref, leaf by leaf', name => {
  const gradients = new Map(runs[name].gradients);
  expect([...gradients.keys()]).toEqual(runs.ref.gradients.map(([path]) => path));
  expect(gradients.size).toBeGreaterThan(6);
  for (const [path, expected] of runs.ref.gradients) {
    expect(Math.hypot(...expected), path).toBeGreaterThan(0);
    expect(apart(gradients.get(path)!, expected), path).toBeLessThan(1e-4);
  }
});

test.each(['cpu', 'webgpu'])('%s: the losses are those of ref', name => {
  const { losses } = runs[name];
  const ref = runs.ref.losses;
  expect(losses).toHaveLength(STEPS);
  const off = (step: number) => Math.abs(losses[step] - ref[step]) / Math.abs(ref[step]);
  expect(off(0)).toBeLessThan(1e-5);
  expect(off(STEPS - 1)).toBeLessThan(1e-3);
  expect(ref[STEPS - 1]).toBeLessThan(ref[0]);
});

test('webgpu: training runs at most 64 steps ahead of the losses it has read, and reads each of them once', async () => {
  use(opened.find(({ name }) => name === 'webgpu')!);
  const x = normal(key(0), [8]);
  const seen: number[] = [];
  let ahead = 0;
  const training = {
    loss: (p: { w: Tensor }, slope: Tensor) => sum(square(sub(mul(p.w, slope), x))),
    optimiser: sgd(1e-3),
    batch: (step: number) => {
      ahead = Math.max(ahead, step + 1 - seen.length);
      return mul(x, 0.5);
    },
  };
  const start = meta.initialState({ w: mul(x, 3) }, training.optimiser);
  const onLosses = (first: number, losses: Float32Array) => {
    expect(first).toBe(seen.length);
    seen.push(...losses);
  };
  await meta.train(training, start, { steps: 300, onLosses });
  expect(seen).toHaveLength(300);
  expect(ahead).toBeGreaterThan(1);
  expect(ahead).toBeLessThanOrEqual(64);
  expect(seen[299]).toBeLessThan(seen[0]);
});
