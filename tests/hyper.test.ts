import { afterAll, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { createRef } from '../src/backends/ref.js';
import {
  add,
  chunkedHead,
  concat,
  concatConditions,
  dense,
  description,
  FullGenerated,
  fullHead,
  Generated,
  GraphError,
  grad,
  type Head,
  type Hypernet,
  type HypernetParams,
  hypernet,
  key,
  lowRankHead,
  materialise,
  mean,
  mul,
  nn,
  noise,
  normal,
  relu,
  reshape,
  serial,
  setEncoder,
  slice,
  split,
  square,
  stopGradient,
  sub,
  sum,
  type Tensor,
  take,
  tanh,
  taskId,
  tensor,
  tree,
  uniform,
  use,
  valueAndGrad,
  withBackend,
} from '../src/index.js';
import { counting, expectDerivatives, expectSameTree } from './derivatives.js';

const ref = createRef({ float: 64 });
use(ref);
const cpu = await open('cpu');
afterAll(() => cpu.dispose());

const values = (x: Tensor) => Array.from(x.dataSync());
const i32 = (...xs: number[]) => tensor(Int32Array.from(xs));
const task = (x: Tensor, t: number) => reshape(slice(x, 0, t, t + 1), x.shape.slice(1));
const leafSizes = (p: unknown) => tree.leaves<Tensor>(p).reduce((n, x) => n + x.size, 0);

const mlp = serial(dense(4), tanh, dense(5), tanh, dense(2));
const heads: [string, Head][] = [
  ['full', fullHead()],
  ['full without base', fullHead({ base: false })],
  ['chunked', chunkedHead({ chunk: 7, slot: 5 })],
  ['chunked with base', chunkedHead({ chunk: 7, slot: 5, base: true })],
  ['lowRank', lowRankHead({ rank: 1 })],
  ['lowRank without base', lowRankHead({ rank: 2, base: false })],
];
const small = (head: Head, weightsAs?: 'generated' | 'tensors') =>
  hypernet({
    target: mlp,
    inShape: [3],
    condition: setEncoder([6, 4]),
    trunk: dense(5),
    activation: tanh,
    head,
    weightsAs,
  });
const support = { x: normal(key(1), [3, 6, 3]), y: normal(key(2), [3, 6, 2]) };
const query = normal(key(3), [3, 4, 3]);

describe('weights', () => {
  it.each(heads)('of each task make that task its own network: %s', (_name, head) => {
    const hyper = small(head);
    const phi = hyper.init(key(0));
    const theta = hyper.generate(phi, hyper.encode(phi, support));
    const woven = materialise(theta);
    const y = mlp.apply(theta, query);
    expectSameTree(mlp.apply(woven, query), y, 1e-12);
    for (const t of [0, 1, 2]) {
      const own = tree.map((w: Tensor) => task(w, t), woven);
      expectSameTree(mlp.apply(own, task(query, t)), task(y, t), 1e-12);
    }
  });

  it('come in layer order, weight before bias, with a task axis; their sizes add up to weightCount', () => {
    for (const [, head] of heads) {
      const hyper = small(head);
      const phi = hyper.init(key(0));
      const theta = hyper.generate(phi, hyper.encode(phi, support));
      const listed = tree.entries<Tensor | Generated>(theta).map(([path, w]) => [path, ...w.shape].join(' '));
      expect(listed).toEqual([
        'layers.0.w 3 3 4',
        'layers.0.b 3 4',
        'layers.2.w 3 4 5',
        'layers.2.b 3 5',
        'layers.4.w 3 5 2',
        'layers.4.b 3 2',
      ]);
      expect(hyper.weightCount).toBe(3 * 4 + 4 + 4 * 5 + 5 + 5 * 2 + 2);
    }
  });

  it('of a full head are pieces of one product, in order and bit for bit', () => {
    const hyper = small(fullHead());
    const phi = hyper.init(key(0));
    const code = hyper.encode(phi, support);
    const theta = hyper.generate(phi, code);
    const flat = (ws: Tensor[]) =>
      concat(
        ws.map(w => reshape(w, [3, w.size / 3])),
        1,
      );
    const { code: hidden, projection } = tree.leaves<FullGenerated>(theta)[0];
    const product = new FullGenerated(hidden, projection!.basis, projection!.base).materialise();
    expect(values(flat(tree.leaves(materialise(theta))))).toEqual(values(product));
  });

  it('of the sinusoid benchmark (E25) cost one product where all are materialised, forward and backward', () => {
    const target = serial(dense(40), relu, dense(40), relu, dense(1));
    const hyper = hypernet({ target, inShape: [1], condition: setEncoder([64, 64]), head: fullHead() });
    const count = counting(ref, 'cpu');
    const step = (strategy?: 'reorder') => {
      const rows = { x: normal(key(1), [25, 10, 1]), y: normal(key(2), [25, 10, 1]) };
      return valueAndGrad((p: HypernetParams) => {
        const theta = hyper.generate(p, hyper.encode(p, rows));
        return nn.mse(target.apply(theta, rows.x, { strategy }), rows.y);
      })(hyper.init(key(0)));
    };
    const measured = 2; // init encodes an example
    // Encoder 2, projection 1, target 3; backward twice that, less the data's and support's own gradients.
    expect(count('matmul', () => step())).toBe(measured + 6 + 12 - 2);
    expect(count('matmul', () => step('reorder'))).toBeGreaterThan(measured + 6 + 12);
  });

  it('are given as tensors where asked for', () => {
    const phi = small(fullHead()).init(key(0));
    const code = small(fullHead()).encode(phi, support);
    const theta = small(fullHead(), 'tensors').generate(phi, code);
    expect(tree.leaves(theta).some(w => w instanceof Generated)).toBe(false);
    expectSameTree(theta, materialise(small(fullHead()).generate(phi, code)), 0);
  });

  it('are applied to ragged rows as to equal ones', () => {
    const hyper = small(fullHead());
    const phi = hyper.init(key(0));
    const theta = hyper.generate(phi, hyper.encode(phi, support));
    const y = mlp.apply(theta, reshape(query, [12, 3]), { rows: i32(0, 4, 8, 12) });
    expectSameTree(reshape(y, [3, 4, 2]), mlp.apply(theta, query), 1e-12);
    const one = mlp.apply(theta, reshape(slice(query, 1, 0, 1), [3, 3]), { rows: Int32Array.of(0, 1, 2, 3) });
    expectSameTree(one, reshape(slice(mlp.apply(theta, query), 1, 0, 1), [3, 2]), 1e-12);
  });

  it('may be kept from generation, by path', () => {
    const hyper = hypernet({
      target: mlp,
      inShape: [3],
      condition: setEncoder([6]),
      head: fullHead(),
      keep: path => path.startsWith('layers.0'),
    });
    const phi = hyper.init(key(0));
    expect(Object.keys(phi.kept)).toEqual(['layers.0.w', 'layers.0.b']);
    expect(hyper.weightCount).toBe(4 * 5 + 5 + 5 * 2 + 2);
    const loss = (p: HypernetParams) =>
      mean(square(mlp.apply(hyper.generate(p, hyper.encode(p, support)), query)));
    expectDerivatives(loss, softened(phi), key(9));
    const everything = () =>
      hypernet({ target: mlp, inShape: [3], condition: noise(2), head: fullHead(), keep: () => true });
    expect(everything).toThrow(/no weights to generate/);
  });

  it('any shape: one hypernetwork serves three targets of different shapes at once', () => {
    const nets = { line: dense(1), deep: serial(dense(6), tanh, dense(2)), image: nn.conv2d(2, 3) };
    const inShapes = { line: [2], deep: [5], image: [4, 4, 1] };
    const names = ['line', 'deep', 'image'] as const;
    const all = nn.defineLayer<Record<string, unknown>>({
      params: () => Object.fromEntries(names.map(name => [name, nets[name].params(inShapes[name])])),
      outShape: () => [1],
      apply: () => {
        throw new Error('applied by part');
      },
    });
    for (const head of [fullHead(), chunkedHead({ chunk: 10 }), lowRankHead({ rank: 1 })]) {
      const hyper = hypernet({ target: all, inShape: [], condition: taskId(6, 4), trunk: dense(8), head });
      const phi = hyper.init(key(0));
      const loss = (p: HypernetParams) => {
        const codes = hyper.encode(p, i32(0, 1, 2, 3, 4, 5));
        return names
          .map((name, k) => {
            const theta = hyper.generate(p, slice(codes, 0, 2 * k, 2 * k + 2))[name];
            return sum(square(nets[name].apply(theta, normal(key(k), [2, 3, ...inShapes[name]]))));
          })
          .reduce((a, b) => add(a, b));
      };
      const g = grad(loss)(phi);
      const perRow = values(sum(square(g.condition.table), 1));
      expect(perRow.every(v => v > 0)).toBe(true);
    }
  });

  it('own no parameters: training counts phi alone', () => {
    const hyper = hypernet({
      target: serial(dense(100), relu, dense(100), relu, dense(10)),
      inShape: [784],
      condition: taskId(5, 32),
      trunk: dense(10),
      head: chunkedHead({ chunk: 8000, slot: 32 }),
    });
    const phi = hyper.init(key(0));
    expect(hyper.weightCount).toBe(89_610);
    // table + trunk + slots + basis: fewer than the weights of one task, for five tasks.
    expect(leafSizes(phi)).toBe(5 * 32 + (64 * 10 + 10) + 12 * 32 + 10 * 8000);
    const g = grad((p: HypernetParams) =>
      sum(
        square(hyper.target.apply(hyper.generate(p, hyper.encode(p, i32(3))), normal(key(1), [1, 2, 784]))),
      ),
    )(phi);
    expect(leafSizes(g)).toBe(leafSizes(phi));
  });
});

/** Parameters moved off their start, where biases are exactly 0 and a directional derivative may vanish. */
function softened<P>(phi: P): P {
  const leaves = tree.leaves<Tensor>(phi);
  const keys = split(key(77), leaves.length);
  return tree.rebuild(
    phi,
    leaves.map((x, i) => add(x, mul(normal(keys[i], x.shape), 0.1))),
  );
}

describe('gradients', () => {
  const losses = (head: Head) => {
    const hyper = small(head);
    const loss = (p: HypernetParams) =>
      mean(square(mlp.apply(hyper.generate(p, hyper.encode(p, support)), query)));
    return { hyper, loss, phi: softened(hyper.init(key(0))) };
  };

  it.each(heads)('of first and second order are right, and reach every parameter: %s', (_name, head) => {
    const { loss, phi } = losses(head);
    expectDerivatives(loss, phi, key(4));
    for (const [path, g] of tree.entries<Tensor>(grad(loss)(phi)))
      expect(
        values(g).some(v => v !== 0),
        path,
      ).toBe(true);
  });

  it.each(heads)('pass through an inner step on the materialised weights: %s', (_name, head) => {
    const { hyper, phi } = losses(head);
    const inner = grad((theta: any) => nn.mse(mlp.apply(theta, support.x), support.y));
    const outer = (p: HypernetParams) => {
      const theta = materialise(hyper.generate(p, hyper.encode(p, support)));
      const fast = tree.map((w, g) => sub(w, mul(g, 0.1)), theta, inner(theta));
      return mean(square(mlp.apply(fast, query)));
    };
    expectDerivatives(outer, phi, key(5), 1e-5);
    const first = tree.leaves<Tensor>(grad(outer)(phi));
    const short = (p: HypernetParams) => {
      const theta = materialise(hyper.generate(p, hyper.encode(p, support)));
      const fast = tree.map((w, g) => sub(w, mul(g, 0.1)), theta, stopGradient(inner(theta)));
      return mean(square(mlp.apply(fast, query)));
    };
    expect(values(first[0])).not.toEqual(values(tree.leaves<Tensor>(grad(short)(phi))[0]));
  });

  it.each(heads)('pass through an inner step on the code: %s', (_name, head) => {
    const { hyper, phi } = losses(head);
    const outer = (p: HypernetParams) => {
      const code = hyper.encode(p, support);
      const inner = grad((c: Tensor) => nn.mse(mlp.apply(hyper.generate(p, c), support.x), support.y));
      return mean(square(mlp.apply(hyper.generate(p, sub(code, mul(inner(code), 0.3))), query)));
    };
    expectDerivatives(outer, phi, key(6), 1e-5);
  });

  it('of the weights themselves are refused; so is reading them on the way', () => {
    const { hyper, phi } = losses(fullHead());
    const theta = hyper.generate(phi, hyper.encode(phi, support));
    expect(() => grad((t: any) => sum(mlp.apply(t, query)))(theta)).toThrow(/use materialise\(theta\)/);
    const copied = (p: HypernetParams) => {
      const made = materialise(hyper.generate(p, hyper.encode(p, support)));
      const loaded = tree.map((w: Tensor) => tensor(w.dataSync(), w.shape), made);
      return sum(mlp.apply(loaded, query));
    };
    expect(() => grad(copied)(phi)).toThrow(GraphError);
  });

  it('are those of the sum over tasks: a task twice counts twice, and tasks do not mix', () => {
    const { hyper, phi } = losses(fullHead());
    const target = normal(key(8), [3, 4, 2]);
    const at = (ids: number[]) =>
      grad((p: HypernetParams) => {
        const pick = (x: Tensor) => take(x, i32(...ids));
        const theta = hyper.generate(p, hyper.encode(p, { x: pick(support.x), y: pick(support.y) }));
        return sum(nn.mse(mlp.apply(theta, pick(query)), pick(target), { reduce: 'task' }));
      })(phi);
    expectSameTree(
      at([1, 1]),
      tree.map(x => mul(x, 2), at([1])),
      1e-12,
    );
    expectSameTree(
      at([0, 2]),
      tree.map((a, b) => add(a, b), at([0]), at([2])),
      1e-12,
    );
  });
});

describe('conditions', () => {
  const linear = nn.dense(2);
  const bind = (condition: Parameters<typeof hypernet>[0]['condition']) =>
    hypernet({ target: linear, inShape: [3], condition, head: fullHead() });
  const sets = bind(setEncoder([6, 4]));
  const phi = sets.init(key(0));

  it('setEncoder does not see the order of rows, and takes x and y side by side', () => {
    const code = sets.encode(phi, support);
    expect(code.shape).toEqual([3, 4]);
    const turned = tree.map(x => take(x, i32(5, 2, 0, 1, 4, 3), 1), support);
    expectSameTree(sets.encode(phi, turned), code, 1e-14);
    expectSameTree(sets.encode(phi, concat([support.x, support.y], -1)), code, 0);
    const swapped = { x: support.x, y: turned.y };
    expect(values(sub(sets.encode(phi, swapped), code)).some(d => Math.abs(d) > 1e-3)).toBe(true);
  });

  it('setEncoder: masked and ragged supports give the codes of the rows that count', () => {
    const counts = [6, 2, 0];
    const cut = (x: Tensor, t: number) =>
      slice(reshape(slice(x, 0, t, t + 1), [1, ...x.shape.slice(1)]), 1, 0, counts[t]);
    const alone = concat([0, 1].map(t => sets.encode(phi, { x: cut(support.x, t), y: cut(support.y, t) })));
    const mask = tensor(
      counts.flatMap(n => [0, 1, 2, 3, 4, 5].map(i => (i < n ? 1 : 0))),
      [3, 6],
    );
    const masked = sets.encode(phi, { ...support, mask });
    expectSameTree(slice(masked, 0, 0, 2), alone, 1e-14);
    const rows = (x: Tensor) => concat(counts.map((n, t) => slice(task(x, t), 0, 0, n)));
    const ragged = sets.encode(phi, {
      x: rows(support.x),
      y: rows(support.y),
      rows: Int32Array.of(0, 6, 8, 8),
    });
    expectSameTree(slice(ragged, 0, 0, 2), alone, 1e-14);
    expect([...values(task(masked, 2)), ...values(task(ragged, 2))]).toEqual(Array(8).fill(0));
    const g = grad((x: Tensor) => sum(square(sets.encode(phi, { x, y: support.y, mask }))))(support.x);
    expect(values(slice(task(g, 1), 0, 2)).every(v => v === 0)).toBe(true);
  });

  it('setEncoder takes labels as classes', () => {
    const labels = i32(0, 1, 1);
    const code = sets.encode(phi, { x: slice(support.x, 1, 0, 1), y: reshape(labels, [3, 1]) });
    const onehot = tensor([1, 0, 0, 1, 0, 1], [3, 1, 2]);
    expectSameTree(code, sets.encode(phi, { x: slice(support.x, 1, 0, 1), y: onehot }), 0);
  });

  it('taskId: only tasks of the batch get a gradient, the others exactly 0', () => {
    const hyper = bind(concatConditions(taskId(5, 3), setEncoder([4])));
    const params = hyper.init(key(0));
    const loss = (p: HypernetParams) =>
      sum(square(linear.apply(hyper.generate(p, hyper.encode(p, [i32(4, 1, 4), support])), query)));
    const perRow = values(sum(square(grad(loss)(params).condition[0].table), 1));
    expect(perRow.map(v => v > 0)).toEqual([false, true, false, false, true]);
    expect(perRow.filter(v => v === 0).length).toBe(3);
  });

  it('concatConditions: two ids give two codes for one support set', () => {
    const hyper = bind(concatConditions(taskId(5, 3), setEncoder([4])));
    const params = hyper.init(key(0));
    const zero = tree.map((x: Tensor) => mul(x, 0), support);
    const [a, b] = [i32(0, 0, 0), i32(1, 1, 1)].map(ids => hyper.encode(params, [ids, zero]));
    expect(hyper.codeSize).toBe(7);
    expectSameTree(slice(a, 1, 3, 7), slice(b, 1, 3, 7), 0);
    expect(values(slice(a, 1, 0, 3))).not.toEqual(values(slice(b, 1, 0, 3)));
  });

  it('noise: equal keys, equal bits on every backend; many draws in one call as one by one', () => {
    const hyper = bind(noise(8));
    const f32 = createRef();
    const draw = () => Array.from(hyper.encode(hyper.init(key(0)), 5, { key: key(3) }).dataSync());
    // The bits of the uniforms are equal; logarithm and cosine may differ in the last place.
    const bits = () => Array.from(uniform(key(3), [40]).dataSync());
    expect(withBackend(cpu, bits)).toEqual(withBackend(f32, bits));
    const [a, b] = [withBackend(cpu, draw), withBackend(f32, draw)];
    for (const [i, x] of a.entries()) expect(Math.abs(x - b[i])).toBeLessThan(2e-6);
    const params = hyper.init(key(0));
    const z = hyper.encode(params, 5, { key: key(3) });
    const x = normal(key(4), [5, 2, 3]);
    const together = linear.apply(hyper.generate(params, z), x);
    const single = [0, 1, 2, 3, 4].map(m =>
      linear.apply(hyper.generate(params, slice(z, 0, m, m + 1)), slice(x, 0, m, m + 1)),
    );
    expectSameTree(together, concat(single), 1e-13);
    expectSameTree(hyper.encode(params, z), z, 0);
  });

  it('description: as given, or through a layer', () => {
    const given = bind(description(4));
    const d = normal(key(5), [3, 4]);
    expectSameTree(given.encode(given.init(key(0)), d), d, 0);
    const layered = bind(description([4, 4, 1], serial(nn.conv2d(2, 3), tanh, nn.flatten())));
    const params = layered.init(key(0));
    expect(layered.codeSize).toBe(32);
    expect(layered.encode(params, normal(key(6), [3, 4, 4, 1])).shape).toEqual([3, 32]);
  });

  it('refuse what they do not take', () => {
    const ids = bind(taskId(3, 2));
    expect(() => sets.encode(phi, normal(key(0), [3, 6, 4]))).toThrow(
      /rows must be \[T,S,5\] \(\[3\] beside \[2\]\), got \[3,6,4\]/,
    );
    expect(() => setEncoder([])({ inShape: [1], outShape: [1] })).toThrow(/at least one layer size/);
    expect(() => ids.encode(ids.init(key(0)), reshape(i32(0, 1), [2, 1]))).toThrow(/must be \[T\]/);
    expect(() => bind(noise(2)).encode(phi, 4)).toThrow(/needs a key/);
    expect(() => bind(noise(2)).encode(phi, normal(key(0), [4, 3]))).toThrow(
      /codes must be \[T,2\], got \[4,3\]/,
    );
    expect(() => bind(description(4)).encode(phi, normal(key(0), [2, 5]))).toThrow(
      /expected \[T,4\], got \[2,5\]/,
    );
    const both = bind(concatConditions(noise(2), noise(2)));
    expect(() => both.encode(both.init(key(0)), [3])).toThrow(/needs 2 inputs/);
    expect(() => sets.generate(phi, normal(key(0), [3, 5]))).toThrow(/the code must be \[T,4\], got \[3,5\]/);
  });
});

describe('starting weights', () => {
  const target = serial(dense(30), relu, dense(50), relu, dense(20, { gain: 1, fan: 'average' }));
  const inShape = [40];
  const own: Record<string, number> = { 'layers.0.w': 2 / 40, 'layers.2.w': 2 / 30, 'layers.4.w': 2 / 70 };
  const out: Record<string, number> = { 'layers.0.w': 2 / 30, 'layers.2.w': 2 / 50, 'layers.4.w': 1 / 20 };

  /** Mean square of every weight over 64 tasks and 16 seeds; `draw` makes the condition's input. */
  function moments(
    hyper: Hypernet,
    input: (k: Tensor) => Tensor | number = () => 64,
    example?: Tensor,
  ): Record<string, number> {
    const total: Record<string, number> = {};
    withBackend(cpu, () => {
      for (let seed = 0; seed < 16; seed++) {
        const [init, draw] = split(key(seed));
        const phi = hyper.init(init, example);
        const theta = materialise(hyper.generate(phi, hyper.encode(phi, input(draw), { key: draw })));
        for (const [path, w] of tree.entries<Tensor>(theta))
          total[path] = (total[path] ?? 0) + mean(square(w)).dataSync()[0] / 16;
      }
    });
    return total;
  }
  const momentsOf = (head: Head, trunk?: nn.Layer) =>
    moments(hypernet({ target, inShape, condition: noise(64), trunk, head }));
  const near = (got: Record<string, number>, want: Record<string, number>) => {
    for (const [path, v] of Object.entries(want)) {
      expect(got[path] / v, path).toBeGreaterThan(0.9);
      expect(got[path] / v, path).toBeLessThan(1.1);
    }
  };

  it.each<[string, Head, nn.Layer | undefined]>([
    ['full, with a base', fullHead(), undefined],
    ['full, all of it generated', fullHead({ base: false }), undefined],
    ['full, behind a trunk', fullHead({ share: 0.9 }), dense(64)],
    ['chunked', chunkedHead({ chunk: 300 }), dense(64)],
    ['chunked, with a base', chunkedHead({ chunk: 300, base: true }), dense(64)],
    ['lowRank', lowRankHead({ rank: 4 }), undefined],
    ['lowRank, all of it generated', lowRankHead({ rank: 4, base: false }), undefined],
  ])("have the variance of the target's own initialisation, within a tenth: %s", (_name, head, trunk) => {
    const got = momentsOf(head, trunk);
    near(got, own);
    for (const k of [0, 2, 4]) expect(got[`layers.${k}.b`]).toBeLessThan(0.011 * (2 / 20));
  });

  it('hyperfan-out: that which keeps the variance of gradients', () => {
    near(momentsOf(fullHead({ fan: 'out' })), out);
    near(momentsOf(chunkedHead({ chunk: 300, fan: 'out' }), dense(64)), out);
  });

  it('with variance in the biases: half of the layer for hyperfan-in, what is lacking for hyperfan-out', () => {
    near(momentsOf(fullHead({ fan: 'in', biasVariance: true })), {
      ...{ 'layers.0.w': 1 / 40, 'layers.2.w': 1 / 30, 'layers.4.w': 0.5 / 50 },
      ...{ 'layers.0.b': 1, 'layers.2.b': 1, 'layers.4.b': 0.5 },
    });
    const got = momentsOf(fullHead({ fan: 'out', biasVariance: true }));
    near(got, { ...out, 'layers.2.b': 2 * (1 - 30 / 50) });
    expect([got['layers.0.b'], got['layers.4.b']]).toEqual([0, 0]);
  });

  it("do not depend on the size of the condition's input, given an example of it", () => {
    const hyper = hypernet({
      target,
      inShape,
      condition: description(64),
      trunk: dense(64),
      head: fullHead(),
    });
    for (const size of [0.1, 1, 30]) {
      const example = withBackend(cpu, () => mul(normal(key(1), [64, 64]), size));
      near(
        moments(hyper, k => mul(normal(k, [64, 64]), size), example),
        own,
      );
    }
  });

  it.each(heads)("of norms are scale 1 and shift 0: outputs equal the plain norm's: %s", (name, head) => {
    const norms = serial(nn.batchNorm(), nn.layerNorm());
    const hyper = hypernet({ target: norms, inShape: [3], condition: noise(4), trunk: dense(4), head });
    const phi = hyper.init(key(0));
    const theta = hyper.generate(phi, hyper.encode(phi, 3, { key: key(1) }));
    const plain = norms.apply(norms.init(key(2), [3]), query);
    const y = norms.apply(theta, query);
    // A chunked head cannot start at exactly 0 deviation; its scales and shifts start within a tenth.
    const worst = Math.max(...values(sub(y, plain)).map(Math.abs));
    expect(worst).toBeLessThan(name.startsWith('chunked') ? 1.5 : 1e-9);
    const changed = norms.apply(theta, concat([slice(query, 0, 0, 1), mul(slice(query, 0, 1), 50)]));
    expectSameTree(task(changed, 0), task(y, 0), 0);
  });

  it('refuse a share that is none', () => {
    expect(() => fullHead({ share: 1.5 })).toThrow(/share must be in \[0,1\]/);
    expect(() => fullHead({ base: false, share: 0.5 })).toThrow(/1 without a base; got 0.5/);
    expect(() => chunkedHead({ chunk: 0 })).toThrow(/chunk must be a size, got 0/);
    expect(() => lowRankHead({ rank: 1.5 })).toThrow(/rank must be a size, got 1.5/);
  });
});

describe('training', () => {
  it('reaches the noise floor on linear tasks a linear generator can match', async () => {
    // w_t = A c_t, c in R^3, x in R^8, noise sd 0.1: the floor of the mean squared error is 0.01.
    const target = dense(1, { bias: false });
    const hyper = hypernet({ target, inShape: [8], condition: description(3), head: fullHead() });
    const A = normal(key(100), [3, 8]);
    const batch = (k: Tensor) => {
      const [kc, kx, kn] = split(k, 3);
      const c = normal(kc, [32, 3]);
      const x = normal(kx, [32, 10, 8]);
      const w = new FullGenerated(c, reshape(A, [3, 8, 1]));
      return { c, x, y: add(target.apply({ w }, x), mul(normal(kn, [32, 10, 1]), 0.1)) };
    };
    const loss = (p: HypernetParams, b: ReturnType<typeof batch>) =>
      nn.mse(target.apply(hyper.generate(p, hyper.encode(p, b.c)), b.x), b.y);
    let phi = hyper.init(key(0));
    for (let step = 0; step < 150; step++) {
      const { grads } = valueAndGrad(loss)(phi, batch(key(step)));
      phi = tree.map((p, g) => sub(p, mul(g, 0.1)), phi, grads);
    }
    const test = [0, 1, 2, 3].map(i => loss(phi, batch(key(10_000 + i))).dataSync()[0]);
    expect(mean(tensor(test)).dataSync()[0]).toBeLessThan(0.012);
  });
});
