import { describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  add,
  grad,
  key,
  linear,
  matmul,
  mean,
  mul,
  nn,
  normal,
  relu,
  reshape,
  ShapeError,
  slice,
  square,
  stack,
  sum,
  type Tensor,
  take,
  tanh,
  tensor,
  tree,
  use,
} from '../src/index.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

use(createRef({ float: 64 }));

const {
  avgPool,
  batchNorm,
  conv2d,
  dense,
  dropout,
  embedding,
  flatten,
  layerNorm,
  maxPool,
  residual,
  serial,
} = nn;
const values = (x: Tensor) => [...x.dataSync()];
const moments = (x: Tensor) => {
  const v = values(x);
  const m = v.reduce((a, b) => a + b, 0) / v.length;
  return { mean: m, variance: v.reduce((a, b) => a + (b - m) ** 2, 0) / v.length };
};
/** The parameters of `tasks` networks side by side, and those of each. */
function perTask(layer: nn.Layer, inShape: number[], tasks: number) {
  const each = Array.from({ length: tasks }, (_, t) =>
    // Biases and scales start equal; move them so that tasks differ everywhere.
    tree.map(x => add(x, mul(normal(key(90 + t), x.shape), 0.3)), layer.init(key(t), inShape)),
  );
  const [first, ...others] = each;
  return { each, all: tree.map((...xs: Tensor[]) => stack(xs), first, ...others) };
}

const images = serial(
  conv2d(3, 3),
  batchNorm(),
  relu,
  maxPool(2),
  conv2d(2, [1, 3], { stride: [1, 2], padding: 'valid' }),
  layerNorm(),
  avgPool(2, { padding: 'same' }),
  flatten(),
  dense(4),
);
const vectors = serial(dense(6), batchNorm(), tanh, residual(serial(dense(6), tanh)), layerNorm(), dense(2));

describe('shapes and starting values', () => {
  it.each([
    ['vectors', vectors, [3], [5, 3], [2]],
    ['images', images, [9, 11, 2], [4, 9, 11, 2], [4]],
  ] as const)('outShape of %s tells what apply gives', (_name, layer, inShape, batch, out) => {
    expect(layer.outShape(inShape)).toEqual(out);
    expect(layer.apply(layer.init(key(0), inShape), normal(key(1), batch)).shape).toEqual([batch[0], ...out]);
  });

  it('paths name layers, weight before bias, activations counted', () => {
    const params = serial(dense(4), relu, dense(2, { bias: false }), batchNorm()).init(key(0), [3]);
    expect(tree.entries<Tensor>(params).map(([path, x]) => `${path} ${x.shape}`)).toEqual([
      'layers.0.w 3,4',
      'layers.0.b 4',
      'layers.2.w 4,2',
      'layers.3.scale 2',
      'layers.3.shift 2',
    ]);
  });

  it('weights start with the variance of He or Glorot, biases at 0, scales at 1; keys tell draws apart', () => {
    const at = (layer: nn.Layer, inShape: number[]) => layer.init(key(5), inShape);
    // 4 standard errors of a variance from n normal values: 4 sqrt(2/n).
    const near = (got: number, want: number, n: number) =>
      expect(Math.abs(got / want - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
    near(moments(at(dense(200), [100]).w).variance, 2 / 100, 20000);
    near(moments(at(dense(200, { gain: 1, fan: 'average' }), [100]).w).variance, 2 / 300, 20000);
    near(moments(at(dense(200, { fan: 'out' }), [100]).w).variance, 2 / 200, 20000);
    near(moments(at(conv2d(64, 3), [8, 8, 32]).w).variance, 2 / (9 * 32), 18432);
    near(moments(at(embedding(100, 200), []).table).variance, 1, 20000);
    const net = at(serial(dense(3), batchNorm(), dense(3)), [3]);
    expect(values(net.layers[0].b)).toEqual([0, 0, 0]);
    expect(values(net.layers[1].scale)).toEqual([1, 1, 1]);
    expect(values(net.layers[0].w)).not.toEqual(values(net.layers[2].w));
    expectSameTree(at(vectors, [3]), at(vectors, [3]), 0);
  });
});

describe('a leading task axis', () => {
  it.each([
    ['vectors', vectors, [3], [5, 3]],
    ['images', images, [9, 11, 2], [4, 9, 11, 2]],
  ] as const)('gives what each task gives on its own: %s', (_name, layer, inShape, batch) => {
    const { each, all } = perTask(layer, [...inShape], 3);
    const x = normal(key(7), [3, ...batch]);
    const alone = each.map((p, t) => layer.apply(p, reshape(slice(x, 0, t, t + 1), batch)));
    expectSameTree(layer.apply(all, x), stack(alone), 1e-12);
  });

  it('is found on data too: batch statistics of shared layers stay within a task', () => {
    const norm = batchNorm();
    const p = norm.init(key(0), [2]);
    const x = normal(key(1), [2, 6, 2]);
    const other = add(mul(x, tensor([1, 100], [2, 1, 1])), tensor([0, 7], [2, 1, 1]));
    const first = (y: Tensor) => slice(y, 0, 0, 1);
    expectSameTree(first(norm.apply(p, other)), first(norm.apply(p, x)), 0);
    const pooled = nn.batchNorm({ tasks: false });
    expect(values(first(pooled.apply(p, other)))).not.toEqual(values(first(pooled.apply(p, x))));
  });

  it('takes ragged rows: the same as task by task', () => {
    const offsets = [0, 4, 4, 5, 9];
    const { each, all } = perTask(vectors, [3], 4);
    const x = normal(key(8), [9, 3]);
    const y = vectors.apply(all, x, { rows: Int32Array.from(offsets) });
    for (let t = 0; t < 4; t++) {
      if (offsets[t + 1] === offsets[t]) continue;
      const rows = (v: Tensor) => slice(v, 0, offsets[t], offsets[t + 1]);
      expectSameTree(rows(y), vectors.apply(each[t], rows(x)), 1e-12);
    }
  });

  it('has right derivatives of first and second order', () => {
    const small = serial(conv2d(2, 3), batchNorm(), tanh, avgPool(2), flatten(), dense(2));
    const x = normal(key(2), [2, 3, 4, 4, 1]);
    const { all } = perTask(small, [4, 4, 1], 2);
    expectDerivatives(p => mean(square(small.apply(p, x))), all, key(3));
    const ragged = normal(key(4), [7, 3]);
    const rows = tensor(Int32Array.of(0, 2, 7));
    expectDerivatives(
      p => mean(square(vectors.apply(p, ragged, { rows }))),
      perTask(vectors, [3], 2).all,
      key(5),
    );
  });
});

describe('linear', () => {
  const x = normal(key(1), [2, 5, 3]);
  it('takes one weight for all, one per task, and any number of row axes', () => {
    const w = normal(key(2), [2, 3, 4]);
    const b = normal(key(3), [2, 4]);
    const y = linear(x, w, b);
    const deep = linear(reshape(x, [2, 5, 1, 3]), w, b);
    expectSameTree(reshape(deep, [2, 5, 4]), y, 0);
    const one = (t: Tensor, k: number) => reshape(slice(t, 0, k, k + 1), t.shape.slice(1));
    for (const t of [0, 1]) expectSameTree(one(y, t), add(matmul(one(x, t), one(w, t)), one(b, t)), 1e-14);
    expectSameTree(linear(x, one(w, 0), one(b, 1)), add(matmul(x, one(w, 0)), one(b, 1)), 0);
    expect(linear(normal(key(4), [3]), one(w, 0)).shape).toEqual([4]);
  });

  it.each([
    [[2, 5, 3], [2, 10], /x \[2,5,3\] does not fit w \[2,10\]; x must be \[\.\.\.,2\]/],
    [
      [4, 100],
      [4, 10, 100],
      /x \[4,100\] does not fit w \[4,10,100\]; x must be \[4,n,10\], or \[N,10\] with rows/,
    ],
    [[5, 2, 3], [2, 3, 4], /x \[5,2,3\] does not fit w \[2,3,4\]; x must be \[2,n,3\]/],
    [[2, 3], [3], /w \[3\]; w must be \[in,out\], or \[tasks,in,out\]/],
  ])('rejects x %j with w %j naming both', (xs, ws, message) => {
    const call = () => linear(normal(key(0), xs), normal(key(1), ws));
    expect(call).toThrow(ShapeError);
    expect(call).toThrow(message);
  });

  it('rejects offsets that do not fit', () => {
    const w = normal(key(2), [2, 3, 4]);
    const rows = normal(key(3), [5, 3]);
    expect(() => linear(rows, w, null, { rows: Int32Array.of(0, 5) })).toThrow(
      /rows \[2\] x must be \[N,3\]/,
    );
    expect(() => linear(rows, w, null, { rows: Int32Array.of(0, 4, 3) })).toThrow(
      /ascend from 0, got \[0,4,3\]/,
    );
    expect(() => linear(rows, w, null, { rows: Int32Array.of(1, 4, 5) })).toThrow(/ascend from 0/);
  });
});

describe('errors name the layer', () => {
  const net = serial(dense(8), relu, dense(10));
  const params = net.init(key(0), [4]);
  const x = normal(key(1), [5, 4]);

  it('by path, what was expected and what was given', () => {
    const wrong = net.init(key(0), [4]);
    wrong.layers[2].w = normal(key(2), [64, 10]);
    expect(() => net.apply(wrong, x)).toThrow('layers.2.w: expected [8,10] or [tasks,8,10], got [64,10]');
    expect(() => net.apply(params, normal(key(1), [5, 3]))).toThrow(/^layers\.0\.w: expected \[3,8\]/);
    expect(() => net.apply({ layers: params.layers.slice(1) }, x)).toThrow(/expected 3 layers, got 2/);
    delete wrong.layers[2].b;
    wrong.layers[2].w = params.layers[2].w;
    expect(() => net.apply(wrong, x)).toThrow(/^layers\.2\.b: expected \[10\].*got nothing/);
  });

  it('through nesting, and as ShapeError', () => {
    const nested = serial(relu, residual(serial(dense(4))));
    const p = nested.init(key(0), [4]);
    const bad = {
      layers: [{}, { layer: { layers: [{ ...p.layers[1].layer.layers[0], b: normal(key(0), [5]) }] } }],
    };
    expect(() => nested.apply(bad, x)).toThrow(/^layers\.1\.layer\.layers\.0\.b: expected \[4\]/);
    expect(() => nested.apply(bad, x)).toThrow(ShapeError);
    expect(() => serial(residual(dense(3))).init(key(0), [4])).toThrow(
      /^layers\.0\.layer: expected to keep \[4\], makes \[3\]/,
    );
  });

  it('when shapes are asked for before any parameter exists', () => {
    expect(() => serial(dense(4), conv2d(3, 3)).init(key(0), [5])).toThrow(
      /^layers\.1\.conv2d: expected \[H,W,C\], got \[4\]/,
    );
    expect(() => serial(maxPool(4)).outShape([3, 3, 1])).toThrow(/layers\.0: maxPool: a \[4,4\] window/);
  });

  it('when a vector per task meets data without a task axis', () => {
    const p = { ...dense(2).init(key(0), [4]), b: normal(key(1), [5, 2]) };
    expect(() => dense(2).apply(p, x)).toThrow(/a vector per task \[5,2\] does not fit \[5,2\]/);
  });

  it('when filters per task meet ragged rows', () => {
    const conv = conv2d(2, 3);
    const { all } = perTask(conv, [4, 4, 1], 2);
    const call = () => conv.apply(all, normal(key(0), [3, 4, 4, 1]), { rows: Int32Array.of(0, 1, 3) });
    expect(call).toThrow(/^w: filters per task do not take ragged rows/);
  });
});

describe('dropout', () => {
  const drop = dropout(0.25);
  const x = add(mul(normal(key(0), [4000]), 0), 1);
  it('drops while training only, keeps the mean, needs a key', () => {
    expect(values(drop.apply({}, x, { key: key(1) }))).toEqual(values(x));
    const y = values(drop.apply({}, x, { key: key(1), train: true }));
    expect(new Set(y)).toEqual(new Set([0, 1 / 0.75]));
    const dropped = y.filter(v => v === 0).length / y.length;
    expect(Math.abs(dropped - 0.25)).toBeLessThan(4 * Math.sqrt((0.25 * 0.75) / 4000));
    expect(() => drop.apply({}, x, { train: true })).toThrow(/needs a key/);
    expect(() => dropout(1)).toThrow(/rate must be in \[0,1\), got 1/);
  });

  it('in serial draws another mask in every layer', () => {
    const ones = reshape(x, [1, 4000]);
    const twice = values(serial(drop, drop).apply({ layers: [{}, {}] }, ones, { key: key(2), train: true }));
    const kept = twice.filter(v => v !== 0).length / twice.length;
    expect(Math.abs(kept - 0.75 ** 2)).toBeLessThan(0.04);
  });
});

describe('embedding', () => {
  it('gives rows of the table and gradients to those alone', () => {
    const table = normal(key(0), [5, 3]);
    const ids = tensor(Int32Array.of(3, 1, 3));
    const layer = embedding(5, 3);
    expectSameTree(layer.apply({ table }, ids), take(table, ids), 0);
    const g = grad((p: { table: Tensor }) => sum(layer.apply(p, ids)))({ table }).table;
    expect(values(sum(g, 1))).toEqual([0, 3, 0, 6, 0]);
  });
  it('takes a table per task', () => {
    const table = normal(key(0), [2, 5, 3]);
    const y = embedding(5, 3).apply({ table }, tensor(Int32Array.of(4, 0, 2, 2), [2, 2]));
    const flat = take(reshape(table, [10, 3]), tensor(Int32Array.of(4, 0, 7, 7)));
    expectSameTree(reshape(y, [4, 3]), flat, 0);
  });
});

describe('losses', () => {
  const p = normal(key(0), [3, 4, 2]);
  const t = normal(key(1), [3, 4, 2]);
  it('mse: all, per task, per row, summed', () => {
    const error = values(p).map((v, i) => (v - values(t)[i]) ** 2);
    const avg = (xs: number[]) => xs.reduce((a, b) => a + b, 0) / xs.length;
    expect(values(nn.mse(p, t))[0]).toBeCloseTo(avg(error), 12);
    const rows = Array.from({ length: 12 }, (_, i) => avg(error.slice(2 * i, 2 * i + 2)));
    values(nn.mse(p, t, { reduce: 'none' })).forEach((v, i) => {
      expect(v).toBeCloseTo(rows[i], 12);
    });
    values(nn.mse(p, t, { reduce: 'task' })).forEach((v, i) => {
      expect(v).toBeCloseTo(avg(rows.slice(4 * i, 4 * i + 4)), 12);
    });
    expect(values(nn.mse(p, t, { reduce: 'sum' }))[0]).toBeCloseTo(avg(rows) * 12, 12);
    const [a, b] = [reshape(p, [12, 2]), reshape(t, [12, 2])];
    const ragged = values(nn.mse(a, b, { reduce: 'task', rows: Int32Array.of(0, 3, 3, 12) }));
    expect(ragged[0]).toBeCloseTo(avg(rows.slice(0, 3)), 12);
    expect(ragged[1]).toBe(0);
    expect(ragged[2]).toBeCloseTo(avg(rows.slice(3)), 12);
  });
  it('cross-entropy: from logits, stable at 1e4', () => {
    const logits = tensor([1e4, -1e4, 0, -1e4, 1e4, 0], [1, 2, 3]);
    const labels = tensor(Int32Array.of(0, 0), [1, 2]);
    expect(values(nn.crossEntropy(logits, labels, { reduce: 'none' })).map(Math.abs)).toEqual([0, 2e4]);
    expect(values(nn.crossEntropy(logits, labels, { reduce: 'task' }))).toEqual([1e4]);
    const even = nn.crossEntropy(tensor([7, 7, 7], [1, 3]), tensor(Int32Array.of(1)));
    expect(values(even)[0]).toBeCloseTo(Math.log(3), 12);
  });
  it('accuracy: per task and overall', () => {
    const logits = tensor([1, 0, 0, 1, 1, 0, 0, 1], [2, 2, 2]);
    const labels = tensor(Int32Array.of(0, 1, 1, 1), [2, 2]);
    expect(values(nn.accuracy(logits, labels))).toEqual([0.75]);
    expect(values(nn.accuracy(logits, labels, { reduce: 'task' }))).toEqual([1, 0.5]);
  });
  it('refuse shapes that would broadcast in silence', () => {
    expect(() => nn.mse(p, slice(t, 2, 0, 1))).toThrow(/\[3,4,2\] and target \[3,4,1\]/);
    expect(() => nn.mse(sum(p, 2), reshape(sum(t, 2), [12]))).toThrow(ShapeError);
    expect(() => nn.mse(reshape(p, [24]), reshape(t, [24]), { reduce: 'task' })).toThrow(/no task axis/);
    expect(() => nn.accuracy(p, tensor(Int32Array.of(0, 1, 0)))).toThrow(/\[3,4,2\] and labels \[3\]/);
  });
});
