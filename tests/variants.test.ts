/** Tasks with networks of different widths and depths, their weights generated together and applied in one call. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  type Backend,
  chunkedHead,
  compile,
  dense,
  fullHead,
  type Head,
  hypernet,
  key,
  lowRankHead,
  materialise,
  mul,
  nn,
  normal,
  relu,
  type Strategy,
  serial,
  slice,
  square,
  sum,
  type Tensor,
  tanh,
  tensor,
  tree,
  trunkHead,
  use,
  valueAndGrad,
} from '../src/index.js';
import { opened } from './backends.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

const ref = createRef({ float: 64 });
const backend = opened('cpu', 'webgpu');
beforeEach(() => use(ref));

/** 4-16-1, 4-7-1 and, deeper, 4-5-6-1. */
const members = [
  serial(dense(16), tanh, dense(1)),
  serial(dense(7), tanh, dense(1)),
  serial(dense(5), tanh, dense(6), relu, dense(1)),
];
const target = nn.variants(...members);
const variant = [1, 0, 2, 2, 0, 1];
const [T, n] = [variant.length, 3];
const heads: Record<string, { head: Head; strategies: Strategy[] }> = {
  full: { head: fullHead({ base: true }), strategies: ['materialise', 'fused', 'reorder'] },
  lowRank: { head: lowRankHead({ rank: 1, base: true }), strategies: ['materialise', 'lowRank'] },
  chunked: { head: trunkHead(dense(6), chunkedHead({ chunk: 8, slot: 3 })), strategies: ['materialise'] },
};
const netOf = (head: Head) =>
  hypernet({ target, inShape: [4], condition: ({ inShape }) => identity(inShape), head });
/** Codes as they are given. */
const identity = (_inShape: readonly number[]) => ({
  size: 5,
  params: {},
  encode: (_: unknown, code: Tensor) => code,
  example: (k: Tensor, count: number) => normal(k, [count, 5]),
});
const draw = () => ({ code: normal(key(1), [T, 5]), x: normal(key(2), [T, n, 4]) });

/** Each task on its own: the windows of its weights cut out by hand. */
function oneByOne(theta: any, x: Tensor, t: number): Tensor {
  const own = materialise(theta) as Record<string, Tensor>;
  const specs = members[variant[t]].params([4]);
  const params = tree.mapWithPath((path: string, spec: nn.ParamSpec) => {
    const window = spec.shape.reduce((w, size, k) => slice(w, k + 1, 0, size), slice(own[path], 0, t, t + 1));
    const largest = Math.max(
      ...members.map(
        m =>
          tree
            .entries<nn.ParamSpec>(m.params([4]))
            .find(([p]) => p === path)?.[1]
            .variance() ?? 0,
      ),
    );
    return largest > 0 ? mul(window, Math.sqrt(spec.variance() / largest)) : window;
  }, specs);
  return members[variant[t]].apply(params, slice(x, 0, t, t + 1));
}

describe('networks that differ from task to task', () => {
  it.each(Object.keys(heads))('give each task its own, by every plan: %s', name => {
    const { head, strategies } = heads[name];
    const hyper = netOf(head);
    const phi = hyper.init(key(0));
    const { code, x } = draw();
    const theta = hyper.generate(phi, code);
    for (const strategy of [...strategies, undefined]) {
      const y = target.apply(theta, x, { variant, strategy });
      expect(y.shape).toEqual([T, n, 1]);
      for (let t = 0; t < T; t++) expectSameTree(slice(y, 0, t, t + 1), oneByOne(theta, x, t), 1e-12);
    }
  });

  it.each(Object.keys(heads))('with derivatives that agree with finite differences: %s', name => {
    const { head, strategies } = heads[name];
    const hyper = netOf(head);
    const rows = Int32Array.of(0, 2, 2, 5, 6, 9, 10);
    const ragged = normal(key(3), [10, 4]);
    for (const strategy of strategies) {
      const loss = (how: object, x: Tensor) => (p: any) =>
        sum(square(target.apply(hyper.generate(p.phi, p.code), x, { variant, strategy, ...how })));
      const at = { phi: hyper.init(key(0)), code: draw().code };
      const used = { ...at, phi: { head: at.phi.head, trunk: {}, condition: {}, kept: {} } };
      expectDerivatives(loss({}, draw().x), used, key(4), 1e-5);
      expectDerivatives(loss({ rows }, ragged), used, key(5), 1e-5);
    }
  });

  it('in one row of weights, each at its offset, that gives the same', () => {
    const hyper = netOf(heads.full.head);
    const { code, x } = draw();
    const theta = hyper.generate(hyper.init(key(0)), code);
    const sizes = [4 * 16 + 16 + 16 + 1, 4 * 7 + 7 + 7 + 1, 4 * 5 + 5 + 5 * 6 + 6 + 6 + 1];
    const offsets = target.offsets([4], variant);
    expect([...offsets]).toEqual(variant.reduce((at, k) => at.concat(at[at.length - 1] + sizes[k]), [0]));
    const packed = target.pack(theta, [4], variant);
    expect(packed.shape).toEqual([offsets[T]]);
    expectSameTree(target.apply(packed, x, { variant }), target.apply(theta, x, { variant }), 1e-12);
  });

  it('start each with the variance of its own layers', () => {
    const theta = netOf(fullHead({ base: true })).init(key(7));
    const hyper = netOf(fullHead({ base: true }));
    const packed = target.pack(hyper.generate(theta, normal(key(8), [400, 5])), [4], new Array(400).fill(1));
    const each = materialiseRows(packed, 400);
    // Second layer of 4-7-1: 7 weights of variance 2/7, where the shared parameter has 16 rows and up to 2/5.
    const second = each.flatMap(row => row.slice(4 * 7 + 7, 4 * 7 + 7 + 7));
    const variance = second.reduce((s, v) => s + v * v, 0) / second.length;
    expect(variance).toBeGreaterThan(0.5 * (2 / 7));
    expect(variance).toBeLessThan(2 * (2 / 7));
  });

  for (const on of ['cpu', 'webgpu'] as const)
    it(`the same on ${on}, in values and gradients, on cpu compiled too`, {
      timeout: 300_000,
    }, async context => {
      const here = backend(on, context);
      const hyper = netOf(heads.full.head);
      const step = (p: any, x: Tensor) => {
        const loss = (q: any) =>
          sum(square(target.apply(hyper.generate(q.phi, q.code), x, { variant, strategy: 'fused' })));
        const { value, grads } = valueAndGrad(loss, { unused: 'zeros' })(p);
        return [value, grads.code, grads.phi.head];
      };
      const run = async (backend: Backend, f: typeof step) => {
        use(backend);
        const { code, x } = draw();
        const out = f({ phi: hyper.init(key(0)), code }, x);
        return Promise.all(tree.leaves<Tensor>(out).map(async leaf => Array.from(await leaf.data())));
      };
      const want = await run(ref, step);
      for (const f of on === 'cpu' ? [step, compile(step)] : [step]) {
        const got = await run(here, f);
        for (const [k, leaf] of want.entries()) {
          const scale = Math.max(...leaf.map(Math.abs));
          const worst = Math.max(...leaf.map((v, i) => Math.abs(v - got[k][i])));
          // About 60 roundings of 6e-8 forward and as many back, of sums whose terms are a few times as large.
          expect(worst / scale, `leaf ${k}`).toBeLessThanOrEqual(2 * 60 * 6e-8 * 4);
        }
      }
    });

  it('refuse what does not fit, by name', () => {
    const hyper = netOf(heads.full.head);
    const { code, x } = draw();
    const theta = hyper.generate(hyper.init(key(0)), code);
    expect(() => target.apply(theta, x)).toThrow(/say which member each task has/);
    expect(() => target.apply(theta, x, { variant: [0, 1, 3, 0, 0, 0] })).toThrow(
      /task 2 has member 3, of 3 there are/,
    );
    expect(() => target.apply(theta, x, { variant: [0, 1] })).toThrow(/2 tasks do not fit x \[6,3,4\]/);
    expect(() => target.apply(theta, x, { variant, rows: tensor(Int32Array.of(0, 1)) })).toThrow(
      /host values/,
    );
    expect(() => nn.variants(dense(2), dense(3)).outShape([4])).toThrow(
      /yields \[3\], and the first member \[2\]/,
    );
    expect(() => nn.variants(dense(2), nn.conv2d(2, 3)).params([5, 5, 1])).toThrow(/cannot share a basis/);
    expect(() => nn.variants()).toThrow(/no member given/);
    expect(() => target.apply(tensor([1, 2, 3]), x, { variant })).toThrow(
      /weights in a row must be \[\d+\], got \[3\]/,
    );
  });
});

function materialiseRows(packed: Tensor, rows: number): number[][] {
  const values = Array.from(packed.dataSync());
  const size = values.length / rows;
  return Array.from({ length: rows }, (_, r) => values.slice(r * size, (r + 1) * size));
}
