/** Systems of the source articles that no other file holds to what they should do; docs/systems.md lists them all. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { grad, valueAndGrad } from '../src/core/grad.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { chunkedHead, description, fullHead, hypernet, noise, setEncoder } from '../src/hyper/index.js';
import {
  add,
  concat,
  dense,
  init,
  key,
  mean,
  mul,
  neg,
  normal,
  relu,
  reshape,
  serial,
  softplus,
  type Tensor,
  tensor,
  transpose,
} from '../src/index.js';
import { loadSafetensors } from '../src/io/files.js';
import {
  drawEpisodes,
  evaluate,
  hypernetLearner,
  initialState,
  maml,
  paired,
  queryScores,
  train,
  trainingLoss,
} from '../src/meta/index.js';
import { layerNorm } from '../src/nn/index.js';
import { adam, applyUpdates, cosineSchedule } from '../src/optim/index.js';

test('S17: a weight per task of 100 inputs and 10 outputs is applied; rows that are no such weight are refused', async () => {
  await init({ backend: 'ref' });
  const target = dense(10, { bias: false });
  const generator = hypernet({
    target,
    inShape: [100],
    condition: description(100),
    trunk: dense(50),
    head: chunkedHead({ chunk: 10 }),
  });
  const phi = generator.init(key(0));
  const theta = generator.generate(phi, generator.encode(phi, normal(key(1), [3, 100])));
  expect(theta.w.shape).toEqual([3, 100, 10]);
  expect(target.apply(theta, normal(key(2), [3, 7, 100])).shape).toEqual([3, 7, 10]);
  const wrong = { w: normal(key(3), [3, 10]) };
  expect(() => target.apply(wrong, normal(key(2), [3, 7, 100]))).toThrow(/\[100,10\].*\[3,10\]/);
});

test('S47: against a critic, generated weights become like given ones, until the critic can only guess', {
  timeout: 120_000,
}, async () => {
  await init({ backend: 'cpu' });
  const [centre, spread, tasks] = [1.5, 0.5, 128];
  const generator = hypernet({
    target: dense(1, { bias: false }),
    inShape: [2],
    condition: noise(4),
    trunk: dense(16),
    head: fullHead(),
  });
  const critic = serial(dense(16), relu, dense(1, { gain: 1 }));
  const given = (step: number) => add(mul(normal(key(7 + 2 * step), [tasks, 2]), spread), centre);
  const made = (phi: any, step: number): Tensor => {
    const theta = generator.generate(phi, normal(key(8 + 2 * step), [tasks, 4]));
    return reshape(theta.w.materialise(), [tasks, 2]);
  };
  const optimiser = adam(cosineSchedule(2e-3, 1500), { beta1: 0.5 });
  let [phi, psi] = [generator.init(key(0)), critic.init(key(1), [2])];
  let [own, other] = [optimiser.init(phi), optimiser.init(psi)];
  for (let step = 0; step < 1500; step++) {
    const fake = made(phi, step);
    const judge = valueAndGrad((p: any) =>
      add(mean(softplus(neg(critic.apply(p, given(step))))), mean(softplus(critic.apply(p, fake)))),
    )(psi);
    const [updates, next] = optimiser.update(judge.grads, other, psi);
    [psi, other] = [applyUpdates(psi, updates), next];
    const grads = grad((p: any) => mean(softplus(neg(critic.apply(psi, made(p, step))))))(phi);
    const [moves, after] = optimiser.update(grads, own, phi);
    [phi, own] = [applyUpdates(phi, moves), after];
  }
  const average = Number(mean(made(phi, 9999)).dataSync()[0]);
  expect(Math.abs(average - centre)).toBeLessThan(0.25);
  const both = critic.apply(psi, concat([given(9999), made(phi, 9999)], 0)).dataSync();
  const right = [...both].filter((logit, i) => logit > 0 === i < tasks).length / both.length;
  // Five standard deviations of 256 fair coins are 0.16.
  expect(Math.abs(right - 0.5)).toBeLessThan(0.16);
});

test('S58: from 1, 2, 5 and 10 rows, a generated network beats one trained from scratch on them', {
  timeout: 120_000,
}, async () => {
  await init({ backend: 'cpu' });
  const target = serial(dense(40), relu, dense(40), relu, dense(1, { gain: 1 }));
  const hyper = hypernet({
    target,
    inShape: [1],
    condition: setEncoder([64, 64]),
    trunk: dense(64),
    head: fullHead({ base: true }),
  });
  const generated = hypernetLearner(hyper);
  const optimiser = adam(cosineSchedule(2e-3, 2200, { floor: 0.01 }));
  const sizes = [1, 2, 5, 10];
  const draw = (split: 'train' | 'test', first: number, tasks: number, shots: number) =>
    drawEpisodes(sinusoid, { split, seed: 0, first, tasks, shots, queries: 20 });
  const batch = (step: number) => draw('train', 32 * step, 32, sizes[step % 4]);
  const { params } = await train(
    { loss: trainingLoss(generated, 1), optimiser, batch },
    initialState(generated.init(key(0)), optimiser),
    { steps: 2200 },
  );
  const scratch = maml(target, [1], { steps: 50, learningRate: 0.002 });
  const errors: number[] = [];
  for (const shots of sizes) {
    const of = (learner: typeof scratch, p: unknown) =>
      evaluate(queryScores(learner, 1), p, (first, n) => draw('test', first, n, shots), { tasks: 100 });
    const ours = await of(generated, params);
    const { mean, ci95 } = paired(ours, await of(scratch, scratch.init(key(1))));
    expect(mean + ci95).toBeLessThan(0);
    errors.push(ours.reduce((a, b) => a + b, 0) / 100);
  }
  expect(errors).toEqual([...errors].sort((a, b) => b - a));
});

test('S61: weights saved by PyTorch are read, and answer as they did there', async () => {
  await init({ backend: 'ref', float: 64 });
  const { tensors } = await loadSafetensors(join(import.meta.dirname, 'fixtures/pytorch.safetensors'));
  const named = (name: string) => {
    const { data, shape } = tensors.get(name)!;
    return tensor(data as Float32Array, shape);
  };
  const net = serial(dense(5), relu, layerNorm(), dense(2));
  const linear = (at: number) => ({ w: transpose(named(`${at}.weight`)), b: named(`${at}.bias`) });
  const norm = { scale: named('2.weight'), shift: named('2.bias') };
  const found = net.apply({ layers: [linear(0), {}, norm, linear(3)] }, named('input')).dataSync();
  const expected = named('output').dataSync();
  expect(expected.length).toBe(8);
  expected.forEach((y, i) => {
    expect(Math.abs(found[i] - y)).toBeLessThan(1e-5);
  });
});
