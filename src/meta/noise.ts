import type { Tensor } from '../core/tensor.js';
import { scope } from '../core/tensor.js';
import { type Hypernet, type HypernetParams, spreadLoss } from '../hyper/index.js';
import { add, broadcastTo, expand, key, mean, mul, reshape, softmax, sum, transpose } from '../ops/index.js';
import { type Examples, taskLosses } from './episodes.js';
import { keyOf, type Learner } from './learner.js';

export interface NoiseOptions {
  /** Weight of the spread of the weights (see `spreadLoss`); 0, the default, lets the generator ignore its noise. */
  readonly spread?: number;
  /** Networks drawn to answer with; 64 unless given. */
  readonly draws?: number;
  /** Variance of a target's noise that the weighing of the draws assumes, for values; 0.1 unless given. */
  readonly variance?: number;
}

/** A learner whose weights are drawn. */
export interface NoiseLearner extends Learner<HypernetParams> {
  /** `count` sets of weights for the draws of a key: a tree with a leading axis. */
  draw(phi: HypernetParams, count: number, key: Tensor): unknown;
}

/**
 * A hypernetwork that reads noise alone and so makes a distribution of networks, the same for all tasks: in training
 * every task meets a network drawn for it. For a convex loss one network for all noise is as good as any distribution
 * (Jensen), which is where the weights end unless `spread` keeps them apart. An answer is the mean of the draws' answers
 * (of their logits, for classes), each weighed by how likely it makes the support set; the same draws are used always.
 */
export const noiseLearner = (
  hyper: Hypernet<number | Tensor>,
  { spread = 0, draws = 64, variance = 0.1 }: NoiseOptions = {},
): NoiseLearner => {
  const draw = (phi: HypernetParams, count: number, from: Tensor) =>
    hyper.generate(phi, hyper.encode(phi, count, { key: from }));
  return {
    random: true,
    draw,
    init: from => scope(() => hyper.init(from)),
    loss(phi, episodes) {
      const { x, y } = episodes.query;
      const theta = draw(phi, x.shape[0], keyOf(episodes));
      const error = mean(taskLosses(hyper.target.apply(theta, x), y));
      return spread === 0 ? error : add(error, mul(spreadLoss(theta), spread));
    },
    predict(phi, { x: shown, y }: Examples, x) {
      const theta = draw(phi, draws, key(0));
      /** Answers of all draws to the rows of all tasks, `[draws, T, n, outputs]`. */
      const answers = (rows: Tensor) => {
        const [T, n, ...inShape] = rows.shape;
        const once = reshape(rows, [1, T * n, ...inShape]);
        const out = hyper.target.apply(theta, broadcastTo(once, [draws, T * n, ...inShape]));
        return reshape(out, [draws, T, n, out.shape[2]]);
      };
      const [T, S] = shown.shape;
      const seen = answers(shown);
      const labels = reshape(broadcastTo(expand(y, 0), [draws, ...y.shape]), [
        draws * T,
        ...y.shape.slice(1),
      ]);
      const losses = reshape(taskLosses(reshape(seen, [draws * T, S, seen.shape[3]]), labels), [draws, T]);
      // A squared error is averaged over outputs; the likelihood of a row is not.
      const scale = y.dtype === 'i32' ? S : (S * seen.shape[3]) / (2 * variance);
      const weights = transpose(softmax(transpose(mul(losses, -scale))));
      return sum(mul(answers(x), reshape(weights, [draws, T, 1, 1])), 0);
    },
  };
};
