/** One seeded training run on every backend: the same gradients, and losses that stay together. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sinusoid } from '../src/data/sinusoid.js';
import { fullHead, hypernet, setEncoder } from '../src/hyper/index.js';
import {
  type Backend,
  dense,
  key,
  open,
  relu,
  serial,
  type Tensor,
  tree,
  use,
  valueAndGrad,
} from '../src/index.js';
import { drawEpisodes, hypernetLearner, initialState, train, trainingLoss } from '../src/meta/index.js';
import { adam, chain, clipByGlobalNorm } from '../src/optim/index.js';

interface Run {
  /** Gradient of the first step, by path. */
  readonly gradients: Map<string, number[]>;
  readonly losses: number[];
}

const STEPS = 50;

/** 50 steps of a sinusoid hypernetwork from seed 7, on the backend in use. */
async function run(): Promise<Run> {
  const hyper = hypernet({
    target: serial(dense(20), relu, dense(1, { gain: 1 })),
    inShape: [1],
    condition: setEncoder([32, 32]),
    trunk: dense(32),
    head: fullHead({ base: true }),
  });
  const learner = hypernetLearner(hyper, () => batch(0).support);
  const batch = (step: number) =>
    drawEpisodes(sinusoid, { split: 'train', seed: 7, first: step * 8, tasks: 8, shots: 10, queries: 10 });
  const loss = trainingLoss(learner, 1);
  const optimiser = chain(clipByGlobalNorm(1), adam(1e-3));
  const start = initialState(learner.init(key(7)), optimiser);
  const { grads } = valueAndGrad(loss)(start.params, batch(0));
  const gradients = new Map<string, number[]>();
  for (const [path, g] of tree.entries<Tensor>(grads)) gradients.set(path, [...(await g.data())]);
  const losses: number[] = [];
  await train({ loss, optimiser, batch }, start, {
    steps: STEPS,
    onLosses: (_, more) => losses.push(...more),
  });
  return { gradients, losses };
}

const opened: Backend[] = [];
const runs: Record<string, Run> = {};
beforeAll(async () => {
  for (const name of ['ref', 'cpu', 'webgpu'] as const) {
    const backend = await open(name);
    opened.push(backend);
    use(backend);
    runs[name] = await run();
  }
}, 180_000);
afterAll(() => {
  for (const backend of opened) backend.dispose();
});

/** Distance of two vectors over the length of the second. */
const apart = (a: number[], b: number[]) => Math.hypot(...a.map((x, i) => x - b[i])) / Math.hypot(...b);

test.each(['cpu', 'webgpu'])('%s: the first gradient is that of ref, leaf by leaf', name => {
  const { gradients } = runs[name];
  expect([...gradients.keys()]).toEqual([...runs.ref.gradients.keys()]);
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
