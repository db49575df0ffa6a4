import { ArgumentError } from '../core/errors.js';
import type { Tensor } from '../core/tensor.js';
import { mean } from '../ops/index.js';
import { type Episodes, type Examples, taskLosses, taskScores } from './episodes.js';

/**
 * A way to learn from a support set: what is shared by all tasks (`params`, a tree), and how a task's predictions
 * follow from it and the task's support set. Every method is one: hypernetworks, MAML, class means.
 */
export interface Learner<P = any> {
  /** Parameters before training, from a random key. */
  init(key: Tensor): P;
  /**
   * What T tasks say of inputs `x [T, n, ...inShape]`: values or logits `[T, n, outSize]`. `outSize` is that of the
   * family; learners that compare classes take any number of them, whatever they were trained with.
   */
  predict(params: P, support: Examples, x: Tensor, outSize: number): Tensor;
  /** True if `loss` draws random numbers: its episodes then need a key. */
  readonly random?: boolean;
  /** What training makes small, a scalar, where that is not the mean loss on the query sets (Reptile). */
  loss?(params: P, episodes: Episodes): Tensor;
}

/** The key of episodes that a learner needs to draw from. Throws ArgumentError if they have none. */
export function keyOf({ key }: Episodes): Tensor {
  if (!key) throw new ArgumentError('this learner draws random numbers: its episodes need a key');
  return key;
}

/** The training objective: the learner's own, else the mean loss on the query sets. */
export const trainingLoss =
  <P>(learner: Learner<P>, outSize: number) =>
  (params: P, episodes: Episodes): Tensor => {
    if (learner.loss) return learner.loss(params, episodes);
    const { support, query } = episodes;
    return mean(taskLosses(learner.predict(params, support, query.x, outSize), query.y));
  };

/** What is reported: the score of each task on its query set, `[T]`. */
export const queryScores =
  <P>(learner: Learner<P>, outSize: number) =>
  (params: P, { support, query }: Episodes): Tensor =>
    taskScores(learner.predict(params, support, query.x, outSize), query.y);
