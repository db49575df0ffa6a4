/** Systems of the source articles that are compositions of parts tested elsewhere: each with what it must show. */
import { beforeEach, expect, test } from 'vitest';
import {
  adam,
  add,
  applyUpdates,
  ascent,
  compile,
  concatConditions,
  dense,
  div,
  fullHead,
  hypernet,
  init,
  key,
  materialise,
  mean,
  meta,
  mul,
  nn,
  normal,
  relu,
  serial,
  setEncoder,
  sgd,
  slice,
  square,
  sub,
  sum,
  type Tensor,
  taskId,
  tensor,
  tree,
  valueAndGrad,
  zeros,
} from '../src/index.js';

const values = (x: Tensor) => Array.from(x.dataSync());
const numbers = (n: number, f: (i: number) => number) =>
  tensor(Int32Array.from({ length: n }, (_, i) => f(i)));
beforeEach(() => init({ backend: 'cpu', threads: 1 }).then(() => {}));

test('two ids beside one support set learn two things, each better than one for both (S5)', {
  timeout: 120_000,
}, async () => {
  // Task 0 is y = 2x, task 1 is y = -2x, and the support set says nothing of it.
  const hyper = hypernet({
    target: dense(1, { bias: false }),
    inShape: [1],
    condition: concatConditions(setEncoder([4]), taskId(2, 3)),
    head: fullHead(),
  });
  const blank = { x: zeros([2, 3, 1]), y: zeros([2, 3, 1]) };
  const weights = (phi: any, ids: Tensor) => hyper.generate(phi, hyper.encode(phi, [blank, ids]));
  const batch = (step: number) => {
    const x = normal(key(step), [2, 16, 1]);
    return { x, y: mul(x, tensor(Float32Array.of(2, -2), [2, 1, 1])) };
  };
  const trained = async (ids: () => Tensor) => {
    const loss = (phi: any, { x, y }: ReturnType<typeof batch>) =>
      mean(square(sub(hyper.target.apply(weights(phi, ids()), x), y)));
    const training = { loss, optimiser: adam(2e-2), batch };
    const start = meta.initialState(hyper.init(key(0)), training.optimiser);
    const { params } = await meta.train(training, start, { steps: 400 });
    return { params, loss: values(loss(params, batch(1000)))[0] };
  };
  const own = await trained(() => numbers(2, i => i));
  const pooled = await trained(() => numbers(2, () => 0));
  const theta = weights(
    own.params,
    numbers(2, i => i),
  );
  const { w } = materialise(theta) as { w: Tensor };
  const [a, b] = values(w);
  expect(Math.abs(a - 2)).toBeLessThan(0.05);
  expect(Math.abs(b + 2)).toBeLessThan(0.05);
  // One weight for both is 0 at best, whose error is 4 times the mean of x².
  expect(own.loss).toBeLessThan(0.05);
  expect(pooled.loss).toBeGreaterThan(1);
});

test('pre-trained, then adapted row by row: both networks step, and the base falls too (S18, S19)', async () => {
  const net = nn.corrected(
    serial(dense(16), relu, dense(1, { gain: 1 })),
    serial(dense(16), relu, dense(1, { gain: 1 })),
  );
  const base = serial(dense(16), relu, dense(1, { gain: 1 }));
  const optimiser = adam(5e-3);
  // Pre-trained on y = x, adapted to y = -x: what both say counts.
  const loss = (p: any, x: Tensor, sign: number) => {
    const y = mul(x, sign);
    return add(mean(square(sub(net.apply(p, x), y))), mean(square(sub(base.apply(p.base, x), y))));
  };
  const step = compile((p: any, state: any, x: Tensor, sign: number): [any, any, Tensor, Tensor] => {
    const { grads } = valueAndGrad((q: any) => loss(q, x, sign))(p);
    const [updates, next] = optimiser.update(grads, state, p);
    const y = mul(x, sign);
    const curves = [net.apply(p, x), base.apply(p.base, x)].map(said => mean(square(sub(said, y))));
    return [applyUpdates(p, updates), next, curves[0], curves[1]];
  });
  let p: any = net.init(key(0), [1]);
  let state: any = optimiser.init(p);
  const curve: [number, number][] = [];
  for (let i = 0; i < 600; i++) {
    const rows = i < 300 ? 16 : 1;
    const [next, after, whole, first] = step(p, state, normal(key(i), [rows, 1]), i < 300 ? 1 : -1);
    curve.push([values(whole)[0], values(first)[0]]);
    [p, state] = [next, after];
  }
  const over = (from: number, which: 0 | 1) =>
    curve.slice(from, from + 30).reduce((sum, losses) => sum + losses[which] / 30, 0);
  for (const which of [0, 1] as const) {
    expect(over(270, which)).toBeLessThan(0.1);
    expect(over(300, which)).toBeGreaterThan(0.3);
    expect(over(570, which)).toBeLessThan(0.1 * over(300, which));
  }
});

test('losses fall; to make a value grow is said aloud (S52)', () => {
  const one = tensor(Float32Array.of(1));
  for (const [optimiser, sign] of [
    [sgd(0.5), -1],
    [ascent(sgd(0.5)), 1],
  ] as const) {
    const { grads } = valueAndGrad((w: Tensor) => mean(square(w)))(one);
    const [updates] = optimiser.update(grads, optimiser.init(one), one);
    expect(values(applyUpdates(one, updates))).toEqual([1 + sign]);
  }
});

test('a learner that ignores the support set is told from one that uses it', async () => {
  await init({ backend: 'ref' });
  const slopes = tensor(Float32Array.of(1, -1, 2, -2), [4, 1, 1]);
  const rows = (seed: number) => {
    const x = normal(key(seed), [4, 5, 1]);
    return { x, y: mul(x, slopes) };
  };
  const episodes = { support: rows(0), query: rows(1) };
  const deaf = meta.pretrained(dense(1), [1], { steps: 0, learningRate: 0.01 });
  const ignored = await meta.supportUse(deaf, deaf.init(key(2)), episodes, 1);
  expect(ignored.others).toBe(ignored.own);
  const leastSquares: meta.Learner = {
    init: () => ({}),
    predict: (_, { x, y }, asked) =>
      mul(asked, div(sum(mul(x, y), 1, { keepDims: true }), sum(square(x), 1, { keepDims: true }))),
  };
  const used = await meta.supportUse(leastSquares, {}, episodes, 1);
  expect(used.own).toBeLessThan(1e-9);
  expect(used.others).toBeGreaterThan(1);
  const one = tree.map((x: Tensor) => slice(x, 0, 0, 1), episodes);
  await expect(meta.supportUse(leastSquares, {}, one, 1)).rejects.toThrow(/two tasks/);
});
