/** Statistics of generated weights against the same ones of the weights themselves. */
import { beforeEach, expect, test } from 'vitest';
import { grad } from '../src/core/grad.js';
import * as tree from '../src/core/tree.js';
import {
  chunkedHead,
  description,
  diversityLoss,
  fullHead,
  type Head,
  hypernet,
  lowRankHead,
  noise,
  weightGram,
  weightNormLoss,
  weightNorms,
  weightStatistics,
} from '../src/hyper/index.js';
import {
  add,
  concat,
  dense,
  init,
  key,
  materialise,
  matmul,
  mean,
  mul,
  normal,
  relu,
  reshape,
  serial,
  square,
  sum,
  type Tensor,
  tensor,
  transpose,
  zeros,
} from '../src/index.js';

beforeEach(() => init({ backend: 'ref', float: 64 }));

const values = (t: Tensor) => [...t.dataSync()];
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-9) {
  expect(actual.length).toBe(expected.length);
  const size = Math.max(...Array.from(expected, Math.abs), 1e-3);
  Array.from(actual).forEach((x, i) => {
    expect(Math.abs(x - expected[i]), `element ${i}`).toBeLessThanOrEqual(tolerance * size);
  });
}

const target = serial(dense(7), relu, dense(5), relu, dense(3));
const heads: [string, Head][] = [
  ['full', fullHead({ base: false })],
  ['full with a base', fullHead({ base: true })],
  ['chunked, one chunk', chunkedHead({ chunk: 500, slot: 4 })],
  ['chunked, small chunks', chunkedHead({ chunk: 3, slot: 4 })],
  ['chunked, with a base', chunkedHead({ chunk: 16, slot: 4, base: true })],
  ['low rank', lowRankHead({ rank: 2, scale: 0.5, base: false })],
  ['low rank with a base', lowRankHead({ rank: 1 })],
];
const T = 6;
const made = (head: Head) => {
  const hyper = hypernet({ target, inShape: [4], condition: description(3), trunk: dense(8), head });
  const phi = tree.map((p: Tensor) => add(p, 0.1), hyper.init(key(1)));
  const code = normal(key(2), [T, 3]);
  return { phi, theta: (p: any) => hyper.generate(p, hyper.encode(p, code)), weights: hyper.weightCount };
};
/** The weights of all tasks as rows. */
const rows = (theta: unknown): Tensor =>
  concat(
    tree.leaves<Tensor>(materialise(theta)).map(w => reshape(w, [T, -1])),
    1,
  );

test.each(heads)('%s: inner products and norms are those of the weights, gradients too', (_, head) => {
  const { phi, theta, weights } = made(head);
  const w = rows(theta(phi));
  expect(w.shape).toEqual([T, weights]);
  expectClose(values(weightGram(theta(phi))), values(matmul(w, transpose(w))));
  expectClose(values(weightNorms(theta(phi))), values(sum(square(w), 1)));
  const probe = normal(key(3), [T, T]);
  const gradients = (gram: (theta: unknown) => Tensor) =>
    tree.leaves<Tensor>(grad((p: any) => sum(mul(probe, gram(theta(p)))))(phi)).flatMap(values);
  expectClose(
    gradients(weightGram),
    gradients(x => matmul(rows(x), transpose(rows(x)))),
  );
});

test.each(heads)('%s: what is reported agrees with the weights', async (_, head) => {
  const { phi, theta, weights } = made(head);
  const found = await weightStatistics(theta(phi));
  const w = values(rows(theta(phi)));
  const row = (t: number) => w.slice(t * weights, (t + 1) * weights);
  const dot = (x: number[], y: number[]) => x.reduce((s, v, i) => s + v * y[i], 0);
  const norms = Array.from({ length: T }, (_, t) => Math.sqrt(dot(row(t), row(t))));
  const centre = Array.from({ length: weights }, (_, i) => norms.reduce((s, _, t) => s + row(t)[i] / T, 0));
  let variance = 0;
  let cosine = 0;
  for (let t = 0; t < T; t++) {
    const away = row(t).map((v, i) => v - centre[i]);
    variance += dot(away, away) / (T - 1) / weights;
    for (let s = 0; s < T; s++)
      if (s !== t) cosine += dot(row(t), row(s)) / norms[t] / norms[s] / (T * (T - 1));
  }
  expect(found.tasks).toBe(T);
  expect(found.weights).toBe(weights);
  expectClose(
    [found.norm, found.variance, found.cosine],
    [norms.reduce((a, b) => a + b) / T, variance, cosine],
  );
  expectClose(values(diversityLoss(theta(phi))), [cosine]);
  expectClose(values(weightNormLoss(theta(phi))), values(mean(weightNorms(theta(phi)))));
});

test('the effective rank counts the directions of the codes', async () => {
  const hyper = hypernet({
    target: dense(5, { bias: false }),
    inShape: [4],
    condition: noise(3),
    head: fullHead({ base: true }),
  });
  const phi = hyper.init(key(1));
  // Orthonormal rows of the basis, so that weights lie as codes do.
  const basis = tensor(
    Float32Array.from({ length: 60 }, (_, i) => (i % 20 === Math.floor(i / 20) ? 1 : 0)),
    [3, 20],
  );
  const rank = async (codes: number[][]) => {
    const code = tensor(Float32Array.from(codes.flat()), [codes.length, 3]);
    return (await weightStatistics(hyper.generate({ ...phi, head: { ...phi.head, basis } }, code)))
      .effectiveRank;
  };
  const cross = (axes: number) =>
    Array.from({ length: 2 * axes }, (_, i) => [0, 1, 2].map(a => (a === i >> 1 ? (i & 1 ? 1 : -1) : 0)));
  expect(await rank(cross(1))).toBeCloseTo(1, 6);
  expect(await rank(cross(2))).toBeCloseTo(2, 6);
  expect(await rank(cross(3))).toBeCloseTo(3, 6);
  expect(
    await rank([
      [1, 2, 3],
      [1, 2, 3],
    ]),
  ).toBe(0);
});

test('trees without generated weights and single tasks are refused', async () => {
  expect(() => weightGram({ w: zeros([2, 2]) })).toThrow(/there are none/);
  const hyper = hypernet({ target, inShape: [4], condition: noise(3), head: fullHead() });
  const one = hyper.generate(hyper.init(key(0)), normal(key(1), [1, 3]));
  expect(() => diversityLoss(one)).toThrow(/got 1/);
  await expect(weightStatistics(one)).rejects.toThrow(/got 1/);
});
