import type { RegressionFamily } from './task.js';

/**
 * Tasks of two modes: y = x or y = -x with equal chance, x ~ N(0, 1), without noise; `latent` is the sign. Where a
 * generator is told nothing but noise, the best single network says 0 and its squared error is 1; one that answers
 * with either mode has to make networks that differ.
 */
export const twoModes: RegressionFamily = {
  name: 'two-modes',
  kind: 'regression',
  inShape: [1],
  outSize: 1,
  latentSize: 1,
  draw({ support, query, latent }, stream) {
    const sign = stream.below(2) === 0 ? -1 : 1;
    latent[0] = sign;
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) y[i] = sign * (x[i] = stream.normal());
  },
};
