/** The network that is generated layer by layer from a support set of images. */
import { describe, expect, test } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  add,
  concat,
  grad,
  key,
  meta,
  mul,
  nn,
  normal,
  serial,
  slice,
  type Tensor,
  tensor,
  tree,
  use,
} from '../src/index.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

use(createRef({ float: 64 }));
const inShape = [8, 8, 1];
const features = serial(nn.flatten(3), nn.dense(5, { gain: 1 }));
const small = { channels: 3, blocks: 2, features, width: 4, layers: 1, heads: 2 };
const ways = 3;
const shown = normal(key(1), [2, 6, ...inShape]);
const asked = normal(key(2), [2, 4, ...inShape]);
const labels = (...y: number[]) => tensor(Int32Array.from(y), [2, y.length / 2]);
const y = labels(0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2);
const values = (x: Tensor) => Array.from(x.dataSync());

describe.each(['all', 'logits'] as const)('hyperTransformer, %s generated', generate => {
  const make = () => {
    const learner = meta.hyperTransformer(inShape, { ...small, generate });
    // Moved off the start, where what is added to the class means is zero.
    const params = learner.init(key(0));
    const { logits } = params.shared;
    const delta = tree.map((p: Tensor) => add(p, mul(normal(key(3), p.shape), 0.1)), logits.delta);
    return { learner, params: { ...params, shared: { ...params.shared, logits: { ...logits, delta } } } };
  };

  test('a task is answered by a network of its own, made whole', () => {
    const { learner, params } = make();
    const one = (x: Tensor) => slice(x, 0, 1, 2);
    const together = learner.predict(params, { x: shown, y }, asked, ways);
    const alone = learner.predict(params, { x: one(shown), y: one(y) }, one(asked), ways);
    expectSameTree(one(together), alone, 1e-12);
    expect(params.generators).toHaveLength(generate === 'all' ? 2 : 0);
  });

  test('neither the order of support rows nor that of other queries is seen; classes are only renamed', () => {
    const { learner, params } = make();
    const plain = learner.predict(params, { x: shown, y }, asked, ways);
    const half = (x: Tensor, a: number, b: number) => slice(x, 1, a, b);
    const turned = {
      x: concat([half(shown, 3, 6), half(shown, 0, 3)], 1),
      y: concat([half(y, 3, 6), half(y, 0, 3)], 1),
    };
    expectSameTree(learner.predict(params, turned, asked, ways), plain, 1e-6);
    expectSameTree(
      learner.predict(params, { x: shown, y }, half(asked, 1, 2), ways),
      half(plain, 1, 2),
      1e-6,
    );
    const renamed = labels(1, 1, 2, 2, 0, 0, 1, 2, 0, 1, 2, 0);
    const moved = learner.predict(params, { x: shown, y: renamed }, asked, ways);
    const column = (c: number) => slice(plain, -1, c, c + 1);
    expectSameTree(moved, concat([column(2), column(0), column(1)], -1), 1e-6);
  });

  test('passes the gradient check, and the loss reaches every parameter', () => {
    const { learner, params } = make();
    const episodes = { support: { x: shown, y }, query: { x: asked, y: labels(0, 1, 2, 0, 2, 1, 0, 0) } };
    const loss = (p: typeof params) => meta.trainingLoss(learner, ways)(p, episodes);
    for (const [path, g] of tree.entries<Tensor>(grad(loss)(params)))
      expect(
        values(g).some(v => v !== 0),
        path,
      ).toBe(true);
    // Between 1e-6 and 1e-5 away a relu turns: with norms of a small scale everything lies near its kinks.
    expectDerivatives(loss, params, key(5), 1e-4, 1e-6);
  });
});

test('it refuses images that its blocks leave nothing of', () => {
  expect(() => meta.hyperTransformer([8, 8, 1])).toThrow(/at least 16 pixels/);
  expect(() => meta.hyperTransformer([64])).toThrow(/images/);
});
