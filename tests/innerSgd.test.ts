/** Gradient descent on linear layers without a weight per task is the explicit loop, to second order. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  broadcastTo,
  FastGenerated,
  hvp,
  key,
  linear,
  materialise,
  matmul,
  meta,
  mul,
  nn,
  normal,
  planOf,
  projectFull,
  scope,
  square,
  sub,
  sum,
  type Tensor,
  tanh,
  tree,
  use,
  valueAndGrad,
  type Weight,
} from '../src/index.js';
import { opened } from './backends.js';
import { expectSameTree } from './derivatives.js';

const ref = createRef({ float: 64 });
const backend = opened('cpu', 'webgpu');

describe('implicit fast weights', () => {
  beforeEach(() => use(ref));

  const [T, S, n] = [3, 2, 4];
  const target = nn.serial(nn.dense(5), nn.lambda(tanh), nn.dense(2));
  const data = () => ({
    support: normal(key(20), [T, S, 3]),
    answers: normal(key(21), [T, S, 2]),
    query: normal(key(22), [T, n, 3]),
  });
  const lossOn = (x: Tensor, y: Tensor) => (params: any) => sum(square(sub(target.apply(params, x), y)));
  const pieces = (phi: any) =>
    projectFull(phi.code, phi.basis, phi.base, [
      [3, 5],
      [5, 2],
    ]);
  const starts: Record<string, { phi: () => any; build: (phi: any) => { w: Weight; b: Tensor }[] }> = {
    'one start for all tasks': {
      phi: () => ({
        layers: [
          { w: normal(key(1), [3, 5]), b: normal(key(2), [5]) },
          { w: normal(key(3), [5, 2]), b: normal(key(4), [2]) },
        ],
      }),
      build: phi => phi.layers,
    },
    'generated starts': {
      phi: () => ({
        code: normal(key(5), [T, 4]),
        basis: normal(key(6), [4, 25]),
        base: normal(key(7), [25]),
        b: [normal(key(8), [5]), normal(key(9), [2])],
      }),
      build: phi => pieces(phi).map((w, l) => ({ w, b: phi.b[l] })),
    },
  };
  const rate = 0.05;

  /** The loss after steps without a weight per task, and after the same with one. */
  function losses(name: string, steps: number, firstOrder: boolean) {
    const { phi, build } = starts[name];
    const layersOf = (layers: readonly unknown[]) => ({ layers: [layers[0], {}, layers[1]] });
    const outer = (inner: (loss: (p: any) => Tensor, layers: any) => any) => (p: any) => {
      const adapted = inner(lossOn(p.support, p.answers), layersOf(build(p.phi)));
      return sum(square(target.apply(adapted, p.query)));
    };
    const biases = (params: any) =>
      tree.mapWithPath((path, x) => (path.endsWith('b') ? broadcastTo(x, [T, ...x.shape]) : x), params);
    const implicit = outer((loss, params) =>
      meta.innerSgd(loss, biases(params), { tasks: T, steps, learningRate: rate, firstOrder }),
    );
    const explicit = outer((loss, params) => {
      const whole = tree.map(
        x => (x.shape[0] === T && x.rank === 3 ? x : broadcastTo(x, [T, ...x.shape])),
        materialise(params),
      );
      return meta.adapt(loss, whole, { steps, learningRate: rate, firstOrder });
    });
    return { implicit, explicit, at: () => ({ phi: phi(), ...data() }) };
  }
  /** Value, gradients, and Hessian times a direction. */
  function results(f: (p: any) => Tensor, at: any) {
    const { value, grads } = valueAndGrad(f, { unused: 'zeros' })(at);
    let k = 30;
    const direction = tree.map(x => normal(key(k++), x.shape), at);
    return { value, grads, second: hvp(f, at, direction) };
  }

  const values = (x: unknown) =>
    Promise.all(tree.leaves<Tensor>(x).map(async leaf => Array.from(await leaf.data())));

  for (const name of Object.keys(starts)) {
    it(`equal the explicit loop in float64, in value, gradient and second gradient: ${name}`, () => {
      use(ref);
      for (const firstOrder of [false, true])
        for (const steps of [0, 1, 2, 3, 4, 5]) {
          const { implicit, explicit, at } = losses(name, steps, firstOrder);
          expectSameTree(results(implicit, at()), results(explicit, at()), 1e-8);
        }
    });

    for (const on of ['cpu', 'webgpu'] as const)
      it(`and in f32 on ${on}: ${name}`, { timeout: 300_000 }, async context => {
        use(backend(on, context));
        for (const steps of [1, 2, 3, 4, 5]) {
          const { implicit, explicit, at } = losses(name, steps, false);
          const [got, want] = await Promise.all([implicit, explicit].map(f => values(results(f, at()))));
          // A pass through both layers rounds a value by 6e-8 in each of about 30 sums and products; there is a pass for each
          // step and one for the query, and four times as many with the gradient and the Hessian's two.
          for (const [k, leaf] of want.entries()) {
            const scale = Math.max(...leaf.map(Math.abs));
            const worst = Math.max(...leaf.map((x, i) => Math.abs(got[k][i] - x)));
            expect(worst / scale, `leaf ${k} after ${steps} steps`).toBeLessThanOrEqual(
              4 * 30 * 6e-8 * (steps + 1),
            );
          }
        }
      });
  }

  it('hold no weight per task, and become one where it is asked for', () => {
    const w = normal(key(1), [3, 2]);
    const step = { x: normal(key(2), [T, S, 3]), delta: normal(key(3), [T, S, 2]), rate: 0.1 };
    const fast = scope(() => new FastGenerated(w, T, [{ ...step, x: mul(step.x, 1) }]));
    expect(fast.shape).toEqual([T, 3, 2]);
    const x = normal(key(4), [T, n, 3]);
    expectSameTree(linear(x, fast), matmul(x, materialise(fast)), 1e-12);
    expect(() => linear(normal(key(5), [4, 3]), fast, null, { rows: Int32Array.of(0, 1, 2, 4) })).toThrow(
      /give every task as many rows/,
    );
    expect(() => new FastGenerated(w, T, [{ ...step, delta: step.x }])).toThrow(
      /must be \[3,S,3\] and \[3,S,2\]/,
    );
    expect(() => planOf(fast, 2)).toThrow(/applied by the plan of its start/);
  });
});
