import type { RegressionFamily } from './task.js';

/**
 * The sinusoid tasks of Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks",
 * ICML 2017: y = A sin(x - p), A ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5], without noise. `latent` is (A, p).
 * Predicting zero has an expected squared error of E[A^2] / 2 = 4.252.
 */
export const sinusoid: RegressionFamily = {
  name: 'sinusoid',
  kind: 'regression',
  inShape: [1],
  outSize: 1,
  latentSize: 2,
  draw({ support, query, latent }, stream) {
    const amplitude = 0.1 + 4.9 * stream.uniform();
    const phase = Math.PI * stream.uniform();
    latent[0] = amplitude;
    latent[1] = phase;
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) {
        x[i] = -5 + 10 * stream.uniform();
        y[i] = amplitude * Math.sin(x[i] - phase);
      }
  },
};
