/** One seeded training run, the same in every process and page: what backends and browsers are compared by. */
import { valueAndGrad } from '../src/core/grad.js';
import type { Tensor } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { fullHead, hypernet, setEncoder } from '../src/hyper/index.js';
import { drawEpisodes, hypernetLearner, initialState, train, trainingLoss } from '../src/meta/index.js';
import { dense, serial } from '../src/nn/index.js';
import { key, relu } from '../src/ops/index.js';
import { adam, chain, clipByGlobalNorm } from '../src/optim/index.js';

export interface Run {
  /** Gradient of the first step, by path. */
  readonly gradients: [path: string, values: number[]][];
  readonly losses: number[];
}

/** Trains a sinusoid hypernetwork from seed 7 on the backend in use. */
export async function sinusoidRun(steps: number): Promise<Run> {
  const hyper = hypernet({
    target: serial(dense(20), relu, dense(1, { gain: 1 })),
    inShape: [1],
    condition: setEncoder([32, 32]),
    trunk: dense(32),
    head: fullHead({ base: true }),
  });
  const learner = hypernetLearner(hyper, () => batch(0).support);
  const batch = (step: number) =>
    drawEpisodes(sinusoid, { split: 'train', seed: 7, first: step * 8, tasks: 8, shots: 10, queries: 10 });
  const loss = trainingLoss(learner, 1);
  const optimiser = chain(clipByGlobalNorm(1), adam(1e-3));
  const start = initialState(learner.init(key(7)), optimiser);
  const { grads } = valueAndGrad(loss)(start.params, batch(0));
  const gradients: Run['gradients'] = [];
  for (const [path, g] of tree.entries<Tensor>(grads)) gradients.push([path, [...(await g.data())]]);
  const losses: number[] = [];
  await train({ loss, optimiser, batch }, start, {
    steps,
    onLosses: (_, more) => losses.push(...more),
  });
  return { gradients, losses };
}
