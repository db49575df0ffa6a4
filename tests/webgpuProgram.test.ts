/** Compiled steps on WebGPU. A machine without an adapter fails here. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createOn } from '../src/backends/webgpu/backend.js';
import { createWebGPU, findGpu, node } from '../src/backends/webgpu/index.js';
import { SettlingSteps } from '../src/backends/webgpu/settling.js';
import type { Backend } from '../src/core/backend.js';
import { valueAndGrad } from '../src/core/grad.js';
import { full, scope, type Tensor, use } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { fullHead, type HypernetParams, hypernet, setEncoder } from '../src/hyper/index.js';
import { drawEpisodes, type Episodes, hypernetLearner, trainingLoss } from '../src/meta/index.js';
import { dense, serial } from '../src/nn/index.js';
import { key, matmul, mul, relu, square, sub, sum, tensor, transpose } from '../src/ops/index.js';
import { adam, applyUpdates, type Transform } from '../src/optim/index.js';
import { compile } from '../src/program/compile.js';
import { hypernetStep, randomStep, runBoth } from './programs.js';

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

/** A backend whose compiled steps share bind groups from their second run on. */
const settlingSoon = async () =>
  createOn(await findGpu(), {}, { ...node, steps: services => new SettlingSteps(services, 2) });

test('random steps: settled equals eager', async () => {
  const own = await settlingSoon();
  use(own);
  await fc.assert(
    fc.asyncProperty(randomStep, async step => {
      const { eager, again } = await runBoth(step);
      near(again, eager);
    }),
    { numRuns: 20, seed: 2 },
  );
  own.dispose();
  use(backend);
}, 120_000);

test('a settled step changes its bind group only around what it returns, and moves what it updates once', async () => {
  const own = await settlingSoon();
  use(own);
  let groups = 0;
  const { createCommandEncoder } = Object.getPrototypeOf(own.device.gpu) as GPUDevice;
  own.device.gpu.createCommandEncoder = descriptor => {
    const encoder = createCommandEncoder.call(own.device.gpu, descriptor);
    const begin = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = options => {
      const pass = begin(options);
      const set = pass.setBindGroup.bind(pass) as (...args: unknown[]) => void;
      pass.setBindGroup = (...args: unknown[]) => {
        groups++;
        set(...args);
      };
      return pass;
    };
    return encoder;
  };
  const update = (params: Tensor[], x: Tensor) => {
    const loss = (p: Tensor[]) => sum(square(matmul(relu(matmul(x, p[0])), p[1])));
    const { value, grads } = valueAndGrad(loss)(params);
    return [params.map((p, i) => sub(p, mul(grads[i], 1e-3))), value] as const;
  };
  const step = compile(update, { donate: [0] });
  const made = () => [full([5, 70], 0.1), full([70, 3], 0.2)];
  const x = full([4, 5], 0.5);
  let eager = made();
  for (let i = 0; i < 3; i++) [eager] = update(eager, x);
  const rows = await Promise.all(eager.map(async p => [...(await p.data())]));
  const pipelines: number[] = [];
  for (let round = 0; round < 2; round++) {
    let params = made();
    for (let i = 0; i < 3; i++) [params] = step(params, x);
    const before = { ...(own.describe().counters as Counters) };
    pipelines.push(before.pipelines);
    for (const [i, p] of params.entries()) near([[...(await p.data())]], [rows[i]]);
    groups = 0;
    const { dispatches } = own.describe().counters as Counters;
    [params] = step(params, x);
    const after = own.describe().counters as Counters;
    expect(after.dispatches - dispatches).toBeGreaterThan(4);
    expect(groups).toBeLessThanOrEqual(3);
    expect(after.buffers).toBeLessThanOrEqual(before.buffers + 1);
    for (const p of params) p.dispose();
  }
  // A second set of parameters goes by the same pipelines.
  expect(pipelines[1]).toBe(pipelines[0]);
  step.dispose();
  await own.sync();
  own.dispose();
  use(backend);
}, 60_000);

interface Counters {
  readonly submits: number;
  readonly passes: number;
  readonly dispatches: number;
  readonly bindGroups: number;
  readonly buffers: number;
  readonly bytes: number;
  readonly pipelines: number;
}

/** Expressions that share a dispatch need the bindings of most devices; on the least device they take a few more. */
const dispatches = (many: number, few: number): number => {
  const { maxBindings } = backend.describe().limits as { maxBindings: number };
  return maxBindings >= 16 ? many : few;
};

test('a training step of a hypernetwork is one submit of one pass of few dispatches, and makes nothing', async () => {
  const own = await createWebGPU();
  use(own);
  const { inputs, step: compiled } = hypernetStep();
  let [params, state, ...batch] = inputs();
  const run = (): Tensor => {
    const result = scope(() => compiled(params, state, ...batch));
    [params, state] = result;
    return result[2];
  };
  const losses: number[] = [];
  // Results are kept in a ring, whose buffers are all made first.
  for (let i = 0; i < 80; i++) losses.push(await run().item());
  const counters = () => ({ ...(own.describe().counters as Counters) });
  const before = counters();
  for (let i = 0; i < 10; i++) run();
  const after = counters();
  expect(after).toEqual({
    ...before,
    submits: before.submits + 10,
    passes: before.passes + 10,
    dispatches: after.dispatches,
  });
  expect((after.dispatches - before.dispatches) / 10).toBeLessThanOrEqual(dispatches(30, 34));
  expect(losses[79]).toBeLessThan(0.8 * losses[0]);
  compiled.dispose();
  await own.sync();
  own.dispose();
  use(backend);
}, 60_000);

test('updates of tensors of many shapes are one dispatch, whatever their layout', async () => {
  const shapes = [[3], [1], [70, 80], [4096], [2, 5], [0, 3]];
  const ramp = (n: number, scale: number) => Float32Array.from({ length: n }, (_, i) => (i % 97) * scale - 1);
  const made = (scale: number, reversed = false) =>
    shapes.map(shape => {
      const size = shape.reduce((a, b) => a * b, 1);
      return tensor(ramp(size, scale), reversed ? shape.toReversed() : shape);
    });
  const update = (params: Tensor[], grads: Tensor[], rate: Tensor) =>
    [params.map((p, i) => sub(p, mul(grads[i].rank === 2 ? transpose(grads[i]) : grads[i], rate)))] as const;
  const compiled = compile(update, { donate: [0] });
  const rate = tensor([0.25], []);
  const [expected] = update(made(0.1), made(0.3, true), rate);
  compiled(made(0.2), made(0.3, true), rate);
  const [params, grads] = [made(0.1), made(0.3, true)];
  await backend.sync();
  const before = (backend.describe().counters as Counters).dispatches;
  const [got] = compiled(params, grads, rate);
  expect((backend.describe().counters as Counters).dispatches - before).toBe(dispatches(1, 2));
  for (const [i, x] of got.entries()) expect([...(await x.data())]).toEqual([...(await expected[i].data())]);
});

/** What a device has made and holds. */
function held(backend: Backend): Pick<Counters, 'bindGroups' | 'buffers' | 'bytes' | 'pipelines'> {
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
    let before: ReturnType<typeof held> | undefined;
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
