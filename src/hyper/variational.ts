import type { Tensor } from '../core/tensor.js';
import { dense } from '../nn/index.js';
import { add, exp, mul, normal, slice } from '../ops/index.js';
import type { Condition, Encoder, TargetShapes } from './condition.js';

/** A normal with independent parts, one per task: `[T, latent]` each. */
export interface Posterior {
  readonly mean: Tensor;
  readonly logVar: Tensor;
}

/** An encoder whose code is drawn. */
export interface VariationalEncoder<I> extends Encoder<I> {
  posterior(params: any, input: I): Posterior;
  /** mean + sd · eps with eps drawn from the key; without a key the mean. */
  sample(posterior: Posterior, key?: Tensor): Tensor;
}

/**
 * The encoder of a variational autoencoder (Kingma and Welling, ICLR 2014): the code of `condition` becomes mean and
 * log variance of `latent` numbers, from which `encode` with `{ key }` draws and without one takes the mean. The
 * hypernetwork behind it is the decoder; `nn.klNormal` of the posterior is the price of the code.
 */
export const variational =
  <I>(condition: Condition<I>, latent: number) =>
  (target: TargetShapes): VariationalEncoder<I> => {
    const inner = condition(target);
    const both = dense(2 * latent, { gain: 1 });
    const posterior = (params: any, input: I): Posterior => {
      const out = both.apply(params.posterior, inner.encode(params.inner, input));
      return { mean: slice(out, 1, 0, latent), logVar: slice(out, 1, latent) };
    };
    const sample = ({ mean, logVar }: Posterior, key?: Tensor) =>
      key ? add(mean, mul(exp(mul(logVar, 0.5)), normal(key, mean.shape))) : mean;
    return {
      size: latent,
      params: { inner: inner.params, posterior: both.params([inner.size]) },
      posterior,
      sample,
      encode: (params, input, { key } = {}) => sample(posterior(params, input), key),
      example: (key, tasks) => inner.example(key, tasks),
    };
  };
