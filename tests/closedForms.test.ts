/** Learners and tasks with a closed form to hold them to: the ridge on codes, Gaussian likelihoods, people who draw. */
import { beforeEach, describe, expect, test } from 'vitest';
import { ArgumentError } from '../src/core/errors.js';
import { cholesky, solveLower, solveLowerTransposed } from '../src/data/cholesky.js';
import { loadOmniglot } from '../src/data/load.js';
import { withinAlphabets, writeDrawing } from '../src/data/omniglot.js';
import { drawBatch } from '../src/data/task.js';
import { description, fullHead, hypernet, setEncoder } from '../src/hyper/index.js';
import { dense, full, init, key, serial, slice, tensor } from '../src/index.js';
import { gaussianLearner, gaussianLoss, ridgeLearner } from '../src/meta/index.js';
import { fourierFeatures } from '../src/nn/index.js';

describe('in float64', () => {
  beforeEach(() => init({ backend: 'ref', float: 64 }));

  const linear = (base: boolean) =>
    hypernet({
      target: dense(1, { bias: false }),
      inShape: [4],
      condition: description(3),
      head: fullHead({ base }),
    });
  const rows = (n: number, seed: number) =>
    Float32Array.from({ length: n }, (_, i) => Math.sin(12.9 * (i + 1) * seed));

  test('the code of a task is its ridge solution', () => {
    const learner = ridgeLearner(linear(false));
    const { hyper } = learner.init(key(0));
    const ridge = 0.3;
    const [shown, asked, n] = [rows(24, 1), rows(8, 2), 6];
    const y = rows(n, 3);
    const params = { hyper, logRidge: full([], Math.log(ridge)) };
    const support = { x: tensor(shown, [1, n, 4]), y: tensor(y, [1, n, 1]) };
    const found = learner.predict(params, support, tensor(asked, [1, 2, 4]), 1).dataSync();

    const basis = hyper.head.basis.dataSync(); // [3, 4]
    const feature = (x: Float32Array, row: number, e: number) =>
      [0, 1, 2, 3].reduce((sum, d) => sum + x[row * 4 + d] * basis[e * 4 + d], 0);
    const gram = Float64Array.from({ length: 9 }, (_, at) => (at % 4 === 0 ? ridge : 0));
    const code = new Float64Array(3);
    for (let i = 0; i < n; i++)
      for (let e = 0; e < 3; e++) {
        code[e] += (feature(shown, i, e) * y[i]) / n;
        for (let f = 0; f < 3; f++) gram[e * 3 + f] += (feature(shown, i, e) * feature(shown, i, f)) / n;
      }
    cholesky(gram, 3);
    solveLower(gram, 3, code);
    solveLowerTransposed(gram, 3, code);
    for (const row of [0, 1]) {
      const expected = code.reduce((sum, c, e) => sum + c * feature(asked, row, e), 0);
      expect(Math.abs(found[row] - expected)).toBeLessThan(1e-6);
    }
  });

  test('a generator with a base has no such code', () => {
    expect(() => ridgeLearner(linear(true)).init(key(0))).toThrow(ArgumentError);
  });

  test('the Gaussian loss is the negative log density, its gradient in the variance zero where that is right', () => {
    const loss = (y: number, mean: number, variance: number) =>
      gaussianLoss(full([1], y), { mean: full([1], mean), variance: full([1], variance) }).dataSync()[0];
    expect(loss(0, 0, 1)).toBeCloseTo(0.5 * Math.log(2 * Math.PI), 6);
    expect(loss(3, 1, 4)).toBeCloseTo(0.5 * Math.log(8 * Math.PI) + 0.5, 6);
    for (const variance of [3.9, 4.1]) expect(loss(3, 1, variance)).toBeGreaterThan(loss(3, 1, 4));
  });

  test('a Gaussian learner predicts its mean, and its variance is positive', () => {
    const target = serial(dense(5), dense(2, { gain: 1 }));
    const encoder = setEncoder([6]);
    const condition = () => encoder({ inShape: [1], outShape: [1] });
    const learner = gaussianLearner(hypernet({ target, inShape: [1], condition, head: fullHead() }));
    const phi = learner.init(key(1));
    const support = { x: tensor(rows(8, 1), [2, 4, 1]), y: tensor(rows(8, 2), [2, 4, 1]) };
    const x = tensor(rows(6, 3), [2, 3, 1]);
    const { mean, variance } = learner.moments(phi, support, x);
    expect([mean.shape, variance.shape]).toEqual([
      [2, 3, 1],
      [2, 3, 1],
    ]);
    expect([...learner.predict(phi, support, x, 1).dataSync()]).toEqual([...mean.dataSync()]);
    expect([...variance.dataSync()].every(v => v > 0)).toBe(true);
  });

  test('Fourier features are sines and cosines of whole waves in a period', () => {
    const layer = fourierFeatures(3, 8);
    expect(layer.outShape([2])).toEqual([14]);
    const x = tensor(Float32Array.of(1.25, -0.5), [1, 2]);
    const out = layer.apply({}, x);
    const waves = (f: (a: number) => number) =>
      [1, 2, 3].flatMap(k => [1.25, -0.5].map(v => f((2 * Math.PI * k * v) / 8)));
    const expected = [1.25, -0.5, ...waves(Math.sin), ...waves(Math.cos)];
    [...out.dataSync()].forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i], 6);
    });
    const later = layer.apply({}, tensor(Float32Array.of(9.25, 7.5), [1, 2]));
    [...slice(later, -1, 2, 14).dataSync()].forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i + 2], 5);
    });
  });
});

test('a one-shot task is of one alphabet, its support by one person and its queries by others', () => {
  const data = loadOmniglot(undefined, 'background_small2');
  expect([...data.alphabets()].map(([name, all]) => [name, all.length])).toEqual([
    ['Greek', 24],
    ['Japanese_(katakana)', 47],
    ['Latin', 26],
    ['Sanskrit', 42],
    ['Tagalog', 17],
  ]);
  const family = withinAlphabets(data, 20);
  const batch = drawBatch(family, {
    split: 'validation',
    seed: 0,
    first: 0,
    tasks: 2,
    shots: 1,
    queries: 2,
  });
  const known = new Map<string, string>();
  for (const [alphabet, characters] of data.alphabets())
    for (const character of characters)
      for (let person = 0; person < 20; person++) {
        const out = new Float32Array(784);
        writeDrawing(data, `${character}@0`, person, out);
        known.set(out.join(), `${alphabet} ${person}`);
      }
  const who = ({ n, x }: typeof batch.support, t: number, first: number, step: number) =>
    new Set(
      Array.from({ length: n / step }, (_, i) => {
        const row = t * n + first + i * step;
        return known.get(x.subarray(row * 784, (row + 1) * 784).join());
      }),
    );
  for (const t of [0, 1]) {
    const sources = [who(batch.support, t, 0, 1), who(batch.query, t, 0, 2), who(batch.query, t, 1, 2)];
    for (const source of sources) expect(source.size).toBe(1);
    const named = sources.map(source => [...source][0]!);
    expect(new Set(named).size).toBe(3);
    expect(new Set(named.map(name => name.split(' ')[0])).size).toBe(1);
    expect(named.join()).not.toContain('Tagalog');
  }
  expect(() => withinAlphabets(data, 60)).toThrow(/no background alphabet has 60 characters/);
});
