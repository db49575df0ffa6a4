/** How good a start is: scores after so many gradient steps from it, task by task. */
import { ArgumentError } from '../core/errors.js';
import type { AdaptOptions } from './adapt.js';
import type { Episodes, Metric } from './episodes.js';
import { evaluate, type Summary, summarise } from './evaluate.js';
import { type Learner, queryScores } from './learner.js';

/** A way to begin: a learner for every number and rate of steps (`fineTuned`, `maml`, `reptile`), and its parameters. */
export interface Start<P> {
  readonly learner: (options: Pick<AdaptOptions, 'steps'> & { readonly learningRate: number }) => Learner<P>;
  readonly params: P;
}

export interface CurveOptions {
  /** Numbers of steps to score, 0 among them or not. */
  readonly steps: readonly number[];
  /** Rates to choose from, for each number of steps, by the mean score on `validation` tasks. */
  readonly rates: readonly number[];
  readonly metric: Metric;
  readonly outSize: number;
  readonly tasks: number;
  /** Tasks the rate is chosen on; 100 unless given. */
  readonly validationTasks?: number;
  readonly batchTasks?: number;
  /** The episodes `first .. first + tasks - 1` of each split. */
  readonly draw: (split: 'validation' | 'test', first: number, tasks: number) => Episodes;
}

/** One point of a curve. */
export interface CurvePoint extends Summary {
  readonly steps: number;
  readonly learningRate: number;
  /** The score of each task, in order. */
  readonly scores: Float64Array;
}

const meanOf = (scores: Float64Array): number => scores.reduce((a, b) => a + b, 0) / scores.length;

/**
 * Scores on unseen tasks after each number of gradient steps from a start. Every number has the rate that is best on
 * validation tasks, so that no start is judged by a rate made for another. Throws ArgumentError without rates.
 */
export async function startCurve<P>(
  { learner, params }: Start<P>,
  options: CurveOptions,
): Promise<CurvePoint[]> {
  const { rates, metric, outSize, tasks, batchTasks, validationTasks = 100, draw } = options;
  if (rates.length === 0) throw new ArgumentError('startCurve: needs at least one rate');
  const scoresOf = (steps: number, learningRate: number, split: 'validation' | 'test', count: number) =>
    evaluate(
      queryScores(learner({ steps, learningRate }), outSize),
      params,
      (first, n) => draw(split, first, n),
      { tasks: count, batchTasks },
    );
  const points: CurvePoint[] = [];
  for (const steps of options.steps) {
    let learningRate = rates[0];
    let best = Infinity;
    for (const rate of steps === 0 || rates.length === 1 ? [] : rates) {
      const mean = meanOf(await scoresOf(steps, rate, 'validation', validationTasks));
      // A rate that diverges has no score; it is never the best.
      const loss = metric === 'accuracy' ? -mean : mean;
      if (loss < best) [best, learningRate] = [loss, rate];
    }
    const scores = await scoresOf(steps, learningRate, 'test', tasks);
    points.push({ steps, learningRate, scores, ...summarise(scores) });
  }
  return points;
}

/** Mean and interval of the differences `a - b` of two methods on the same tasks. Throws ArgumentError if they differ in number. */
export function paired(a: ArrayLike<number>, b: ArrayLike<number>): Summary {
  if (a.length !== b.length)
    throw new ArgumentError(`paired: scores of the same tasks, got ${a.length} and ${b.length}`);
  return summarise(Float64Array.from(a, (x, i) => x - b[i]));
}
