/** Losses and scores. The first axis of what they compare holds tasks where there are tasks. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { sameShape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import {
  add,
  argmax,
  cast,
  eq,
  exp,
  mean,
  mul,
  crossEntropy as perRowCrossEntropy,
  type Rows,
  reshape,
  square,
  sub,
  sum,
} from '../ops/index.js';
import { offsetsOf } from '../ops/linear.js';
import { meanByTask } from './norm.js';

export interface LossOptions {
  /**
   * 'mean' (default) and 'sum' over everything; 'task': the mean of each task, `[T]`; 'none': one value per row.
   */
  readonly reduce?: 'mean' | 'sum' | 'task' | 'none';
  /** Offsets `[T+1]` for 'task' where rows of tasks come in unequal numbers. */
  readonly rows?: Rows;
}

/** Values per row (tasks first, if there are tasks) reduced as asked. */
function reduced(op: string, perRow: Tensor, { reduce = 'mean', rows }: LossOptions): Tensor {
  switch (reduce) {
    case 'none':
      return perRow;
    case 'mean':
      return mean(perRow);
    case 'sum':
      return sum(perRow);
    case 'task':
      if (rows)
        return reshape(meanByTask(reshape(perRow, [perRow.size, 1]), offsetsOf(rows, perRow.backend)), [-1]);
      if (perRow.rank < 2)
        throw new ShapeError(`${op}: rows ${show(perRow.shape)} have no task axis; give offsets as rows`);
      return mean(perRow, [...perRow.shape.keys()].slice(1));
    default:
      throw new ArgumentError(`${op}: reduce must be mean, sum, task or none, got ${reduce}`);
  }
}

/** Squared difference, averaged over the last axis of each row: `[..., outputs]` twice. Throws ShapeError. */
export function mse(prediction: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  if (!sameShape(prediction.shape, target.shape) || prediction.rank === 0)
    throw new ShapeError(
      `mse: prediction ${show(prediction.shape)} and target ${show(target.shape)} must have one shape [..., outputs]`,
    );
  return reduced('mse', mean(square(sub(prediction, target)), -1), options);
}

/**
 * Cross-entropy from logits `[..., classes]` (not from probabilities) and labels `[...]` (i32); safe at any magnitude.
 * Throws ShapeError.
 */
export const crossEntropy = (
  logits: Tensor,
  labels: Tensor,
  options: LossOptions & { smoothing?: number } = {},
): Tensor =>
  reduced('crossEntropy', perRowCrossEntropy(logits, labels, { smoothing: options.smoothing ?? 0 }), options);

/**
 * KL(N(mean, exp(logVar)) || N(0, 1)) of independent normals, summed over the last axis: `[..., latent]` twice gives one
 * value per row, reduced as asked. 0 where mean and logVar are 0 (Kingma and Welling, ICLR 2014, appendix B). Throws
 * ShapeError.
 */
export function klNormal(mean: Tensor, logVar: Tensor, options: LossOptions = {}): Tensor {
  if (!sameShape(mean.shape, logVar.shape) || mean.rank === 0)
    throw new ShapeError(
      `klNormal: mean ${show(mean.shape)} and logVar ${show(logVar.shape)} must have one shape [..., latent]`,
    );
  const terms = sub(sub(add(square(mean), exp(logVar)), 1), logVar);
  return reduced('klNormal', mul(sum(terms, -1), 0.5), options);
}

/** Share of rows whose largest logit is the label's: logits `[..., classes]`, labels `[...]` (i32). Throws ShapeError. */
export function accuracy(logits: Tensor, labels: Tensor, options: LossOptions = {}): Tensor {
  if (!sameShape(logits.shape.slice(0, -1), labels.shape))
    throw new ShapeError(
      `accuracy: logits ${show(logits.shape)} and labels ${show(labels.shape)} do not fit`,
    );
  return reduced('accuracy', eq(cast(argmax(logits), 'f32'), cast(labels, 'f32')), options);
}
