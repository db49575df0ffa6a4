/** Systems of the source articles that are compositions of parts tested elsewhere: each with what it must show. */
import { beforeEach, describe, expect, test } from 'vitest';
import {
  adam,
  add,
  applyUpdates,
  ascent,
  cast,
  compile,
  concat,
  concatConditions,
  type data,
  dense,
  div,
  fullHead,
  gt,
  hypernet,
  init,
  key,
  linear,
  materialise,
  mean,
  meta,
  mul,
  neg,
  nn,
  noise,
  normal,
  relu,
  reshape,
  serial,
  setEncoder,
  sgd,
  slice,
  split,
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

test('a weight per row is [B,in,out]; one of another rank is refused with both shapes (S17)', () => {
  const x = normal(key(0), [4, 1, 100]);
  expect(linear(x, normal(key(1), [4, 100, 10])).shape).toEqual([4, 1, 10]);
  expect(() => linear(normal(key(0), [4, 100]), normal(key(1), [4, 10]))).toThrow(/\[4,100\].*\[4,10\]/);
});

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
  const [a, b] = values(
    (
      materialise(
        weights(
          own.params,
          numbers(2, i => i),
        ),
      ) as any
    ).w,
  );
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

test('weights that a discriminator cannot tell from given ones (S47)', { timeout: 120_000 }, async () => {
  // The given weights of a linear map are 3 + 0.5 n; generated ones start around 0.
  const hyper = hypernet({
    target: dense(1, { bias: false }),
    inShape: [2],
    condition: noise(2),
    trunk: dense(8),
    head: fullHead(),
  });
  const judge = serial(dense(16), relu, dense(1, { gain: 1 }));
  const [forMaker, forJudge] = [adam(5e-3), adam(5e-3)];
  const made = (phi: any, k: Tensor) =>
    reshape((materialise(hyper.generate(phi, hyper.encode(phi, 64, { key: k }))) as any).w, [64, 2]);
  const given = (k: Tensor) => add(mul(normal(k, [64, 2]), 0.5), 3);
  // Two logits, the second one fixed at 0: cross-entropy is the logistic loss.
  const logits = (q: any, w: Tensor) => concat([judge.apply(q, w), zeros([64, 1])], -1);
  const is = (label: number) => numbers(64, () => label);
  const step = compile((phi: any, q: any, a: any, b: any, k: Tensor): [any, any, any, any, Tensor] => {
    const [k0, k1] = split(k);
    const [real, fake] = [given(k0), made(phi, k1)];
    const judged = valueAndGrad((own: any) =>
      add(nn.crossEntropy(logits(own, real), is(0)), nn.crossEntropy(logits(own, fake), is(1))),
    )(q);
    const fooled = valueAndGrad((own: any) => nn.crossEntropy(logits(q, made(own, k1)), is(0)))(phi);
    const right = concat([gt(logits(q, real), 0), gt(neg(logits(q, fake)), 0)], 0);
    const accuracy = mul(mean(cast(right, 'f32')), 2);
    const [up, nextA] = forMaker.update(fooled.grads, a, phi);
    const [down, nextB] = forJudge.update(judged.grads, b, q);
    return [applyUpdates(phi, up), applyUpdates(q, down), nextA, nextB, accuracy];
  });
  let [phi, q]: any[] = [hyper.init(key(0)), judge.init(key(1), [2])];
  let [a, b]: any[] = [forMaker.init(phi), forJudge.init(q)];
  const accuracies: number[] = [];
  for (let i = 0; i < 1500; i++) {
    let accuracy: Tensor;
    [phi, q, a, b, accuracy] = step(phi, q, a, b, key(i + 2));
    accuracies.push(values(accuracy)[0]);
  }
  const over = (from: number, to: number) =>
    accuracies.slice(from, to).reduce((sum, x) => sum + x, 0) / (to - from);
  expect(Math.max(...accuracies.slice(0, 200))).toBeGreaterThan(0.95);
  expect(Math.abs(over(1200, 1500) - 0.5)).toBeLessThan(0.1);
  const w = values(made(phi, key(5)));
  expect(Math.abs(w.reduce((s, x) => s + x / w.length, 0) - 3)).toBeLessThan(0.5);
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

describe('small data (S58)', () => {
  /** Three classes around centres in two of twelve dimensions; the other ten say nothing and are loud. */
  const blobs: data.TaskFamily = {
    name: 'blobs',
    kind: 'classification',
    inShape: [12],
    outSize: 3,
    draw({ support, query }, stream) {
      const centres = Array.from({ length: 6 }, () => 2 * stream.normal());
      for (const { n, x, y } of [support, query])
        for (let i = 0; i < n; i++) {
          y[i] = Math.floor((3 * i) / n);
          for (let j = 0; j < 12; j++)
            x[12 * i + j] = j < 2 ? centres[2 * y[i] + j] + 0.5 * stream.normal() : 3 * stream.normal();
        }
    },
  };
  const draw = (split: data.Split, shots: number, first: number, tasks: number) =>
    meta.drawEpisodes(blobs, { split, seed: 0, first, tasks, shots, queries: 10 });

  test('a generated classifier beats one trained from scratch at 1, 2, 5 and 10 rows a class', {
    timeout: 120_000,
  }, async () => {
    const embed = serial(dense(16), relu, dense(8, { gain: 1 }));
    const generated = meta.generatedClassifier(embed, [12]);
    const optimiser = adam(3e-3);
    const { params } = await meta.train(
      {
        loss: meta.trainingLoss(generated, 3),
        optimiser,
        batch: step => draw('train', [1, 2, 5, 10][step % 4], 16 * step, 16),
      },
      meta.initialState(generated.init(key(0)), optimiser),
      { steps: 400 },
    );
    const scratch = meta.maml(serial(embed, dense(3, { gain: 1 })), [12], { steps: 20, learningRate: 0.05 });
    const random = scratch.init(key(1));
    const means: number[] = [];
    for (const shots of [1, 2, 5, 10]) {
      const score = (learner: meta.Learner, p: unknown) =>
        meta.evaluate(meta.queryScores(learner, 3), p, (first, n) => draw('test', shots, first, n), {
          tasks: 100,
        });
      const [ours, theirs] = [await score(generated, params), await score(scratch, random)];
      const { mean: ahead, ci95 } = meta.paired(ours, theirs);
      expect(ahead - ci95, `${shots} shots`).toBeGreaterThan(0);
      means.push(meta.summarise(ours).mean);
    }
    expect(means[3]).toBeGreaterThan(means[0]);
  });
});
