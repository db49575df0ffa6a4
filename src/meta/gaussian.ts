/** Hypernetworks whose networks answer with a distribution. */
import { scope, type Tensor } from '../core/tensor.js';
import type { Hypernet, HypernetParams, Support } from '../hyper/index.js';
import { add, div, log, mean, mul, slice, softplus, square, sub } from '../ops/index.js';
import type { Examples } from './episodes.js';
import type { Learner } from './learner.js';

/** What a task's network says of each row. */
export interface Moments {
  /** [T, n, outSize]. */
  readonly mean: Tensor;
  /** [T, n, outSize], above 0. */
  readonly variance: Tensor;
}

/** A learner that knows how sure it is; its predictions are the means. */
export interface GaussianLearner extends Learner<HypernetParams> {
  moments(phi: HypernetParams, support: Examples, x: Tensor): Moments;
}

/** -log N(y; mean, variance) of each value, in nats. */
export const gaussianLoss = (y: Tensor, { mean: m, variance }: Moments): Tensor =>
  mul(0.5, add(log(mul(variance, 2 * Math.PI)), div(square(sub(y, m)), variance)));

/** Variances below this are not believed. */
const LEAST_VARIANCE = 1e-3;

/**
 * A hypernetwork conditioned on the support set, whose target has two outputs for each value: its mean, and what softplus
 * turns into its variance. It learns by the likelihood of the query rows, each for itself, as conditional neural
 * processes do (Garnelo et al., ICML 2018). `example` gives typical support sets.
 */
export const gaussianLearner = (hyper: Hypernet<Support>, example?: () => Examples): GaussianLearner => {
  const moments = (phi: HypernetParams, support: Examples, x: Tensor): Moments => {
    const out = hyper.target.apply(hyper.generate(phi, hyper.encode(phi, support)), x);
    const size = out.shape[out.rank - 1] / 2;
    return {
      mean: slice(out, -1, 0, size),
      variance: add(softplus(slice(out, -1, size, 2 * size)), LEAST_VARIANCE),
    };
  };
  return {
    init: key => scope(() => hyper.init(key, example?.())),
    moments,
    predict: (phi, support, x) => moments(phi, support, x).mean,
    loss: (phi, { support, query }) => mean(gaussianLoss(query.y, moments(phi, support, query.x))),
  };
};
