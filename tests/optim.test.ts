import { beforeAll, describe, expect, test } from 'vitest';
import { init, memory, open, scope, type Tensor, tensor, tree, use, withBackend } from '../src/index.js';
import {
  adam,
  adamw,
  applyUpdates,
  chain,
  clipByGlobalNorm,
  constantSchedule,
  cosineSchedule,
  globalNorm,
  linearSchedule,
  sgd,
  type Transform,
  warmupSchedule,
} from '../src/optim/index.js';

const values = (t: Tensor) => [...t.dataSync()];

/** Runs a transform over given gradients of one parameter vector; returns the parameters after each update. */
function trajectory(optimiser: Transform<any>, start: number[], grads: number[][]): number[][] {
  let params = { w: tensor(start) };
  let state = optimiser.init(params);
  return grads.map(g => {
    const [updates, next] = optimiser.update({ w: tensor(g) }, state, params);
    params = applyUpdates(params, updates);
    state = next;
    return values(params.w);
  });
}

function expectClose(actual: number[][], expected: number[][], relative: number) {
  expect(actual.length).toBe(expected.length);
  actual.forEach((row, t) => {
    row.forEach((x, i) => {
      expect(Math.abs(x - expected[t][i]), `update ${t + 1}, element ${i}`).toBeLessThanOrEqual(
        relative * Math.max(1, Math.abs(expected[t][i])),
      );
    });
  });
}

const start = [0.5, -1.25, 3];
/** Gradients of very different sizes, fixed signs and alternating signs. */
const grads = Array.from({ length: 40 }, (_, t) => [1e-4 * (1 + t), (-1) ** t * 3, 200 * Math.sin(t) + 50]);

/** Algorithm 1 of Kingma and Ba (ICLR 2015), with decoupled decay, in ordinary double arithmetic. */
function adamByHand(rate: (t: number) => number, { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0 } = {}) {
  const w = [...start];
  const m = w.map(() => 0);
  const v = w.map(() => 0);
  return grads.map((g, index) => {
    const t = index + 1;
    w.forEach((old, i) => {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2;
      const step = m[i] / (1 - beta1 ** t) / (Math.sqrt(v[i] / (1 - beta2 ** t)) + eps);
      w[i] = old - rate(index) * (step + decay * old);
    });
    return [...w];
  });
}

function sgdByHand(rate: number, momentum: number, nesterov: boolean) {
  const w = [...start];
  const v = w.map(() => 0);
  return grads.map(g => {
    w.forEach((old, i) => {
      v[i] = momentum * v[i] + g[i];
      w[i] = old - rate * (nesterov ? g[i] + momentum * v[i] : v[i]);
    });
    return [...w];
  });
}

describe.each([
  { float: 64, relative: 1e-12 },
  // f32 parameters carry 6e-8 of rounding a step; 40 of them stay below this.
  { float: 32, relative: 3e-6 },
] as const)('against a float64 loop, float $float', ({ float, relative }) => {
  beforeAll(() => init({ backend: 'ref', float }).then(() => {}));

  test('Adam', () => {
    expectClose(
      trajectory(adam(0.01), start, grads),
      adamByHand(() => 0.01),
      relative,
    );
  });

  test('Adam with other constants', () => {
    const options = { beta1: 0.7, beta2: 0.95, eps: 1e-3 };
    expectClose(
      trajectory(adam(0.1, options), start, grads),
      adamByHand(() => 0.1, options),
      relative,
    );
  });

  test('Adam whose rate follows the counter', () => {
    const rate = (t: number) => 0.05 * 0.5 * (1 + Math.cos((Math.PI * Math.min(t, 30)) / 30));
    expectClose(trajectory(adam(cosineSchedule(0.05, 30)), start, grads), adamByHand(rate), relative);
  });

  test('AdamW, the decay scaled by the rate of the step', () => {
    const rate = (t: number) => 0.05 + ((0.01 - 0.05) * Math.min(t, 20)) / 20;
    const optimiser = adamw(linearSchedule(0.05, 0.01, 20), { weightDecay: 0.1 });
    expectClose(trajectory(optimiser, start, grads), adamByHand(rate, { decay: 0.1 }), relative);
  });

  test.each([
    { momentum: 0, nesterov: false },
    { momentum: 0.9, nesterov: false },
    { momentum: 0.9, nesterov: true },
  ])('SGD $momentum $nesterov', ({ momentum, nesterov }) => {
    expectClose(
      trajectory(sgd(1e-3, { momentum, nesterov }), start, grads),
      sgdByHand(1e-3, momentum, nesterov),
      relative,
    );
  });
});

describe('on f32', () => {
  beforeAll(() => init({ backend: 'ref' }).then(() => {}));

  test("Adam's first update is the rate, whatever the gradient's size", () => {
    const [after] = trajectory(adam(0.125), [0, 0, 0], [[1e-3, -7, 4e4]]);
    expectClose([after], [[-0.125, 0.125, -0.125]], 2e-6);
  });

  test('the bias correction keeps its digits: a constant gradient gives constant updates', () => {
    const rows = trajectory(
      adam(1),
      [0],
      Array.from({ length: 300 }, () => [0.3]),
    );
    const steps = rows.map(([w], t) => w - (t ? rows[t - 1][0] : 0));
    // w grows to 300, where f32 is 3e-5 wide; 1 - 0.999^t taken directly would be off by 6e-6 a step already at t = 1.
    expect(Math.abs(steps[0] + 1)).toBeLessThan(1e-6);
    for (const step of steps) expect(Math.abs(step + 1)).toBeLessThan(5e-5);
  });

  test('schedules at their corners', () => {
    const at = (schedule: ReturnType<typeof cosineSchedule>, t: number) => {
      const rate = schedule(tensor(t));
      return typeof rate === 'number' ? rate : rate.dataSync()[0];
    };
    const cosine = cosineSchedule(0.4, 100, { floor: 0.1 });
    expect([0, 50, 100, 1000].map(t => at(cosine, t))).toEqual(
      [0.4, 0.22, 0.04, 0.04].map(x => expect.closeTo(x, 6)),
    );
    const linear = linearSchedule(1, 0.5, 10);
    expect([0, 5, 10, 11].map(t => at(linear, t))).toEqual(
      [1, 0.75, 0.5, 0.5].map(x => expect.closeTo(x, 6)),
    );
    const warm = warmupSchedule(4, cosineSchedule(0.4, 100, { floor: 0.1 }));
    expect([0, 1, 3, 4, 54, 104].map(t => at(warm, t))).toEqual(
      [0.1, 0.2, 0.4, 0.4, 0.22, 0.04].map(x => expect.closeTo(x, 6)),
    );
    expect(at(warmupSchedule(2, 0.6), 0)).toBeCloseTo(0.3, 6);
    expect(at(constantSchedule(0.3), 7)).toBe(0.3);
    expect(() => cosineSchedule(1, 0)).toThrow(/steps must be a whole number above 0, got 0/);
  });

  test('clipping scales all leaves together, and only above the bound', () => {
    const clip = clipByGlobalNorm(10);
    const small = { a: tensor([3, 4]), b: [tensor(0)] };
    expect(values(globalNorm(small))).toEqual([5]);
    expect(tree.leaves<Tensor>(clip.update(small, {}, small)[0]).map(values)).toEqual([[3, 4], [0]]);
    const large = { a: tensor([30, 40]), b: [tensor(120)] };
    const [clipped] = clip.update(large, {}, large);
    expect(values(globalNorm(clipped))[0]).toBeCloseTo(10, 5);
    expect(values(clipped.b[0])[0]).toBeCloseTo(120 / 13, 5);
    const broken = { a: tensor([Number.NaN, 4]), b: [tensor(1)] };
    expect(tree.leaves<Tensor>(clip.update(broken, {}, broken)[0]).map(values)).toEqual([
      [Number.NaN, 4],
      [1],
    ]);
    expect(() => clipByGlobalNorm(0)).toThrow(/above 0/);
  });

  test('a chain feeds each transform the updates of the one before', () => {
    const clipped = trajectory(chain(clipByGlobalNorm(1), sgd(0.5)), [0, 0], [[30, 40]]);
    expectClose(clipped, [[-0.3, -0.4]], 1e-6);
    const flipped = trajectory(chain(sgd(0.5), clipByGlobalNorm(1)), [0, 0], [[0.3, 40]]);
    expectClose(flipped, [[-0.0075, -1]], 1e-4);
  });

  test('leaves without a gradient stay, and only named leaves decay', () => {
    const params = { w: tensor([2]), b: tensor([2]), ids: tensor(Int32Array.of(7)) };
    const optimiser = adamw(0.1, { weightDecay: 0.5, decays: path => path === 'w' });
    const state = optimiser.init(params);
    // Gradients are typed like the parameters, but are null where a leaf is not f32.
    const grads = { w: tensor([1]), b: tensor([1]), ids: null };
    const [updates] = Reflect.apply(optimiser.update, optimiser, [grads, state, params]);
    const after = applyUpdates(params, updates);
    expect(values(after.w)[0]).toBeCloseTo(2 - 0.1 - 0.1 * 0.5 * 2, 5);
    expect(values(after.b)[0]).toBeCloseTo(1.9, 5);
    expect(after.ids).toBe(params.ids);
  });

  test('an update keeps nothing but what it returns', () => {
    const params = { w: tensor([1, 2]), b: tensor([3]) };
    const optimiser = chain(clipByGlobalNorm(1), adamw(cosineSchedule(0.1, 10)));
    const state = optimiser.init(params);
    const grads = { w: tensor([1, 1]), b: tensor([1]) };
    // Tensors of ordinary memory count as live while a scope holds them.
    const kept = scope(() => {
      const before = memory().tensors;
      optimiser.update(grads, state, params);
      return memory().tensors - before;
    });
    expect(kept).toBe(2 + 5);
  });

  test("state lives on the parameters' backend", async () => {
    const other = await open('ref');
    const params = withBackend(other, () => ({ w: tensor([1]) }));
    expect(tree.leaves<Tensor>(adam(1).init(params)).every(t => t.backend === other)).toBe(true);
    use(await open('ref'));
  });
});
