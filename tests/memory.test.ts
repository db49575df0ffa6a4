/** The memory contract of compiled steps: what is promised is kept, or refused before anything runs. */
import { beforeEach, describe, expect, it } from 'vitest';
import {
  adam,
  add,
  applyUpdates,
  type Backend,
  compile,
  dense,
  FullGenerated,
  fullHead,
  hypernet,
  init,
  key,
  linear,
  MemoryContractError,
  matmul,
  mean,
  mul,
  normal,
  relu,
  serial,
  setEncoder,
  square,
  sub,
  sum,
  Tensor,
  transpose,
  tree,
  valueAndGrad,
} from '../src/index.js';

let backend: Backend;
beforeEach(async () => {
  backend = await init({ backend: 'cpu', threads: 1 });
});

const [T, n, E, i, o] = [200, 3, 5, 40, 48];
const W = 4 * T * i * o;
const args = () =>
  [
    [E, i, o],
    [T, E],
    [T, n, i],
    [T, n, o],
  ].map((shape, k) => normal(key(k), shape)) as [Tensor, Tensor, Tensor, Tensor];
const loss = (basis: Tensor, code: Tensor, x: Tensor, y: Tensor) =>
  mean(square(sub(linear(x, new FullGenerated(code, basis), null, { strategy: 'materialise' }), y)));
const gradients = (basis: Tensor, code: Tensor, x: Tensor, y: Tensor) => {
  const both = valueAndGrad((p: { basis: Tensor; code: Tensor }) => loss(p.basis, p.code, x, y));
  return both({ basis, code });
};
const external = 4 * (2 * (E * i * o + T * E) + T * n * (i + o) + 1);

const values = (x: unknown) =>
  tree
    .leaves(x)
    .filter(leaf => leaf instanceof Tensor)
    .map(leaf => leaf.dataSync());
const close = (a: unknown, b: unknown) => {
  const [xs, ys] = [a, b].map(values);
  expect(xs.length).toBe(ys.length);
  xs.forEach((x, k) => {
    const scale = Math.max(...ys[k].map(Math.abs));
    const worst = Math.max(...Array.from(x, (v, j) => Math.abs(v - ys[k][j])));
    expect(worst).toBeLessThanOrEqual(1e-5 * scale);
  });
};

describe('maxBytes', () => {
  it('changes nothing where the step fits', () => {
    const free = compile(gradients);
    const expected = free(...args());
    const [{ peakBytes, scratchBytes, commands }] = free.stats();
    expect(peakBytes).toBe(external + scratchBytes);
    expect(scratchBytes).toBeGreaterThanOrEqual(W);
    const bound = compile(gradients, { maxBytes: peakBytes });
    expect(values(bound(...args()))).toEqual(values(expected));
    expect(bound.stats()[0].commands.length).toBe(commands.length);
  });

  it.each([1.9, 1.2, 0.7, 0.35])(
    'is kept at %f times the weights by cutting the tasks in parts, with equal gradients',
    share => {
      const maxBytes = external + share * W;
      const expected = compile(gradients)(...args());
      const step = compile(gradients, { maxBytes });
      close(step(...args()), expected);
      // The second call compares what the step does with the first.
      close(step(...args()), expected);
      expect(step.stats()[0].peakBytes).toBeLessThanOrEqual(maxBytes);
    },
  );

  it('is refused with the exact shortfall before anything has run', () => {
    let least = 0;
    const given = args();
    const { allocations } = backend.describe();
    try {
      compile(gradients, { maxBytes: 10_000 })(...given);
    } catch (error) {
      expect(error).toBeInstanceOf(MemoryContractError);
      const [, needed, short] = /needs (\d+) bytes .* (\d+) more than maxBytes = 10000/.exec(
        (error as Error).message,
      )!;
      least = Number(needed);
      expect(Number(short)).toBe(least - 10_000);
    }
    expect(least).toBeGreaterThan(external);
    expect(backend.describe().allocations).toBe(allocations);
    const expected = compile(gradients)(...args());
    close(compile(gradients, { maxBytes: least })(...args()), expected);
    expect(() => compile(gradients, { maxBytes: least - 1 })(...given)).toThrow(/ 1 more than maxBytes/);
  });

  it('holds for second derivatives', () => {
    const second = (basis: Tensor, code: Tensor, x: Tensor, y: Tensor) =>
      valueAndGrad((b: Tensor) => {
        const { grads } = valueAndGrad((c: Tensor) => loss(b, c, x, y))(code);
        return sum(square(grads));
      })(basis);
    const free = compile(second);
    const expected = free(...args());
    const maxBytes = Math.round((2 / 3) * free.stats()[0].peakBytes);
    const step = compile(second, { maxBytes });
    close(step(...args()), expected);
    expect(step.stats()[0].peakBytes).toBeLessThanOrEqual(maxBytes);
  });

  it('trains a hypernetwork in half the memory, as it would in all', () => {
    const hyper = hypernet({
      target: serial(dense(64), relu, dense(64), relu, dense(1)),
      inShape: [2],
      condition: setEncoder([8]),
      head: fullHead({ base: true }),
    });
    const optimizer = adam(1e-2);
    const [x, y] = [normal(key(1), [64, 4, 2]), normal(key(2), [64, 4, 1])];
    const stepBy = (strategy?: 'materialise') => (phi: any, state: any, scale: number) => {
      const { value, grads } = valueAndGrad((p: any) => {
        const theta = hyper.generate(p, hyper.encode(p, { x, y }));
        return mul(mean(square(sub(hyper.target.apply(theta, x, { strategy }), y))), scale);
      })(phi);
      const [updates, next] = optimizer.update(grads, state, phi);
      return [applyUpdates(phi, updates), next, value];
    };
    const run = (maxBytes: number, strategy?: 'materialise') => {
      const program = compile(stepBy(strategy), { donate: [0, 1], maxBytes });
      let phi: unknown = hyper.init(key(0));
      let state: unknown = optimizer.init(phi);
      let value: unknown;
      for (let k = 0; k < 5; k++) [phi, state, value] = program(phi, state, 1) as unknown[];
      return { value, stats: program.stats()[0] };
    };
    const free = run(Infinity, 'materialise');
    const maxBytes = Math.round(0.6 * free.stats.peakBytes);
    // By the plan it would choose itself, and with weights made of some tasks after the others.
    for (const strategy of [undefined, 'materialise'] as const) {
      const bound = run(maxBytes, strategy);
      expect(bound.stats.peakBytes).toBeLessThanOrEqual(maxBytes);
      close(bound.value, free.value);
    }
  });

  it('saves the memory of a gradient whose product updates the parameters itself, to the bit', () => {
    const [m, k, n] = [64, 25, 1761];
    const [code, dW] = [normal(key(1), [k, m]), normal(key(2), [k, n])];
    const step = (p: Tensor, mean: Tensor, code: Tensor, dW: Tensor) => {
      const next = add(mul(mean, 0.9), matmul(transpose(code), dW));
      return [sub(p, mul(next, 0.1)), next];
    };
    const run = (maxBytes: number) => {
      const program = compile(step, { donate: [0, 1], maxBytes });
      let state = [normal(key(3), [m, n]), normal(key(4), [m, n])];
      for (let i = 0; i < 3; i++) state = program(state[0], state[1], code, dW);
      return { values: state.map(t => t.dataSync()), stats: program.stats()[0] };
    };
    const free = run(Infinity);
    const gradient = 4 * m * n;
    expect(free.stats.scratchBytes).toBeGreaterThanOrEqual(gradient);
    const bound = run(free.stats.peakBytes - gradient);
    expect(bound.stats).toMatchObject({ scratchBytes: 0, inPlace: 2 });
    expect(bound.stats.commands.length).toBe(1);
    expect(bound.values).toEqual(free.values);
  });
});
