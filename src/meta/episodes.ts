/** Batches of tasks as tensors, and what is measured on them. */
import type { Tensor } from '../core/tensor.js';
import type { BatchRequest, Rows, TaskBatch, TaskFamily } from '../data/task.js';
import { drawBatch } from '../data/task.js';
import { accuracy, crossEntropy, mse } from '../nn/index.js';
import { tensor } from '../ops/index.js';

/** Inputs `[T, n, ...inShape]` and targets: values `[T, n, outSize]` (f32) or labels `[T, n]` (i32). */
export type Examples = { readonly x: Tensor; readonly y: Tensor };

/** T tasks as tensors: what a learner is shown, and what it is asked. A tree, so it can be an argument of a step. */
export type Episodes = {
  readonly support: Examples;
  readonly query: Examples;
  /** u32 [2], for learners that draw while they train. */
  readonly key?: Tensor;
};

/** The tensors of a batch of tasks, on the backend in use. */
export function toEpisodes(batch: TaskBatch): Episodes {
  const examples = ({ n, x, y }: Rows): Examples => ({
    x: tensor(x, [batch.tasks, n, ...batch.inShape]),
    y: tensor(y, y instanceof Int32Array ? [batch.tasks, n] : [batch.tasks, n, batch.outSize]),
  });
  return { support: examples(batch.support), query: examples(batch.query) };
}

/**
 * Draws tasks and makes tensors of them; see `drawBatch` for the request and its errors. A key, if asked for, is
 * another one for every seed and first task, and none that `key(seed)` gives below 2^32.
 */
export const drawEpisodes = (
  family: TaskFamily,
  request: BatchRequest,
  { key = false }: { key?: boolean } = {},
): Episodes => {
  const episodes = toEpisodes(drawBatch(family, request));
  return key ? { ...episodes, key: tensor(Uint32Array.of(request.seed, request.first + 1)) } : episodes;
};

/**
 * Mean loss of each task `[T]`: squared error of predictions `[T, n, outSize]` against values, cross-entropy of logits
 * `[T, n, ways]` against labels. Throws ShapeError.
 */
export const taskLosses = (predicted: Tensor, y: Tensor): Tensor =>
  y.dtype === 'i32' ? crossEntropy(predicted, y, { reduce: 'task' }) : mse(predicted, y, { reduce: 'task' });

/** What is reported for each task `[T]`: mean squared error, or the share of rows whose largest logit is the label. */
export const taskScores = (predicted: Tensor, y: Tensor): Tensor =>
  y.dtype === 'i32' ? accuracy(predicted, y, { reduce: 'task' }) : mse(predicted, y, { reduce: 'task' });

/** The name of what `taskScores` measures. */
export type Metric = 'mse' | 'accuracy';

/** The metric of a family of tasks. */
export const metricOf = (family: TaskFamily): Metric => (family.kind === 'regression' ? 'mse' : 'accuracy');
