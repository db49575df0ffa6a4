/** Figures of a trained learner beside its score on unseen tasks. */
import { scope } from '../core/tensor.js';
import { type GpFamily, gpOracle } from '../data/gp.js';
import { drawBatch } from '../data/task.js';
import { weightStatistics } from '../hyper/index.js';
import { type GaussianLearner, type NoiseLearner, summarise, toEpisodes } from '../meta/index.js';
import { key } from '../ops/index.js';
import type { Result } from './run.js';

/** Which tasks further figures are of. */
export interface Which {
  readonly tasks: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

/** Computes them; rejects with the signal's reason once it aborts. */
export type Figures = (params: any, which: Which) => Promise<Result[]>;

const GP_SHOTS = [10, 15, 20];
const GP_QUERIES = 50;
const GP_BATCH = 100;

/**
 * How far a learner is from the exact posterior of a Gaussian process, in nats a query row, for 10, 15 and 20 rows of
 * support, and how many query rows are within one standard deviation of what it says (0.683 if it is right about it).
 */
export const gpFigures =
  (family: GpFamily, learner: GaussianLearner): Figures =>
  async (params, { tasks, seed, signal }) => {
    const results: Result[] = [];
    for (const shots of GP_SHOTS) {
      const gaps: number[] = [];
      const inside: number[] = [];
      for (let first = 0; first < tasks; first += GP_BATCH) {
        signal?.throwIfAborted();
        const count = Math.min(GP_BATCH, tasks - first);
        const batch = drawBatch(family, {
          split: 'test',
          seed,
          first,
          tasks: count,
          shots,
          queries: GP_QUERIES,
        });
        const { support, query } = toEpisodes(batch);
        const said = scope(() => learner.moments(params, support, query.x));
        const [mean, variance] = [await said.mean.data(), await said.variance.data()];
        const { logLikelihood } = gpOracle(family, batch);
        for (let t = 0; t < count; t++) {
          let likelihood = 0;
          let within = 0;
          for (let i = t * GP_QUERIES; i < (t + 1) * GP_QUERIES; i++) {
            const square = (batch.query.y[i] - mean[i]) ** 2;
            likelihood -= 0.5 * (Math.log(2 * Math.PI * variance[i]) + square / variance[i]);
            if (square <= variance[i]) within++;
          }
          gaps.push(logLikelihood[t] - likelihood / GP_QUERIES);
          inside.push(within / GP_QUERIES);
        }
      }
      results.push({ metric: `gap at ${shots} rows`, ...summarise(gaps) });
      results.push({ metric: `coverage at ${shots} rows`, ...summarise(inside) });
    }
    return results;
  };

const DRAWS = 64;
const KEYS = 10;

/** The variance over noise of a weight, from ten times 64 networks drawn: 0 if the generator ignores its noise. */
export const noiseFigures =
  (learner: NoiseLearner): Figures =>
  async (params, { signal }) => {
    const found: number[] = [];
    for (let k = 0; k < KEYS; k++) {
      signal?.throwIfAborted();
      const { variance } = await weightStatistics(learner.draw(params, DRAWS, key(k + 1)));
      found.push(variance);
    }
    return [{ metric: 'variance of a weight', ...summarise(found) }];
  };
