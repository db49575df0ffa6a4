/** Diagnostics: where a derivative goes, of which order it is, and what gets none. */
import { beforeEach, describe, expect, test } from 'vitest';
import {
  adam,
  add,
  argmax,
  cast,
  copy,
  data,
  dense,
  exp,
  fullHead,
  grad,
  gt,
  hypernet,
  init,
  key,
  materialise,
  mean,
  meta,
  mul,
  normal,
  relu,
  reshape,
  serial,
  setEncoder,
  square,
  stopGradient,
  sum,
  type Tensor,
  tanh,
  tensor,
  trace,
  traceText,
} from '../src/index.js';

const net = serial(dense(4), tanh, dense(1, { gain: 1 }));
const episodes = (tasks = 3) =>
  meta.drawEpisodes(data.sinusoid, { split: 'train', seed: 0, first: 0, tasks, shots: 5, queries: 5 });

describe('trace', () => {
  beforeEach(() => init({ backend: 'ref' }).then(() => {}));
  const x = () => normal(key(1), [3, 4]);

  test('tells the ops from each parameter to the loss', () => {
    const params = { w: normal(key(0), [4, 2]), b: normal(key(2), [2]) };
    const found = trace(
      (p: typeof params) => sum(square(add(mul(sum(x()), sum(exp(p.w))), sum(p.b)))),
      params,
    );
    expect(found.map(({ path, ops, order, cut }) => [path, ops.join(' '), order, cut])).toEqual([
      ['w', 'exp sum mul add square', 1, null],
      ['b', 'sum add square', 1, null],
    ]);
    expect(traceText(found)).toBe(
      'w  exp > sum > mul > add > square  (order 1)\nb  sum > add > square  (order 1)',
    );
  });

  test('tells where a derivative is cut, and why', () => {
    const params = { a: x(), b: x(), c: x(), d: x(), e: x() };
    const found = trace((p: typeof params) => {
      const hidden = stopGradient(exp(p.a));
      const chosen = cast(argmax(tanh(p.b)), 'f32');
      return sum(add(mul(sum(square(hidden)), sum(chosen)), add(sum(gt(p.c, 0)), sum(square(p.e)))));
    }, params);
    const cuts = Object.fromEntries(found.map(({ path, cut }) => [path, cut]));
    expect(cuts.a).toBe('after exp, before square: stopGradient, or a gradient that ends');
    expect(cuts.b).toBe('after tanh, before argmax: argmax has no derivative');
    expect(cuts.c).toBe('at the parameter itself, before gt: gt has no derivative');
    expect(cuts.d).toBe('the loss does not use it');
    expect(cuts.e).toBeNull();
    expect(found.map(({ order }) => order)).toEqual([0, 0, 0, 0, 1]);
  });

  test('agrees with grad on what has a derivative', () => {
    const params = { a: x(), b: x() };
    const loss = (p: typeof params) => sum(mul(stopGradient(p.a), reshape(copy(p.b), [3, 4])));
    expect(trace(loss, params).map(({ cut }) => cut === null)).toEqual([false, true]);
    expect(() => grad(loss)(params)).toThrow(/'a'/);
  });

  test('tells the order of derivative an inner loop builds: MAML 2, of first order 1, Reptile 1', () => {
    const orders = (learner: meta.Learner) => {
      const params = learner.init(key(0));
      const found = trace(meta.trainingLoss(learner, 1), params, episodes());
      return [...new Set(found.map(({ order }) => order))];
    };
    const how = { steps: 2, learningRate: 0.01 };
    expect(orders(meta.maml(net, [1], how))).toEqual([2]);
    expect(orders(meta.maml(net, [1], { ...how, firstOrder: true }))).toEqual([1]);
    expect(orders(meta.reptile(net, [1], how))).toEqual([1]);
    expect(orders(meta.pretrained(net, [1], how))).toEqual([1]);
    const cube = (w: Tensor) => sum(mul(w, square(w)));
    const third = (w: Tensor) => sum(grad((v: Tensor) => sum(square(grad(cube)(v))))(w));
    expect(trace(third, x())[0].order).toBe(3);
  });

  test('finds the cut of weights that are read and set as leaves, as tutorials do', () => {
    const hyper = hypernet({ target: net, inShape: [1], condition: setEncoder([4]), head: fullHead() });
    const phi = hyper.init(key(0));
    const { support, query } = episodes();
    const weights = (p: typeof phi) => hyper.generate(p, hyper.encode(p, support));
    const whole = trace((p: typeof phi) => mean(square(net.apply(weights(p), query.x))), phi);
    expect(whole.every(({ cut }) => cut === null)).toBe(true);
    const loaded = trace(
      (p: typeof phi) => mean(square(net.apply(stopGradient(materialise(weights(p))), query.x))),
      phi,
    );
    expect(loaded.every(({ cut }) => cut?.includes('stopGradient'))).toBe(true);
    const read = (p: typeof phi) => {
      const { layers } = materialise(weights(p)) as { layers: { w: Tensor }[] };
      return sum(tensor(layers[0].w.dataSync()));
    };
    expect(() => trace(read, phi)).toThrow(/reading a value.*carries no derivative/s);
    expect(() => grad(read)(phi)).toThrow(/train nothing/);
  });
});

describe('the alarm for zero gradients', () => {
  beforeEach(() => init({ backend: 'cpu', threads: 1 }).then(() => {}));
  const run = async (loss: (p: any, b: { x: Tensor }) => Tensor, params: unknown, steps: number) => {
    const told: [number, readonly string[]][] = [];
    const optimiser = adam(1e-3);
    await meta.train(
      { loss, optimiser, batch: step => ({ x: normal(key(step), [8, 3]) }) },
      meta.initialState(params, optimiser),
      { steps, onZeroGradients: (step, paths) => told.push([step, paths]) },
    );
    return told;
  };

  test('names the parameters whose gradient was zero in every step, once', async () => {
    // A relu whose bias is far below never lets anything through.
    const dead = serial(dense(4), relu, dense(2), tanh, dense(1));
    const params = dead.init(key(0), [3]);
    const off = { ...params.layers[0], b: tensor(new Float32Array(4).fill(-100)) };
    const told = await run(
      (p, { x }) => mean(square(add(dead.apply(p, x), 1))),
      { layers: [off, ...params.layers.slice(1)] },
      200,
    );
    expect(told).toEqual([[64, ['layers.0.w', 'layers.0.b', 'layers.2.w']]]);
  });

  test('is silent where every parameter has had a gradient, and before it can know', async () => {
    const params = net.init(key(0), [3]);
    const loss = (p: typeof params, { x }: { x: Tensor }) => mean(square(net.apply(p, x)));
    expect(await run(loss, params, 100)).toEqual([]);
    expect(await run((p, { x }) => add(mul(mean(p.w), 0), mean(x)), { w: normal(key(0), [3]) }, 10)).toEqual(
      [],
    );
  });
});
