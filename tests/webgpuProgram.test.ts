/** Compiled steps on WebGPU. A machine without an adapter fails here. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createWebGPU } from '../src/backends/webgpu/index.js';
import type { Backend } from '../src/core/backend.js';
import { valueAndGrad } from '../src/core/grad.js';
import { scope, type Tensor, use } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { fullHead, type HypernetParams, hypernet, setEncoder } from '../src/hyper/index.js';
import { drawEpisodes, type Episodes, hypernetLearner, trainingLoss } from '../src/meta/index.js';
import { dense, serial } from '../src/nn/index.js';
import { key, relu } from '../src/ops/index.js';
import { adam, applyUpdates, type Transform } from '../src/optim/index.js';
import { compile } from '../src/program/compile.js';
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

interface Counters {
  readonly bindGroups: number;
  readonly buffers: number;
  readonly bytes: number;
  readonly pipelines: number;
}

/** What a device has made and holds. */
function held(backend: Backend): Counters {
  const { bindGroups, buffers, bytes, pipelines } = backend.describe().counters as Counters;
  return { bindGroups, buffers, bytes, pipelines };
}

test('steps that repeat make nothing once warm, compiled and eager', async () => {
  // Garbage of other tests would give buffers back in the middle of it.
  const own = await createWebGPU();
  use(own);
  const net = hypernet({
    target: serial(dense(8), relu, dense(1)),
    inShape: [1],
    condition: setEncoder([8]),
    trunk: dense(8),
    head: fullHead(),
  });
  const optimiser: Transform<any> = adam(1e-3);
  const learner = hypernetLearner(net);
  const loss = trainingLoss(learner, 1);
  const update = (params: HypernetParams, state: unknown, batch: Episodes) => {
    const { value, grads } = valueAndGrad(loss)(params, batch);
    const [updates, next] = optimiser.update(grads, state, params);
    return [applyUpdates(params, updates), next, value] as const;
  };
  const compiled = compile(update, { donate: [0, 1] });
  const run = async (step: typeof update, steps: number, warm: number) => {
    using seed = key(0);
    let params = learner.init(seed);
    let state: unknown = scope(() => optimiser.init(params));
    let before: Counters | undefined;
    for (let i = 0; i < steps; i++) {
      const old = [params, state];
      using value = scope(() => {
        const batch = drawEpisodes(sinusoid, {
          split: 'train',
          seed: 0,
          first: i,
          tasks: 2,
          shots: 3,
          queries: 3,
        });
        const [nextParams, nextState, loss] = step(params, state, batch);
        [params, state] = [nextParams, nextState];
        return [nextParams, nextState, loss] as const;
      })[2];
      if (step === update) for (const leaf of tree.leaves(old)) (leaf as Tensor).dispose();
      if (i % 10 === 9) await value.item();
      if (i === warm) before = held(own);
    }
    const { bindGroups, ...rest } = held(own);
    // What the garbage collector gives back changes once which buffers are handed out next.
    expect(bindGroups - before!.bindGroups).toBeLessThan(20);
    expect({ ...rest, bindGroups: before!.bindGroups }).toEqual(before);
    for (const leaf of tree.leaves([params, state])) (leaf as Tensor).dispose();
  };
  await run(compiled, 300, 50);
  await run(update, 60, 20);
  compiled.dispose();
  await own.sync();
  own.dispose();
}, 120_000);
