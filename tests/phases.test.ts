/** Phases of a run around its training: noise that is used or not, starts compared, validation, pre-training. */
import { beforeEach, describe, expect, test } from 'vitest';
import { noise } from '../src/hyper/index.js';
import {
  adam,
  chain,
  clipByGlobalNorm,
  cosineSchedule,
  data,
  dense,
  fullHead,
  grad,
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
  type Tensor,
  tensor,
  tree,
  weightStatistics,
} from '../src/index.js';
import { expectSameTree } from './derivatives.js';

const values = (x: Tensor) => Array.from(x.dataSync());

beforeEach(() => init({ backend: 'cpu', threads: 1 }).then(() => {}));

/** y = x or y = -x: which of the two, a task does not say but by its rows. */
const modes: data.TaskFamily = {
  name: 'modes',
  kind: 'regression',
  inShape: [1],
  outSize: 1,
  draw({ support, query }, stream) {
    const sign = stream.below(2) === 0 ? -1 : 1;
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) y[i] = sign * (x[i] = stream.normal());
  },
};
const draw = (split: data.Split, first: number, count: number, queries = 20) =>
  meta.drawEpisodes(modes, { split, seed: 0, first, tasks: count, shots: 5, queries }, { key: true });

/** Trains a linear map of one weight per noise and returns its learner and parameters. */
async function trained(spread: number) {
  const hyper = hypernet({
    target: dense(1, { bias: false }),
    inShape: [1],
    condition: noise(4),
    trunk: serial(dense(16), relu, dense(16)),
    head: fullHead(),
  });
  const learner = meta.noiseLearner(hyper, { spread });
  const steps = 2500;
  const training = {
    loss: meta.trainingLoss(learner, 1),
    optimiser: chain(clipByGlobalNorm(1), adam(cosineSchedule(1e-2, steps))),
    batch: (step: number) => draw('train', 64 * step, 64),
  };
  const { params } = await meta.train(training, meta.initialState(learner.init(key(0)), training.optimiser), {
    steps,
  });
  const scores = await meta.evaluate(
    meta.queryScores(learner, 1),
    params,
    (first, n) => draw('test', first, n),
    {
      tasks: 200,
    },
  );
  const { variance } = await weightStatistics(learner.draw(params, 64, key(5)));
  return { learner, params, variance, error: meta.summarise(scores) };
}

describe('two modes that only noise tells apart', () => {
  test('a generator ignores its noise unless its weights are spread, and then answers better', {
    timeout: 120_000,
  }, async () => {
    const [ignored, spread] = [await trained(0), await trained(1)];
    expect(ignored.variance).toBeLessThan(1e-4);
    expect(spread.variance).toBeGreaterThan(0.1);
    // No single network does better than 0 for both modes, whose error is the mean of x², 1.
    expect(ignored.error.mean).toBeGreaterThan(0.85);
    expect(spread.error.mean + spread.error.ci95).toBeLessThan(ignored.error.mean);
    expect(spread.error.mean).toBeLessThan(0.2);
  });

  test('many draws in one call are those of single calls, and a learner that draws needs a key', () => {
    const hyper = hypernet({ target: dense(2), inShape: [1], condition: noise(3), head: fullHead() });
    const learner = meta.noiseLearner(hyper);
    const phi = learner.init(key(0));
    const z = normal(key(1), [4, 3]);
    const weights = (codes: Tensor) =>
      tree.leaves<Tensor>(materialise(hyper.generate(phi, hyper.encode(phi, codes))));
    weights(z).forEach((w, l) => {
      for (let i = 0; i < 4; i++)
        expectSameTree(weights(slice(z, 0, i, i + 1))[l], slice(w, 0, i, i + 1), 1e-6);
    });
    const { key: _, ...without } = draw('train', 0, 4);
    expect(() => meta.trainingLoss(learner, 1)(phi, without)).toThrow(/need a key/);
    const words = [0, 1].map(first => Array.from(draw('train', first, 1).key!.dataSync()));
    expect(words).toEqual([
      [0, 1],
      [0, 2],
    ]);
  });
});

/** Sinusoids: what `fineTuned` and MAML are given in the tests of starts. */
const target = serial(dense(40), relu, dense(40), relu, dense(1, { gain: 1 }));
const waves = (split: data.Split, first: number, count: number, queries = 20) =>
  meta.drawEpisodes(data.sinusoid, { split, seed: 0, first, tasks: count, shots: 10, queries });

describe('starts', () => {
  test('a generated start beats a random one after as many steps', { timeout: 120_000 }, async () => {
    const hyper = hypernet({
      target,
      inShape: [1],
      condition: setEncoder([64, 64]),
      trunk: dense(64),
      head: fullHead(),
    });
    const learner = meta.hypernetLearner(hyper, () => waves('train', 0, 32).support);
    const optimiser = chain(clipByGlobalNorm(1), adam(2e-3));
    const training = {
      loss: meta.trainingLoss(learner, 1),
      optimiser,
      batch: (step: number) => waves('train', 32 * step, 32),
    };
    const { params } = await meta.train(training, meta.initialState(learner.init(key(0)), optimiser), {
      steps: 600,
    });
    const options = {
      steps: [0, 1, 5, 10],
      rates: [0.001, 0.003, 0.01],
      metric: 'mse' as const,
      outSize: 1,
      tasks: 100,
      validationTasks: 100,
      draw: (split: 'validation' | 'test', first: number, n: number) => waves(split, first, n),
    };
    const generated = await meta.startCurve({ learner: how => meta.fineTuned(hyper, how), params }, options);
    const random = await meta.startCurve(
      { learner: how => meta.maml(target, [1], how), params: target.init(key(1), [1]) },
      options,
    );
    const median = (x: Float64Array) => x.slice().sort()[50];
    generated.forEach((point, i) => {
      expect(point.steps).toBe(options.steps[i]);
      expect(median(point.scores)).toBeLessThan(median(random[i].scores));
      const { mean, ci95 } = meta.paired(point.scores, random[i].scores);
      expect(mean + ci95).toBeLessThan(0);
    });
    // Without steps a start answers as it is, and a rate was chosen for none.
    const plain = await meta.evaluate(meta.queryScores(learner, 1), params, (f, n) => waves('test', f, n), {
      tasks: 100,
    });
    plain.forEach((score, t) => {
      expect(Math.abs(score - generated[0].scores[t])).toBeLessThan(1e-4 * Math.max(score, 1));
    });
    expect(options.rates).toContain(random[2].learningRate);
  });

  test('scores are paired task by task, and curves need a rate', async () => {
    expect(meta.paired([3, 5, 4], [1, 2, 3])).toEqual(meta.summarise([2, 3, 1]));
    expect(() => meta.paired([1, 2], [1, 2, 3])).toThrow(/same tasks/);
    const start = { learner: (how: any) => meta.maml(target, [1], how), params: target.init(key(1), [1]) };
    await expect(
      meta.startCurve(start, { steps: [0], rates: [], metric: 'mse', outSize: 1, tasks: 2, draw: waves }),
    ).rejects.toThrow(/at least one rate/);
  });
});

describe('pre-training and fine-tuning', () => {
  test('learns what tasks have in common without their support sets, then a task from its own', async () => {
    const two = nn.corrected(serial(dense(16), relu, dense(1)), serial(dense(16), relu, dense(1)));
    for (const net of [serial(dense(16), relu, dense(1)), two]) {
      const learner = meta.pretrained(net, [1], { steps: 20, learningRate: 0.01 });
      const optimiser = adam(1e-2);
      const training = {
        loss: meta.trainingLoss(learner, 1),
        optimiser,
        batch: (step: number) => draw('train', 8 * step, 8),
      };
      const { params } = await meta.train(training, meta.initialState(learner.init(key(0)), optimiser), {
        steps: 200,
      });
      const { support, query } = draw('test', 0, 50);
      const error = (y: Tensor) => values(meta.taskScores(y, query.y)).reduce((a, b) => a + b) / 50;
      const before = error(net.apply(params, query.x));
      expect(before).toBeGreaterThan(0.8);
      expect(error(learner.predict(params, support, query.x, 1))).toBeLessThan(0.5 * before);
      const other = { ...support, y: mul(support.y, -1) };
      expect(values(learner.loss!(params, { support: other, query }))).toEqual(
        values(learner.loss!(params, { support, query })),
      );
    }
  });

  test('a corrected network has the gradient of both its parts, and refuses images', () => {
    const net = nn.corrected(dense(2), serial(dense(3), relu, dense(2)));
    const p = net.init(key(0), [4]);
    const gradient = grad((q: typeof p) => mean(square(net.apply(q, normal(key(1), [5, 4])))))(p);
    for (const g of tree.leaves<Tensor>(gradient)) expect(values(g).some(v => v !== 0)).toBe(true);
    expect(() => net.init(key(0), [4, 4, 1])).toThrow(/vectors/);
  });
});

describe('validation', () => {
  const line = { x: normalValues(3, 8), y: [] as number[] };
  line.y = line.x.map(x => 2 * x);
  const training = () => ({
    loss: (w: Tensor, b: { x: Tensor; y: Tensor }) => mean(square(sub(mul(w, b.x), b.y))),
    optimiser: sgd(0.05),
    batch: () => ({ x: tensor(Float32Array.from(line.x)), y: tensor(Float32Array.from(line.y)) }),
  });

  test('keeps the best parameters of those looked at, and ends where they get no better', async () => {
    const { loss, optimiser, batch } = training();
    const start = meta.initialState(tensor(Float32Array.of(0)), optimiser);
    const seen: [number, number][] = [];
    // What is validated is nearest to 1, which training passes on its way to 2.
    const score = async (w: Tensor) => Math.abs((await w.data())[0] - 1);
    const { best, last } = await meta.trainValidated(
      { loss, optimiser, batch },
      start,
      { every: 3, patience: 2, score, onScore: (step, value) => seen.push([step, value]) },
      { steps: 300 },
    );
    const lowest = seen.reduce((a, b) => (b[1] < a[1] ? b : a));
    expect([best.step, best.score]).toEqual(lowest);
    expect(await score(best.params)).toBe(best.score);
    expect(seen.map(([step]) => step)).toEqual(seen.map((_, i) => 3 * i));
    expect(last.step).toBe(best.step + 6);
    expect(best.step).toBeGreaterThan(0);

    // Uninterrupted training comes by the same parameters, and goes on.
    const plain = await meta.train({ loss, optimiser, batch }, start, { steps: best.step });
    expect(values(plain.params)).toEqual(values(best.params));
    const whole = await meta.trainValidated(
      { loss, optimiser, batch },
      start,
      { every: 7, score },
      { steps: 20 },
    );
    expect(whole.last.step).toBe(20);
  });

  test('a run that was killed at any step goes on to the same end', async () => {
    const run = training();
    const start = meta.initialState(tensor(Float32Array.of(0)), run.optimiser);
    const score = async (w: Tensor) => Math.abs((await w.data())[0] - 1.9);
    const kept: { step: number; score: number; w: number }[] = [];
    const ended = await meta.trainValidated(
      run,
      start,
      {
        every: 3,
        patience: 2,
        score,
        onBest: async best => void kept.push({ ...best, w: (await best.params.data())[0] }),
      },
      { steps: 300 },
    );
    expect(kept.length).toBeGreaterThan(3);
    for (let cut = 1; cut < ended.last.step; cut++) {
      const last = await meta.train(run, start, { steps: cut });
      // A run that is killed at a look has not got to it.
      const { w, ...known } = kept.findLast(({ step }) => step < cut)!;
      const best = { ...known, params: tensor(Float32Array.of(w)), optimiser: last.optimiser };
      const again = await meta.trainValidated(
        run,
        last,
        { every: 3, patience: 2, score, best },
        { steps: 300 },
      );
      expect(again.last.step).toBe(ended.last.step);
      expect([again.best.step, again.best.score]).toEqual([ended.best.step, ended.best.score]);
      expect(values(again.best.params)).toEqual(values(ended.best.params));
    }
  });

  test('refuses a look every 0 steps and no patience', async () => {
    const run = training();
    const start = meta.initialState(tensor(Float32Array.of(0)), run.optimiser);
    const score = async () => 0;
    for (const bad of [{ every: 0 }, { every: 1, patience: 0 }])
      await expect(meta.trainValidated(run, start, { ...bad, score }, { steps: 1 })).rejects.toThrow(
        /at least 1/,
      );
  });
});

function normalValues(seed: number, n: number): number[] {
  const stream = new data.Stream(seed, 0);
  return Array.from({ length: n }, () => stream.normal());
}
