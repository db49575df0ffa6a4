import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { add, div, expm1, mul, neg, sqrt, square } from '../ops/index.js';
import { descentAt, type LearningRate } from './schedule.js';
import { counter, mapGrads, type Transform, transform, zerosLike } from './transform.js';

export interface AdamOptions {
  /** Decay of the mean of gradients. Default 0.9. */
  readonly beta1?: number;
  /** Decay of the mean of their squares. Default 0.999. */
  readonly beta2?: number;
  /** Added to the root of the second moment. Default 1e-8. */
  readonly eps?: number;
}

export interface AdamState {
  /** Updates made. */
  readonly step: Tensor;
  /** First and second moment: trees like the parameters. */
  readonly mean: unknown;
  readonly square: unknown;
}

/** 1 - beta^t without cancellation: in f32 the difference itself is off by 1e-5 for beta = 0.999. */
const correction = (beta: number, t: Tensor): Tensor => neg(expm1(mul(t, Math.log(beta))));

/**
 * Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1, in the order of section 2's
 * last paragraph: both corrections are one factor of the rate, and eps is scaled to match). Moments of parameters that
 * get no gradient decay into subnormal numbers and are kept as they are, so every backend has the same state.
 */
export function adam(
  learningRate: LearningRate,
  { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 }: AdamOptions = {},
): Transform<AdamState> {
  return transform(
    params => ({ step: counter(params), mean: zerosLike(params), square: zerosLike(params) }),
    (grads, state) => {
      const step = add(state.step, 1);
      const mean = mapGrads((g, m) => add(mul(m, beta1), mul(g, 1 - beta1)), grads, state.mean);
      const squares = mapGrads((g, v) => add(mul(v, beta2), mul(square(g), 1 - beta2)), grads, state.square);
      const scale = sqrt(correction(beta2, step));
      const rate = div(mul(descentAt(learningRate, state.step), scale), correction(beta1, step));
      const floor = mul(scale, eps);
      const updates = mapGrads((_g, m, v) => div(mul(m, rate), add(sqrt(v), floor)), grads, mean, squares);
      return [updates, { step, mean, square: squares }];
    },
  );
}

export interface AdamwOptions extends AdamOptions {
  /** Share of a weight taken off per unit of learning rate. Default 0.01. */
  readonly weightDecay?: number;
  /** Which leaves decay, by path (`layers.0.w`); all of them unless given. */
  readonly decays?: (path: string) => boolean;
}

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019): the
 * decay is scaled by the scheduled learning rate and does not pass through the moments.
 */
export function adamw(
  learningRate: LearningRate,
  { weightDecay = 0.01, decays = () => true, ...options }: AdamwOptions = {},
): Transform<AdamState> {
  const { init, update } = adam(learningRate, options);
  return transform(init, (grads, state, params) => {
    const [updates, next] = update(grads, state, params);
    const rate = descentAt(learningRate, state.step);
    const shrink = typeof rate === 'number' ? rate * weightDecay : mul(rate, weightDecay);
    const decayed = tree.mapWithPath(
      (path, u: Tensor | null, p: Tensor) => (u && decays(path) ? add(u, mul(p, shrink)) : u),
      updates,
      params,
    );
    return [decayed, next];
  });
}
