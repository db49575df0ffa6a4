/** Methods of learning from tasks: what they compute before training, and what training makes of them. */
import { beforeEach, describe, expect, test } from 'vitest';
import { cholesky, solveLower, solveLowerTransposed } from '../src/data/cholesky.js';
import { linearTasks } from '../src/data/linear.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { drawBatch } from '../src/data/task.js';
import { description, fullHead, hypernet, setEncoder } from '../src/hyper/index.js';
import {
  add,
  dense,
  init,
  key,
  mean,
  mul,
  nn,
  normal,
  relu,
  reshape,
  serial,
  slice,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
} from '../src/index.js';
import {
  classMeans,
  conv4,
  drawEpisodes,
  evaluate,
  generatedClassifier,
  hypernetLearner,
  imageNorm,
  initialState,
  type Learner,
  prototypes,
  queryScores,
  summarise,
  train,
  trainingLoss,
} from '../src/meta/index.js';
import { adam, chain, clipByGlobalNorm, cosineSchedule, warmupSchedule } from '../src/optim/index.js';

const values = (t: Tensor) => [...t.dataSync()];
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) {
  expect(actual.length).toBe(expected.length);
  Array.from(actual).forEach((x, i) => {
    expect(Math.abs(x - expected[i]), `element ${i}`).toBeLessThanOrEqual(tolerance);
  });
}

test('a hypernetwork trained on linear tasks meets the ridge solution', async () => {
  await init({ backend: 'ref' });
  const [tasks, rows, d, e, ridge] = [40, 5, 8, 3, 0.05];
  const family = linearTasks({ inSize: d, codeSize: e, noise: 0.3 });
  const { support, latent } = drawBatch(family, {
    split: 'train',
    seed: 1,
    first: 0,
    tasks,
    shots: rows,
    queries: 0,
  });
  const hyper = hypernet({
    target: dense(1, { bias: false }),
    inShape: [d],
    condition: description(e),
    head: fullHead({ base: false }),
  });
  // y = Σ x_d basis[e,d] c_e is linear in the basis, with features c_e x_d.
  const data = {
    x: tensor(support.x, [tasks, rows, d]),
    y: tensor(support.y, [tasks, rows, 1]),
    codes: tensor(latent, [tasks, e]),
  };
  const loss = (phi: any, { x, y, codes }: typeof data) => {
    const predicted = hyper.target.apply(hyper.generate(phi, hyper.encode(phi, codes)), x);
    return add(mean(square(sub(predicted, y))), mul(ridge, sum(square(phi.head.basis))));
  };
  const optimiser = adam(cosineSchedule(0.05, 800));
  const end = await train(
    { loss, optimiser, batch: () => data },
    initialState(hyper.init(key(0)), optimiser),
    {
      steps: 800,
    },
  );

  const [n, p] = [tasks * rows, e * d];
  const gram = new Float64Array(p * p);
  const solution = new Float64Array(p);
  for (let i = 0; i < n; i++) {
    const task = Math.floor(i / rows);
    const f = Array.from(
      { length: p },
      (_, k) => latent[task * e + Math.floor(k / d)] * support.x[i * d + (k % d)],
    );
    for (let j = 0; j < p; j++) {
      solution[j] += (f[j] * support.y[i]) / n;
      for (let k = 0; k < p; k++) gram[j * p + k] += (f[j] * f[k]) / n;
    }
  }
  for (let j = 0; j < p; j++) gram[j * p + j] += ridge;
  cholesky(gram, p);
  solveLower(gram, p, solution);
  solveLowerTransposed(gram, p, solution);
  const found = values(end.params.head.basis);
  expect(Math.hypot(...solution)).toBeGreaterThan(3);
  expectClose(found, solution, 2e-3);
});

describe('on ref', () => {
  beforeEach(() => init({ backend: 'ref' }).then(() => {}));

  /** Mean squared error over 100 unseen sinusoids. */
  async function unseen(learner: Learner, params: unknown) {
    const draw = (first: number, tasks: number) =>
      drawEpisodes(sinusoid, { split: 'test', seed: 0, first, tasks, shots: 10, queries: 10 });
    return summarise(await evaluate(queryScores(learner, 1), params, draw, { tasks: 100 }));
  }
  async function trained(learner: Learner, steps: number, rate: number) {
    const schedule = warmupSchedule(20, cosineSchedule(rate, steps));
    const optimiser = chain(clipByGlobalNorm(1), adam(schedule));
    const batch = (step: number) =>
      drawEpisodes(sinusoid, {
        split: 'train',
        seed: 0,
        first: step * 12,
        tasks: 12,
        shots: 10,
        queries: 10,
      });
    const start = initialState(learner.init(key(0)), optimiser);
    const end = await train({ loss: trainingLoss(learner, 1), optimiser, batch }, start, { steps });
    return { before: await unseen(learner, start.params), after: await unseen(learner, end.params) };
  }
  const target = serial(dense(20), relu, dense(20), relu, dense(1, { gain: 1 }));

  test('a hypernetwork learns sinusoids from 10 points, without inner steps', async () => {
    const hyper = hypernet({
      target,
      inShape: [1],
      condition: setEncoder([32, 32, 32]),
      trunk: dense(32),
      head: fullHead({ base: true }),
    });
    const request = { split: 'train', seed: 0, first: 0, tasks: 64, shots: 10, queries: 0 } as const;
    const typical = () => drawEpisodes(sinusoid, request).support;
    const { before, after } = await trained(hypernetLearner(hyper, typical), 250, 3e-3);
    // Zero scores 4.25; 300 steps gave 0.7 to 0.95 on every seed tried.
    expect(before.mean).toBeGreaterThan(3);
    expect(after.mean + after.ci95).toBeLessThan(2);
  });

  const embed = serial(dense(6), relu, dense(4));
  const support = () => ({
    x: normal(key(5), [2, 6, 3]),
    y: tensor(Int32Array.of(0, 1, 2, 0, 1, 2, 2, 1, 0, 0, 1, 2), [2, 6]),
  });

  test('class means average the rows of each label, in any order', () => {
    const z = tensor([1, 10, 2, 20, 3, 30, 4, 40], [1, 4, 2]);
    const y = tensor(Int32Array.of(1, 0, 1, 1), [1, 4]);
    expectClose(values(classMeans(z, y, 2)), [2, 20, 8 / 3, 80 / 3], 1e-5);
  });

  test('prototypes: the logit of a class is minus the squared distance, but for what all classes share', () => {
    const learner = prototypes(embed, [3]);
    const params = learner.init(key(2));
    const x = normal(key(6), [2, 4, 3]);
    const logits = values(learner.predict(params, support(), x, 3));
    const means = values(classMeans(embed.apply(params.embed, support().x), support().y, 3));
    const z = values(embed.apply(params.embed, x));
    for (let t = 0; t < 2; t++)
      for (let i = 0; i < 4; i++) {
        const row = z.slice((t * 4 + i) * 4, (t * 4 + i + 1) * 4);
        const norm = row.reduce((s, v) => s + v * v, 0);
        const distances = [0, 1, 2].map(c =>
          row.reduce((s, v, k) => s + (v - means[(t * 3 + c) * 4 + k]) ** 2, 0),
        );
        expectClose(
          logits.slice((t * 4 + i) * 3, (t * 4 + i + 1) * 3),
          distances.map(far => norm - far),
          1e-4,
        );
      }
  });

  test('the generated classifier starts as the class means, and its own weights come to matter', async () => {
    const learner = generatedClassifier(embed, [3], { width: 16 });
    const params = learner.init(key(2));
    const x = normal(key(6), [2, 4, 3]);
    const own = (p: typeof params) => values(learner.predict(p, support(), x, 3));
    const plain = (p: typeof params) => values(prototypes(embed, [3]).predict(p, support(), x, 3));
    expectClose(own(params), plain(params), 1e-5);
    const optimiser = adam(0.01);
    const episode = {
      support: support(),
      query: { x, y: tensor(Int32Array.of(0, 1, 2, 0, 2, 1, 0, 1), [2, 4]) },
    };
    const end = await train(
      { loss: trainingLoss(learner, 3), optimiser, batch: () => episode },
      initialState(params, optimiser),
      { steps: 30 },
    );
    const apart = own(end.params).map((v, i) => Math.abs(v - plain(end.params)[i]));
    expect(Math.max(...apart)).toBeGreaterThan(0.5);
    for (const name of ['query', 'key', 'value'] as const)
      expect(values(end.params[name].w)).not.toEqual(values(params[name].w));
  });

  test('it takes other numbers of classes than it was made with, and their order does not matter', () => {
    const learner = generatedClassifier(embed, [3], { width: 16 });
    const params = { ...learner.init(key(2)), delta: serial(dense(16), relu, dense(5)).init(key(8), [8]) };
    const x = normal(key(6), [1, 2, 3]);
    const shown = normal(key(7), [1, 5, 3]);
    const order = [3, 0, 4, 2, 1];
    const logits = (labels: number[]) =>
      values(learner.predict(params, { x: shown, y: tensor(Int32Array.from(labels), [1, 5]) }, x, 5));
    const [plain, mixed] = [logits([0, 1, 2, 3, 4]), logits(order)];
    for (let row = 0; row < 2; row++)
      expectClose(
        order.map(label => mixed[row * 5 + label]),
        plain.slice(row * 5, row * 5 + 5),
        1e-4,
      );
  });

  test('an image is embedded the same whatever else is in its batch, unless norms are by the batch', () => {
    const embedding = conv4(3);
    const params = embedding.init(key(1), [16, 16, 1]);
    const images = normal(key(2), [3, 16, 16, 1]);
    const transductive = prototypes(conv4(3, { norm: nn.batchNorm }), [16, 16, 1]);
    const support = { x: normal(key(3), [1, 2, 16, 16, 1]), y: tensor(Int32Array.of(0, 1), [1, 2]) };
    const asked = (n: number) => reshape(slice(images, 0, 0, n), [1, n, 16, 16, 1]);
    const logits = (learner: Learner, n: number) =>
      values(learner.predict(learner.init(key(4)), support, asked(n), 2)).slice(0, 2);
    const apart = prototypes(embedding, [16, 16, 1]);
    expectClose(logits(apart, 3), logits(apart, 1), 1e-5);
    const [among, single] = [logits(transductive, 3), logits(transductive, 1)];
    expect(Math.abs(among[0] - among[1] - (single[0] - single[1]))).toBeGreaterThan(0.1);
    const together = values(embedding.apply(params, images));
    const alone = values(embedding.apply(params, slice(images, 0, 1, 2)));
    expect(alone.some(v => v > 0)).toBe(true);
    expectClose(together.slice(alone.length, 2 * alone.length), alone, 1e-6);
    const norm = imageNorm();
    const plain = values(norm.apply(norm.init(key(0), [16, 16, 1]), mul(add(images, 5), 3)));
    expectClose([plain.reduce((a, b) => a + b, 0) / plain.length], [0], 1e-5);
    expectClose([plain.reduce((a, b) => a + b * b, 0) / plain.length], [1], 1e-3);
  });
});
