/** Chains of per-task layers in one dispatch. A machine without an adapter fails here. */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import { createOn } from '../src/backends/webgpu/backend.js';
import type { Services } from '../src/backends/webgpu/executable.js';
import { findGpu, node } from '../src/backends/webgpu/index.js';
import { SettlingSteps } from '../src/backends/webgpu/settling.js';
import {
  add,
  type Backend,
  compile,
  key,
  matmul,
  mean,
  mul,
  normal,
  relu,
  reshape,
  square,
  sub,
  type Tensor,
  tree,
  unpack,
  use,
  valueAndGrad,
} from '../src/index.js';
import { hypernetStep } from './programs.js';

let chained: Backend;
let plain: Backend;
/** Shares bind groups from the second run on. */
let settled: Backend;
const ref = createRef({ float: 64 });
beforeAll(async () => {
  const gpu = await findGpu();
  chained = await createOn(gpu, { software: false }, node);
  plain = await createOn(gpu, { software: false }, { ...node, join: undefined });
  const steps = (services: Services) => new SettlingSteps(services, 1);
  settled = await createOn(gpu, { software: false }, { ...node, steps });
});
afterAll(async () => {
  for (const backend of [chained, plain, settled]) {
    await backend?.sync();
    backend?.dispose();
  }
});

interface Net {
  readonly tasks: number;
  readonly rows: number;
  /** Of x, then of each layer's result. */
  readonly widths: readonly number[];
  readonly activation: 'relu' | 'square';
  /** Whether all weights of a task lie side by side, as a hypernetwork makes them. */
  readonly packed: boolean;
}

const activations = { relu, square: (h: Tensor) => mul(square(h), 0.1) };

/** A network with weights of its own for every task: loss and gradients. */
function stepOf({ tasks, widths, activation, packed }: Net) {
  const layers = widths.slice(1).map((o, l) => [widths[l], o] as const);
  const sizes = layers.flatMap(([i, o]) => [i * o, o]);
  const forward = (theta: Tensor[], x: Tensor, y: Tensor): Tensor => {
    const parts = packed ? unpack(theta[0], sizes) : theta;
    const h = layers.reduce((h, [i, o], l) => {
      const [w, b] = [reshape(parts[2 * l], [tasks, i, o]), reshape(parts[2 * l + 1], [tasks, 1, o])];
      const z = add(matmul(h, w), b);
      return l < layers.length - 1 ? activations[activation](z) : z;
    }, x);
    return mean(square(sub(h, y)));
  };
  return {
    sizes,
    step: valueAndGrad((p: { theta: Tensor[]; x: Tensor }, y: Tensor) => forward(p.theta, p.x, y)),
  };
}

function inputsOf({ tasks, rows, widths, packed }: Net, sizes: readonly number[]) {
  const total = sizes.reduce((a, b) => a + b, 0);
  const shapes = packed ? [[tasks, total]] : sizes.map(size => [tasks, size]);
  const theta = shapes.map((shape, k) => mul(normal(key(k), shape), 0.5));
  return [
    { theta, x: normal(key(98), [tasks, rows, widths[0]]) },
    normal(key(99), [tasks, rows, widths.at(-1)!]),
  ] as const;
}

/** All numbers of a compiled step's result and the dispatches that a call takes; of an eager one on `ref`. */
async function run(backend: Backend, net: Net): Promise<{ leaves: number[][]; dispatches: number }> {
  use(backend);
  const { sizes, step } = stepOf(net);
  const inputs = inputsOf(net, sizes);
  const called = backend === ref ? step : compile(step);
  const counted = () => (backend.describe().counters as { dispatches: number } | undefined)?.dispatches ?? 0;
  const first = called(...inputs);
  await Promise.all(tree.leaves<Tensor>([first.value, first.grads]).map(x => x.data()));
  const before = counted();
  const { value, grads } = called(...inputs);
  const dispatches = counted() - before;
  const read = tree.leaves<Tensor>([value, grads]).map(async x => [...(await x.data())]);
  return { leaves: await Promise.all(read), dispatches };
}

/** Sums of at most 40 products in each of three layers, there and back, rounded to f32. */
const RELATIVE = 2 * 3 * 40 * 2 ** -24;

/** Expects the oracle's numbers of a backend, and gives the dispatches they took. */
async function expectRight(net: Net, backend = chained): Promise<number> {
  const { leaves: want } = await run(ref, net);
  const { leaves: got, dispatches } = await run(backend, net);
  want.forEach((leaf, k) => {
    const scale = Math.max(...leaf.map(Math.abs));
    const worst = Math.max(...leaf.map((x, i) => Math.abs(x - got[k][i])));
    expect(worst, `leaf ${k} of ${JSON.stringify(net)}`).toBeLessThanOrEqual(RELATIVE * scale);
  });
  return dispatches;
}

const upTo = (max: number) => fc.integer({ min: 1, max });

test('layers of random sizes, there and back, equal the oracle', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        tasks: fc.constantFrom(8, 9, 17),
        rows: upTo(12),
        widths: fc.array(upTo(40), { minLength: 2, maxLength: 4 }),
        activation: fc.constantFrom('relu' as const, 'square' as const),
        packed: fc.boolean(),
      }),
      async net => void (await expectRight(net)),
    ),
    { numRuns: 25, seed: 1, endOnFailure: true },
  );
}, 300_000);

test('edges of what a chain takes: few tasks, one row, wide layers beside narrow ones', async () => {
  const net = { tasks: 8, rows: 1, widths: [1, 1], activation: 'relu', packed: true } as const;
  await expectRight(net);
  const few = { ...net, tasks: 7, widths: [3, 4, 2] };
  expect(await expectRight(few)).toBe((await run(plain, few)).dispatches);
  const enough = { ...few, tasks: 8 };
  expect(await expectRight(enough)).toBeLessThan((await run(plain, enough)).dispatches);
  await expectRight({ ...net, rows: 9, widths: [2, 130, 3] });
  await expectRight({ ...net, rows: 30, widths: [40, 40, 40, 1], packed: false });
}, 300_000);

test('chains of settled steps equal the oracle', async () => {
  const net = { tasks: 9, rows: 5, widths: [3, 20, 2], activation: 'square', packed: true } as const;
  expect(await expectRight(net, settled)).toBeLessThan((await run(plain, net)).dispatches);
}, 300_000);

test('a chain takes the place of most dispatches of a network', async () => {
  const net = { tasks: 25, rows: 10, widths: [1, 40, 40, 1], activation: 'relu', packed: true } as const;
  const [one, other] = [await run(chained, net), await run(plain, net)];
  expect(other.dispatches).toBeGreaterThanOrEqual(9);
  expect(one.dispatches).toBeLessThanOrEqual(other.dispatches / 2);
}, 300_000);

test('chains take the place of a third of the dispatches of a hypernetwork in training', async () => {
  const dispatches: number[] = [];
  for (const backend of [chained, plain]) {
    use(backend);
    const { inputs, step: compiled } = hypernetStep();
    const counted = () => (backend.describe().counters as { dispatches: number }).dispatches;
    let [params, state, ...batch] = inputs();
    const losses: number[] = [];
    for (let i = 0; i < 20; i++) {
      const before = counted();
      const result = compiled(params, state, ...batch);
      if (i === 1) dispatches.push(counted() - before);
      [params, state] = result;
      losses.push(await result[2].item());
    }
    expect(losses[19]).toBeLessThan(losses[0]);
    compiled.dispose();
  }
  expect(dispatches[0]).toBeLessThanOrEqual((2 / 3) * dispatches[1]);
}, 300_000);
