/** Attention: the layer, the transformer, heads that attend over slots, and attention and norms that are generated. */
import { describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  add,
  attentionHead,
  chunkedHead,
  concat,
  dense,
  fullHead,
  grad,
  hypernet,
  key,
  materialise,
  mean,
  mul,
  nn,
  normal,
  serial,
  setEncoder,
  slice,
  square,
  stack,
  type Tensor,
  tanh,
  tensor,
  tree,
  trunkHead,
  use,
} from '../src/index.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

use(createRef({ float: 64 }));
const values = (x: Tensor) => Array.from(x.dataSync());
const { attention, batchNorm, transformer } = nn;

describe('attention', () => {
  const layer = attention({ heads: 2 });
  const params = layer.init(key(0), [4]);
  const x = normal(key(1), [2, 3, 4]);

  it('is the mean of the values, weighed by the softmax of queries with keys, head by head', () => {
    const rows = (t: Tensor, n: number) =>
      Array.from({ length: t.size / n }, (_, i) => values(t).slice(i * n, i * n + n));
    const w = (name: keyof typeof params) => rows(params[name].w as Tensor, 4);
    const times = (v: number[], m: number[][]) =>
      m[0].map((_, j) => v.reduce((s, vi, i) => s + vi * m[i][j], 0));
    const expected = [0, 1].flatMap(t => {
      const set = rows(x, 4).slice(3 * t, 3 * t + 3);
      const [q, k, v] = (['query', 'key', 'value'] as const).map(name => set.map(r => times(r, w(name))));
      return set.flatMap((_, i) => {
        const joined = [0, 1].flatMap(h => {
          const part = (r: number[]) => r.slice(2 * h, 2 * h + 2);
          const scores = k.map(kj =>
            Math.exp(
              times(
                part(q[i]),
                part(kj).map(y => [y]),
              )[0] / Math.SQRT2,
            ),
          );
          const total = scores.reduce((a, b) => a + b);
          return [0, 1].map(c => scores.reduce((s, e, j) => s + (e / total) * part(v[j])[c], 0));
        });
        return times(joined, w('out'));
      });
    });
    values(layer.apply(params, x)).forEach((y, i) => {
      expect(Math.abs(y - expected[i])).toBeLessThan(1e-12);
    });
  });

  it('moves rows of the output as those of the input', () => {
    const turned = tensor(
      Float32Array.from([2, 0, 1].flatMap(i => values(x).slice(4 * i, 4 * i + 4))),
      [1, 3, 4],
    );
    const plain = values(layer.apply(params, slice(x, 0, 0, 1)));
    const moved = values(layer.apply(params, turned));
    [2, 0, 1].forEach((from, to) => {
      for (let c = 0; c < 4; c++)
        expect(Math.abs(moved[4 * to + c] - plain[4 * from + c])).toBeLessThan(1e-6);
    });
  });

  it('takes projections per task: each as if alone', () => {
    const each = [0, 1].map(t => layer.init(key(10 + t), [4]));
    const rows = normal(key(2), [2, 5, 3, 4]);
    const both = tree.map((a: Tensor, b: Tensor) => stack([a, b]), each[0], each[1]);
    const together = values(layer.apply(both, rows));
    const apart = each.flatMap((p, t) => values(layer.apply(p, slice(rows, 0, t, t + 1))));
    expect(together).toEqual(apart);
  });

  it('has right derivatives, and so has the transformer', () => {
    expectDerivatives(p => mean(square(layer.apply(p, x))), params, key(3));
    const net = serial(dense(4), transformer(4, { layers: 2, heads: 2 }), dense(1));
    // The norm at the end lets the mean square of its rows not move: read through a dense layer.
    expectDerivatives(
      p => mean(square(net.apply(p, x))),
      tree.map((w: Tensor) => add(w, 0.01), net.init(key(4), [4])),
      key(5),
      1e-5,
    );
  });

  it('refuses heads that do not divide the features, and single rows', () => {
    expect(() => attention({ heads: 3 }).init(key(0), [4])).toThrow(/3 equal shares/);
    expect(() => attention({ heads: 0 })).toThrow(/whole number >= 1/);
    expect(() => layer.apply(params, normal(key(0), [4]))).toThrow(/rows/);
  });
});

const inShape = [3];
const support = { x: normal(key(1), [3, 6, 3]), y: normal(key(2), [3, 6, 2]) };
const query = normal(key(3), [3, 4, 3]);

describe('attentionHead', () => {
  const target = serial(dense(4), tanh, dense(2));
  const hyperOf = (head: ReturnType<typeof fullHead>) =>
    hypernet({ target, inShape, condition: setEncoder([4]), head });
  const hyper = hyperOf(attentionHead({ chunk: 7, slot: 3, width: 6, heads: 2 }));
  const phi = hyper.init(key(0));
  const flat = (h: typeof hyper, p: typeof phi): number[] =>
    tree
      .leaves<Tensor>(materialise(h.generate(p, h.encode(p, support))))
      .flatMap(w => values(slice(w, 0, 0, 1)));

  it("lets a slot's embedding move the chunks of others, which a chunked head does not", () => {
    const moved = (h: typeof hyper) => {
      const p = h.init(key(0));
      const slots = p.head.head.slots as Tensor;
      const other = concat([add(slice(slots, 0, 0, 1), 1), slice(slots, 0, 1)], 0);
      const [before, after] = [
        flat(h, p),
        flat(h, { ...p, head: { ...p.head, head: { ...p.head.head, slots: other } } }),
      ];
      return before
        .map((w, i) => w !== after[i])
        .slice(7)
        .some(Boolean);
    };
    expect(moved(hyper)).toBe(true);
    expect(moved(hyperOf(trunkHead(dense(6), chunkedHead({ chunk: 7, slot: 3 }))))).toBe(false);
  });

  it('passes the gradient check', () => {
    const loss = (p: typeof phi) =>
      mean(square(target.apply(hyper.generate(p, hyper.encode(p, support)), query)));
    expectDerivatives(loss, phi, key(4), 1e-5);
  });
});

describe('generated beside learned parts', () => {
  const target = serial(dense(4), transformer(4, { layers: 1, heads: 2 }), dense(2));

  it.each([
    ['attention projections', /query|key|value|out/],
    ['norms', /scale|shift/],
  ])('%s: the gradient check passes for both', (_, generated) => {
    const hyper = hypernet({
      target,
      inShape,
      condition: setEncoder([4]),
      head: fullHead(),
      keep: path => !generated.test(path),
    });
    const phi = hyper.init(key(0));
    const loss = (p: typeof phi) =>
      mean(square(target.apply(hyper.generate(p, hyper.encode(p, support)), query)));
    expectDerivatives(loss, phi, key(5), 1e-5);
    const { kept, head } = grad(loss)(phi);
    for (const g of [...Object.values(kept), ...tree.leaves<Tensor>(head)])
      expect(values(g).some(v => v !== 0)).toBe(true);
  });

  it('a conditional batch norm starts as the plain one, and each task keeps to its own statistics', () => {
    const net = serial(dense(5), batchNorm(), tanh, dense(2));
    const hyper = hypernet({
      target: net,
      inShape,
      condition: setEncoder([4]),
      head: fullHead(),
      keep: path => !/scale|shift/.test(path),
    });
    const phi = hyper.init(key(0));
    expect(Object.keys(phi.kept)).toEqual(['layers.0.w', 'layers.0.b', 'layers.3.w', 'layers.3.b']);
    const generate = (p: typeof phi, rows = support) => hyper.generate(p, hyper.encode(p, rows));
    const plain = tree.mapWithPath((path, leaf: any) => phi.kept[path] ?? leaf, net.init(key(9), inShape));
    expect(values(net.apply(generate(phi), query))).toEqual(values(net.apply(plain, query)));
    // Trained a little, so that tasks do have norms of their own.
    const p = {
      ...phi,
      head: { ...phi.head, basis: add(phi.head.basis, mul(normal(key(7), phi.head.basis.shape), 0.3)) },
    };
    const one = (t: Tensor) => slice(t, 0, 1, 2);
    const alone = net.apply(generate(p, { x: one(support.x), y: one(support.y) }), one(query));
    expectSameTree(slice(net.apply(generate(p), query), 0, 1, 2), alone, 1e-12);
    expect(values(alone)).not.toEqual(values(slice(net.apply(plain, query), 0, 1, 2)));
  });
});

describe('klNormal', () => {
  const m = normal(key(1), [4, 3]);
  const v = normal(key(2), [4, 3]);

  it('is half the sum of mean² + var - 1 - log var, and 0 for the standard normal', () => {
    const expected = [0, 1, 2, 3].map(i =>
      [0, 1, 2].reduce((s, j) => {
        const [a, b] = [values(m)[3 * i + j], values(v)[3 * i + j]];
        return s + 0.5 * (a * a + Math.exp(b) - 1 - b);
      }, 0),
    );
    values(nn.klNormal(m, v, { reduce: 'none' })).forEach((kl, i) => {
      expect(Math.abs(kl - expected[i])).toBeLessThan(1e-6);
    });
    expect(values(nn.klNormal(mul(m, 0), mul(v, 0)))).toEqual([0]);
    expectDerivatives(([a, b]: Tensor[]) => nn.klNormal(a, b), [m, v], key(3));
  });

  it('refuses shapes that differ', () => {
    expect(() => nn.klNormal(m, normal(key(0), [4, 2]))).toThrow(/one shape/);
  });
});
