import { ArgumentError } from '../core/errors.js';
import { scope, type Tensor } from '../core/tensor.js';
import { compile } from '../program/compile.js';

/** A mean over tasks with half the width of its 95 % confidence interval, both in the unit of the score. */
export interface Summary {
  readonly mean: number;
  readonly ci95: number;
  readonly tasks: number;
}

/**
 * Mean and 1.96 sd / sqrt(N) over the scores of N independent tasks, sd with N - 1 in the denominator.
 * Throws ArgumentError for fewer than two.
 */
export function summarise(scores: ArrayLike<number>): Summary {
  const n = scores.length;
  if (n < 2) throw new ArgumentError(`an interval needs the scores of at least 2 tasks, got ${n}`);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += scores[i] / n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (scores[i] - mean) ** 2;
  return { mean, ci95: 1.96 * Math.sqrt(squares / (n - 1) / n), tasks: n };
}

export interface EvaluateOptions {
  /** Tasks in all. */
  readonly tasks: number;
  /** Tasks in one batch. Default 100. */
  readonly batchTasks?: number;
  /** Ends the evaluation early: it then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * Scores of tasks `0 .. tasks - 1`, in order. `score(params, batch)` gives one value per task `[T]` and is compiled;
 * `draw(first, tasks)` makes the batch of tasks `first .. first + tasks - 1`.
 */
export async function evaluate<P, B>(
  score: (params: P, batch: B) => Tensor,
  params: P,
  draw: (first: number, tasks: number) => B,
  { tasks, batchTasks = 100, signal }: EvaluateOptions,
): Promise<Float64Array> {
  const scores = new Float64Array(tasks);
  const step = compile(score);
  try {
    for (let first = 0; first < tasks; first += batchTasks) {
      signal?.throwIfAborted();
      const count = Math.min(batchTasks, tasks - first);
      using values = scope(() => step(params, draw(first, count)));
      scores.set(await values.data(), first);
    }
  } finally {
    step.dispose();
  }
  return scores;
}
