/** Cells, variational codes, and networks whose architecture and weights are both generated. */
import { beforeEach, describe, expect, test } from 'vitest';
import {
  abs,
  adam,
  add,
  byPart,
  chain,
  clipByGlobalNorm,
  compile,
  concat,
  cosineSchedule,
  costReport,
  data,
  grad,
  init,
  key,
  matmul,
  mean,
  meta,
  mul,
  nn,
  normal,
  sgd,
  slice,
  softmax,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  tree,
  valueAndGrad,
  variational,
} from '../src/index.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

const values = (x: Tensor) => Array.from(x.dataSync());
const cell = nn.cell(3);
const draw = (split: data.Split, first: number, tasks: number, queries = 20, shots = 10) =>
  meta.drawEpisodes(data.sinusoid, { split, seed: 0, first, tasks, shots, queries }, { key: true });
const tiny = { cell: nn.cell(2), width: 3, latent: 2, token: 4, hidden: 3 };

describe('a cell', () => {
  beforeEach(() => init({ backend: 'ref', float: 64 }).then(() => {}));
  const width = 4;
  const stream = new data.Stream(1, 0);
  const random = () => Array.from({ length: cell.edges.length }, () => 8 * stream.normal());

  test('of one-hot weights is the network of those operations, bit for bit', () => {
    const params = cell.init(key(0), [width]);
    const x = normal(key(1), [2, 5, width]);
    for (let i = 0; i < 20; i++) {
      const architecture = cell.decode(random());
      const alpha = tensor(
        Float32Array.from(architecture.flatMap(op => cell.ops.map((_, o) => (o === op ? 0 : -Infinity)))),
        [cell.edges.length, cell.ops.length],
      );
      const alone = cell.discrete(architecture).apply(cell.restrict(params, architecture), x);
      expect(values(cell.apply({ ...params, alpha }, x))).toEqual(values(alone));
      expect(cell.choose(values(alpha))).toEqual(architecture);
    }
  });

  test('mixes by weights that add up to 1, shared or per task, and has right derivatives', () => {
    const params = cell.init(key(0), [width]);
    const alpha = normal(key(2), [2, cell.edges.length, cell.ops.length]);
    const x = normal(key(1), [2, 3, width]);
    for (const total of values(sum(softmax(alpha), -1))) expect(Math.abs(total - 1)).toBeLessThan(1e-12);
    const own = (t: number) => ({
      ...params,
      alpha: tensor(Float32Array.from(values(alpha).slice(30 * t, 30 * t + 30)), [6, 5]),
    });
    const together = cell.apply({ ...params, alpha }, x);
    for (const t of [0, 1])
      expectSameTree(slice(together, 0, t, t + 1), cell.apply(own(t), slice(x, 0, t, t + 1)), 1e-6);
    const smooth = nn.cell(2, {
      none: nn.CELL_OPS.none,
      skip: nn.CELL_OPS.skip,
      tanh: nn.CELL_OPS.tanh,
      sine: nn.CELL_OPS.sine,
    });
    const p = { ...smooth.init(key(3), [width]), alpha: normal(key(4), [2, 3, 4]) };
    expectDerivatives(q => mean(square(smooth.apply(q, x))), p, key(5), 1e-5);
  });

  test('a thousand real codes are valid graphs: what comes out depends on what goes in', () => {
    for (let i = 0; i < 1000; i++) {
      const code = random();
      const architecture = cell.decode(code);
      architecture.forEach(op => {
        expect(cell.ops[op]).toBeDefined();
      });
      const reached = [true];
      for (let to = 1; to <= 3; to++)
        reached[to] = cell.edges.some(
          (e, k) => e.to === to && reached[e.from] && cell.ops[architecture[k]] !== 'none',
        );
      expect(reached[3]).toBe(true);
      // Only what a graph lacked was changed.
      const rounded = code.map(x => Math.min(Math.max(Math.round(x), 0), 4));
      const changed = architecture.filter((op, k) => op !== rounded[k]);
      expect(changed.every(op => cell.ops[op] !== 'none')).toBe(true);
    }
    expect(cell.decode([1, 2, 3, 4, 1, 0])).toEqual([1, 2, 3, 4, 1, 0]);
    expect(cell.decode([0, 0, 0, 0, 0, 0])).toEqual([1, 0, 1, 0, 0, 1]);
  });

  test('of architectures of other operations needs other weights', () => {
    const params = cell.init(key(0), [width]);
    const count = (architecture: nn.Architecture) => {
      const own = cell.restrict(params, architecture);
      const layer = cell.discrete(architecture);
      tree.map((spec: any, p: Tensor) => expect(p.shape).toEqual(spec.shape), layer.params([width]), own);
      return tree.leaves<Tensor>(own).reduce((n, p) => n + p.size, 0);
    };
    expect(count([1, 1, 1, 1, 1, 1])).toBe(0);
    expect(count([2, 0, 1, 3, 4, 2])).toBe(4 * (width + 1) * width);
  });

  test('has an entropy of 0 where it has decided and log(ops) where it has not', () => {
    expect(values(nn.architectureEntropy(tensor(new Float32Array(30), [6, 5])))[0]).toBeCloseTo(
      Math.log(5),
      12,
    );
    const sure = tensor(
      Float32Array.from({ length: 30 }, (_, i) => (i % 5 === 2 ? 100 : 0)),
      [6, 5],
    );
    expect(values(nn.architectureEntropy(sure))[0]).toBeLessThan(1e-40);
    expectDerivatives(nn.architectureEntropy, normal(key(1), [6, 5]), key(2));
  });

  test('refuses no nodes, one operation, and architectures of other cells', () => {
    expect(() => nn.cell(0)).toThrow(/nodes >= 1/);
    expect(() => nn.cell(1, { skip: nn.CELL_OPS.skip })).toThrow(/two operations/);
    expect(() => cell.discrete([0, 1])).toThrow(/each of 6 edges/);
    expect(() => cell.discrete([0, 1, 2, 3, 4, 5])).toThrow(/one of 5 operations/);
  });
});

describe('a variational code', () => {
  beforeEach(() => init({ backend: 'ref', float: 64 }).then(() => {}));
  const identity = () => ({
    size: 3,
    params: {},
    encode: (_: unknown, x: Tensor) => x,
    example: (k: Tensor, n: number) => normal(k, [n, 3]),
  });
  const encoder = variational(identity, 2)({ inShape: [1], outShape: [1] });

  test('is its mean without a key, and mean + sd · eps with one', () => {
    const params = nn.initParams(encoder.params, key(0));
    const x = normal(key(1), [4, 3]);
    const { mean: mu, logVar } = encoder.posterior(params, x);
    expect(values(encoder.encode(params, x))).toEqual(values(mu));
    expect(values(encoder.encode(params, x))).toEqual(values(encoder.encode(params, x)));
    const eps = values(normal(key(2), [4, 2]));
    values(encoder.encode(params, x, { key: key(2) })).forEach((z, i) => {
      expect(Math.abs(z - (values(mu)[i] + Math.exp(values(logVar)[i] / 2) * eps[i]))).toBeLessThan(1e-12);
    });
  });

  test('has the gradient of the expectation: E|Wz|² = |W mean|² + sum of var · |column|²', () => {
    const n = 200_000;
    const w = tensor(Float32Array.from([1, -0.5, 0.3, 0.8, 0.2, -1]), [2, 3]);
    const posterior = {
      mean: tensor(Float32Array.from([0.7, -0.4])),
      logVar: tensor(Float32Array.from([0.2, -0.6])),
    };
    const loss = (p: typeof posterior) => {
      const many = tree.map((x: Tensor) => add(x, tensor(new Float32Array(2 * n), [n, 2])), p);
      return mul(sum(square(matmul(encoder.sample(many, key(4)), w))), 1 / n);
    };
    const { value, grads } = valueAndGrad(loss)(posterior);
    const [mu, lv, m] = [values(posterior.mean), values(posterior.logVar), values(w)];
    const gram = (i: number, j: number) => [0, 1, 2].reduce((s, k) => s + m[3 * i + k] * m[3 * j + k], 0);
    const slope = [0, 1].map(i => 2 * (gram(i, 0) * mu[0] + gram(i, 1) * mu[1]));
    const spread = [0, 1].map(i => Math.exp(lv[i]) * gram(i, i));
    const at = mu.reduce((s, x, i) => s + (x * slope[i]) / 2 + spread[i], 0);
    // Standard errors of the means over n draws are below 4 / sqrt(n) = 0.009 for each of these.
    const near = (got: number, want: number) => expect(Math.abs(got - want)).toBeLessThan(0.04);
    near(values(value)[0], at);
    for (const i of [0, 1]) {
      near(values(grads.mean)[i], slope[i]);
      near(values(grads.logVar)[i], spread[i]);
    }
  });
});

describe('metaNetworks, before training', () => {
  beforeEach(() => init({ backend: 'ref', float: 64 }).then(() => {}));
  const moved = (p: meta.MetaNetworksParams) =>
    tree.map((x: Tensor) => add(x, mul(normal(key(7), x.shape), 0.2)), p) as meta.MetaNetworksParams;

  test('makes networks for the architecture it is given, whole or of one operation an edge', () => {
    const learner = meta.metaNetworks([1], 1, tiny);
    const params = moved(learner.init(key(0)));
    const { support, query } = draw('train', 0, 3);
    const { theta, alpha, posterior } = learner.generate(params, support);
    expect(values(learner.architectures(params, support))).toEqual(values(alpha));
    // The weight generator reads rows and architecture alike.
    const otherRows = { ...support, x: mul(support.x, 1.5) };
    const seen = [
      learner.generate(params, otherRows, { alpha }).posterior,
      learner.generate(params, support, { alpha: mul(alpha, 2) }).posterior,
    ];
    for (const other of seen) expect(values(other.mean)).not.toEqual(values(posterior.mean));

    const whole = tree.map((w: any) => (w.materialise ? w.materialise() : w), theta);
    const architectures = [tiny.cell.decode([4, 0, 2]), tiny.cell.decode([1, 1, 3])];
    const sizes = architectures.map(architecture => {
      const { layer, params: own } = learner.discretise(whole, architecture);
      const shapes = tree.map((w: Tensor) => w.shape.slice(1), own);
      expect(tree.leaves(shapes)).toEqual(tree.leaves(tree.map((s: any) => s.shape, layer.params([1]))));
      const hard = tensor(
        Float32Array.from(
          [0, 1, 2].flatMap(() =>
            architecture.flatMap(op => [0, 1, 2, 3, 4].map(o => (o === op ? 0 : -Infinity))),
          ),
        ),
        [3, 3, 5],
      );
      const layers = whole.layers.map((l: any, i: number) => (i === 1 ? { ...l, alpha: hard } : l));
      expect(values(learner.target.apply({ layers }, query.x))).toEqual(values(layer.apply(own, query.x)));
      return tree.leaves<Tensor>(own).reduce((n, w) => n + w.size / 3, 0);
    });
    expect(sizes[0]).not.toBe(sizes[1]);
  });

  test('one backward pass reaches both generators, every parameter, through an inner step; first order is another gradient', () => {
    const gradient = (firstOrder: boolean) => {
      const learner = meta.metaNetworks([1], 1, {
        ...tiny,
        inner: { steps: 1, learningRate: 0.05, firstOrder },
      });
      const params = moved(learner.init(key(0)));
      const loss = (p: typeof params) => meta.trainingLoss(learner, 1)(p, draw('train', 0, 3, 4, 5));
      return { params, loss, grads: grad(loss)(params) };
    };
    const second = gradient(false);
    for (const [path, g] of tree.entries<Tensor>(second.grads)) {
      // A relu no row of the few switches on has no gradient.
      if (/ops\.2/.test(path)) continue;
      expect(values(sum(abs(g)))[0], path).toBeGreaterThan(0);
    }
    expectDerivatives(second.loss, second.params, key(8), 1e-3);
    const first = gradient(true);
    const apart = tree
      .leaves<Tensor>(tree.map((a: Tensor, b: Tensor) => sum(square(sub(a, b))), first.grads, second.grads))
      .reduce((s, x) => s + values(x)[0], 0);
    expect(Math.sqrt(apart)).toBeGreaterThan(1e-3);
  });

  test('inner steps: none is the identity, and all tasks in one call are as each alone', () => {
    const learnerOf = (steps: number) =>
      meta.metaNetworks([1], 1, { ...tiny, inner: { steps, learningRate: 0.05 } });
    const params = moved(learnerOf(0).init(key(0)));
    const { support, query } = draw('train', 0, 3);
    const plain = meta.metaNetworks([1], 1, tiny);
    expect(values(learnerOf(0).predict(params, support, query.x, 1))).toEqual(
      values(plain.predict(params, support, query.x, 1)),
    );
    const together = learnerOf(3).predict(params, support, query.x, 1);
    const one = (x: Tensor, t: number) => slice(x, 0, t, t + 1);
    const apart = [0, 1, 2].map(t =>
      learnerOf(3).predict(params, { x: one(support.x, t), y: one(support.y, t) }, one(query.x, t), 1),
    );
    expectSameTree(together, concat(apart, 0), 1e-6);
  });

  test('the entropy is added where it has a weight: none leaves the loss as it is, bit for bit', () => {
    const params = moved(meta.metaNetworks([1], 1, tiny).init(key(0)));
    const lossAt = (entropy?: number) => {
      const learner = meta.metaNetworks([1], 1, { ...tiny, entropy });
      return values(meta.trainingLoss(learner, 1)(params, draw('train', 0, 3)))[0];
    };
    expect(lossAt(0)).toBe(lossAt(undefined));
    const { support } = draw('train', 0, 3);
    const entropy = values(
      nn.architectureEntropy(meta.metaNetworks([1], 1, tiny).architectures(params, support)),
    )[0];
    expect(Math.abs(lossAt(2) - lossAt(0) - 2 * entropy)).toBeLessThan(1e-9);
  });

  test('parts of the parameters may have rates of their own', () => {
    const learner = meta.metaNetworks([1], 1, tiny);
    const params = moved(learner.init(key(0)));
    const grads = grad(meta.trainingLoss(learner, 1))(params, draw('train', 0, 3));
    const rates = { network: 0.1, weights: 0.002 } as const;
    const optimiser = byPart({ network: sgd(rates.network), weights: sgd(rates.weights) });
    const [updates] = optimiser.update(grads, optimiser.init(params), params);
    for (const part of ['network', 'weights'] as const)
      expectSameTree(
        updates[part],
        tree.map((g: Tensor) => mul(g, -rates[part]), grads[part]),
        1e-12,
      );
    expect(() => byPart({ network: sgd(1) }).init(params)).toThrow(/parts network,weights/);
  });
});

/** Trains on sinusoids and returns learner and parameters before and after. */
async function trained(
  options: meta.MetaNetworksOptions,
  steps: number,
  tasks: (step: number) => meta.Episodes,
) {
  const learner = meta.metaNetworks([1], 1, options);
  const rate = cosineSchedule(2e-3, steps);
  const optimiser = chain(clipByGlobalNorm(1), byPart({ network: adam(rate), weights: adam(rate) }));
  const start = meta.initialState(learner.init(key(0)), optimiser);
  const { params } = await meta.train(
    { loss: meta.trainingLoss(learner, 1), optimiser, batch: tasks },
    start,
    { steps },
  );
  return { learner, start: start.params, params };
}

describe('metaNetworks, trained on sinusoids', () => {
  beforeEach(() => init({ backend: 'cpu', threads: 1 }).then(() => {}));

  test('learns with both generators, and is worse with a constant for either', {
    timeout: 240_000,
  }, async () => {
    const { learner, params } = await trained({ cell: nn.cell(2) }, 800, step =>
      draw('train', 32 * step, 32),
    );
    const { target } = learner;
    const error = async (answer: (p: typeof params, e: meta.Episodes) => Tensor) =>
      meta.summarise(
        await meta.evaluate(
          (p: typeof params, e: meta.Episodes) => meta.taskScores(answer(p, e), e.query.y),
          params,
          (first, n) => draw('test', first, n, 50),
          { tasks: 200 },
        ),
      );
    const withAlpha = (theta: any, alpha: Tensor) => ({
      layers: theta.layers.map((l: any, i: number) => (i === 1 ? { ...l, alpha } : l)),
    });
    const own = await error((p, { support, query }) => learner.predict(p, support, query.x, 1));
    const oneCell = await error((p, { support, query }) => {
      const { theta, alpha } = learner.generate(p, support);
      return target.apply(withAlpha(theta, add(mul(alpha, 0), mean(alpha, 0, { keepDims: true }))), query.x);
    });
    const oneSet = await error((p, { support, query }) => {
      const { alpha } = learner.generate(p, support);
      const blank = { x: mul(support.x, 0), y: mul(support.y, 0) };
      return target.apply(withAlpha(learner.generate(p, blank).theta, alpha), query.x);
    });
    // Saying 0 everywhere costs 4.25 on sinusoids.
    expect(own.mean + own.ci95).toBeLessThan(1);
    expect(oneCell.mean - oneCell.ci95).toBeGreaterThan(own.mean + own.ci95);
    expect(oneSet.mean - oneSet.ci95).toBeGreaterThan(own.mean + own.ci95);
  });

  test('trained on a few tasks, no loss in their table ends above its start', {
    timeout: 120_000,
  }, async () => {
    // The same tasks, another draw of the code: with one draw it would learn the draw.
    const fixed = (step = 0) => ({ ...draw('train', 0, 8), key: key(step) });
    const { learner, start, params } = await trained({ cell: nn.cell(2) }, 400, fixed);
    const table = (p: typeof params) => values(meta.lossTable(learner, p, fixed(), 1));
    const before = table(start);
    table(params).forEach((loss, t) => {
      expect(loss).toBeLessThan(before[t]);
    });
  });

  test('the more entropy costs, the more its architectures decide', { timeout: 240_000 }, async () => {
    const found: number[] = [];
    for (const entropy of [0, 0.1, 1]) {
      const { learner, params } = await trained({ cell: nn.cell(2), entropy }, 250, step =>
        draw('train', 32 * step, 32),
      );
      const { support } = draw('test', 0, 100);
      found.push(values(nn.architectureEntropy(learner.architectures(params, support)))[0]);
    }
    expect(found[1]).toBeLessThan(found[0]);
    expect(found[2]).toBeLessThan(found[1]);
  });

  test('a search of its own costs a task many times what generating an architecture does', () => {
    const { support, query } = draw('test', 0, 4);
    const flops = (learner: meta.Learner) => {
      const params = learner.init(key(0));
      const step = compile((p: typeof params, s: meta.Examples, x: Tensor) => learner.predict(p, s, x, 1));
      step(params, support, query.x);
      return costReport(step).flops;
    };
    const space = { cell: nn.cell(2) };
    const steps = 20;
    const search = flops(meta.architectureSearch([1], 1, space, { steps, learningRate: 0.01 }));
    const forward = flops(meta.architectureSearch([1], 1, space, { steps: 0, learningRate: 0.01 }));
    // A step is a forward and a backward pass over the 10 rows of the support set, the answer one over 20.
    expect(search / forward).toBeGreaterThan(steps);
    const generated = flops(meta.metaNetworks([1], 1, space));
    expect(search).toBeGreaterThan(generated);
  });
});
