/** Compiled steps on the native backend: the bits of eager runs, at any number of threads. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import { createRef } from '../src/backends/ref.js';
import type { Backend } from '../src/core/backend.js';
import { valueAndGrad } from '../src/core/grad.js';
import { defineOp } from '../src/core/op.js';
import { type Tensor, use, withBackend } from '../src/core/tensor.js';
import * as o from '../src/ops/index.js';
import { adam } from '../src/optim/index.js';
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
    ['columns', (a, b) => o.sum(o.mul(a, b), 0), 1],
    ['columns cut into pieces', (a, b) => o.sum(o.mul(o.reshape(a, [750, 8]), o.reshape(b, [750, 8])), 0), 1],
    [
      'columns that cannot be cut',
      (a, b) => o.maxOver(o.sub(o.reshape(a, [6000, 1]), o.reshape(b, [6000, 1])), 0),
      1,
    ],
    [
      'columns of tasks',
      (a, b) => o.sum(o.mul(o.reshape(a, [4, 10, 10, 15]), o.reshape(b, [4, 10, 10, 15])), [1, 2]),
      1,
    ],
    [
      'columns of what is broadcast',
      (a, b) => o.sum(o.mul(o.sub(a, o.slice(b, 1, 3, 4)), o.slice(b, 0, 0, 1)), 0),
      1,
    ],
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

test('a mask behind max-pooling is taken of the maxima, and what is pooled is never stored', () => {
  const x = o.floor(o.mul(o.normal(o.key(4), [3, 9, 8, 20]), 2)); // ties and zeros
  const scale = o.normal(o.key(5), [20]);
  const slope = (window: number, stride: number, also: (h: Tensor) => Tensor) => {
    const loss = (v: Tensor) => {
      const h = o.relu(o.add(o.mul(v, scale), 0.5));
      return o.add(o.sum(o.tanh(o.maxPool(h, window, { stride }))), o.sum(also(h)));
    };
    return (v: Tensor) => valueAndGrad(loss)(v).grads;
  };
  const none = () => o.zeros([]);
  for (const [what, window, stride, also, stored] of [
    ['windows side by side', 2, 2, none, 2],
    ['windows with gaps', 2, 3, none, 2],
    ['windows that overlap', 3, 2, none, 3],
    ['another reader', 2, 2, o.square, 3],
  ] as const) {
    const step = slope(window, stride, also);
    const fast = compile(step);
    const values = (y: Tensor) => Array.from(y.dataSync(), v => v + 0); // a zero's sign may differ
    expect(values(fast(x)), what).toEqual(values(step(x)));
    const large = fast.stats()[0].commands.filter(c => c.shape.length === 4 && c.shape[1] === 9);
    expect(large.length, `${what}: ${large.map(c => c.op)}`).toBe(stored);
    fast.dispose();
  }
});

test('what is put beside something else is stored there by the kernel that makes it', () => {
  const steps: [string, (a: Tensor, b: Tensor) => Tensor, number][] = [
    [
      'a product, a sum and an expression',
      (a, b) => o.concat([o.matmul(a, b), o.sum(a, 0, { keepDims: true }), o.tanh(b)], 0),
      0,
    ],
    [
      'windows of windows, which are gathered once',
      (a, b) =>
        o.concat([o.concat([o.exp(a), o.matmul(a, b)], 1), o.concat([o.matmul(b, a), o.exp(b)], 1)], 0),
      2,
    ],
    ['an input, which is copied', (a, b) => o.concat([a, o.exp(b)], 0), 1],
    [
      'what is read elsewhere too',
      (a, b) => {
        const x = o.exp(a);
        return o.matmul(o.concat([x, b], 1), o.concat([b, x], 0));
      },
      4,
    ],
  ];
  const [k1, k2] = o.split(o.key(6), 2);
  const [a, b] = [o.normal(k1, [33, 33]), o.normal(k2, [33, 33])];
  for (const [what, step, copies] of steps) {
    const fast = compile(step);
    expect(Array.from(fast(a, b).dataSync()), what).toEqual(Array.from(step(a, b).dataSync()));
    expect(fast.stats()[0].commands.filter(c => c.kernel === 'copy').length, what).toBe(copies);
    fast.dispose();
  }
});

test('a compiled step allocates nothing, whatever its arguments are', () => {
  const optimiser = adam(1e-2);
  const loss = (w: Tensor, x: Tensor, y: Tensor) => o.mean(o.square(o.sub(o.matmul(x, w), y)));
  type State = ReturnType<typeof optimiser.init>;
  const step = compile(
    (w: Tensor, state: State, x: Tensor, y: Tensor, scale: number) => {
      const { value, grads } = valueAndGrad(loss)(w, o.reshape(x, [64, 128]), o.mul(y, scale));
      const [updates, next] = optimiser.update(grads, state, w);
      return [o.add(w, updates), next, value] as const;
    },
    { donate: [0, 1] },
  );
  let w = o.normal(o.key(7), [128, 64]);
  let state = optimiser.init(w);
  const view = o.transpose(o.normal(o.key(8), [64, 64]));
  const call = (i: number) => {
    // A compiled step has the type of its function, and takes arrays too.
    const rows = new Float32Array(64 * 128).fill(1 / (i + 1));
    [w, state] = Reflect.apply(step, undefined, [w, state, rows, view, 1 + i]);
  };
  for (let i = 0; i < 64; i++) call(i); // fills the ring of kept losses
  const { allocations, scratchBytes } = backend.describe();
  expect(allocations).toBeGreaterThan(64);
  for (let i = 0; i < 100; i++) call(i);
  expect(backend.describe()).toMatchObject({ allocations, scratchBytes });
});

test('a profiled call is a call, and tells the time of every command', () => {
  // An op without a native kernel, which runs in JavaScript between the native commands.
  const twice = defineOp({
    name: 'profiledTwice',
    outputs: ([x]: readonly Tensor[]) => ({ shape: x.shape }),
    ref: ([y], [x]) => y.data.set(x.data.map(v => 2 * v)),
  });
  const body = (w: Tensor, x: Tensor) => [o.sub(w, twice([o.matmul(x, w)])), o.sum(x)];
  const step = compile(body, { donate: [0] });
  const [w, x] = o.split(o.key(9), 2).map(k => o.normal(k, [40, 40]));
  const want = body(w, x).map(t => Array.from(t.dataSync()));
  const { result, commands } = step.profile(w, x);
  expect(result.map(t => Array.from(t.dataSync()))).toEqual(want);
  expect(() => w.dataSync()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  expect(commands.map(({ ms: _, ...command }) => command)).toEqual(step.stats()[0].commands);
  expect(commands.map(c => c.op).sort()).toEqual(['matmul', 'profiledTwice', 'sub', 'sum']);
  for (const { ms } of commands) expect(ms).toBeGreaterThanOrEqual(0);
  const elsewhere = withBackend(createRef(), () => o.tensor([1, 2]));
  expect(() => compile((x: Tensor) => o.exp(x)).profile(elsewhere)).toThrow(
    expect.objectContaining({ code: 'ERR_BACKEND' }),
  );
});
