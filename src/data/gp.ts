import { cholesky, solveLower } from './cholesky.js';
import type { RegressionFamily, TaskBatch } from './task.js';

/** Hyperparameters of the Gaussian process; the defaults are the family the command line calls `gp`. */
export interface GpOptions {
  readonly lengthScale?: number;
  /** Standard deviation of the noiseless function. */
  readonly scale?: number;
  /** Standard deviation of the noise on every y, support and query. */
  readonly noise?: number;
}

/** Draws from a Gaussian process whose hyperparameters are known, so that the exact posterior is too. */
export interface GpFamily extends RegressionFamily {
  readonly lengthScale: number;
  readonly scale: number;
  readonly noise: number;
}

const covariance = ({ lengthScale, scale }: GpFamily, a: number, b: number): number =>
  scale ** 2 * Math.exp(-0.5 * ((a - b) / lengthScale) ** 2);

/** K(x, x) + noise^2 I, [n, n]. */
function gram(family: GpFamily, x: ArrayLike<number>): Float64Array {
  const n = x.length;
  const k = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) k[i * n + j] = covariance(family, x[i], x[j]);
    k[i * n + i] += family.noise ** 2;
  }
  return k;
}

/**
 * One-dimensional functions drawn from a Gaussian process with the RBF kernel
 * scale^2 exp(-(x - x')^2 / (2 lengthScale^2)), x ~ U[-2, 2]: the family of Garnelo et al., "Conditional neural
 * processes", ICML 2018, with fixed hyperparameters. Support and query are drawn jointly, so a query row costs as
 * much as a support row: O((shots + queries)^3) a task.
 *
 * @throws DataError from `draw` if `noise` is too small for the matrix to be factored; 1e-3 of `scale` is enough.
 */
export function gpTasks({ lengthScale = 0.4, scale = 1, noise = 0.1 }: GpOptions = {}): GpFamily {
  const family: GpFamily = {
    name: 'gp',
    kind: 'regression',
    inShape: [1],
    outSize: 1,
    lengthScale,
    scale,
    noise,
    draw({ support, query }, stream) {
      for (const { x } of [support, query])
        for (let i = 0; i < x.length; i++) x[i] = -2 + 4 * stream.uniform();
      const x = [...support.x, ...query.x];
      const n = x.length;
      const factor = gram(family, x);
      cholesky(factor, n);
      const z = Float64Array.from(x, () => stream.normal());
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (let k = 0; k <= i; k++) sum += factor[i * n + k] * z[k];
        if (i < support.n) support.y[i] = sum;
        else query.y[i - support.n] = sum;
      }
    },
  };
  return family;
}

/** What the exact posterior says of the query rows. */
export interface GpPosterior {
  /** [tasks, n]. */
  readonly mean: Float64Array;
  /** [tasks, n]: variance of the observed y, noise included. */
  readonly variance: Float64Array;
  /** [tasks]: mean over the query rows of log N(y; mean, variance), nats a point. */
  readonly logLikelihood: Float64Array;
}

/**
 * The exact posterior of each query row given its task's support set, each row for itself (no covariances between
 * query rows): what a neural process with independent outputs is compared with.
 *
 * Rasmussen and Williams, "Gaussian processes for machine learning", 2006, algorithm 2.1.
 */
export function gpOracle(family: GpFamily, batch: TaskBatch<Float32Array>): GpPosterior {
  const { tasks, support, query } = batch;
  const s = support.n;
  const mean = new Float64Array(tasks * query.n);
  const variance = new Float64Array(tasks * query.n);
  const logLikelihood = new Float64Array(tasks);
  for (let t = 0; t < tasks; t++) {
    const x = support.x.subarray(t * s, (t + 1) * s);
    const factor = gram(family, x);
    cholesky(factor, s);
    const whitened = Float64Array.from(support.y.subarray(t * s, (t + 1) * s));
    solveLower(factor, s, whitened);
    for (let row = t * query.n; row < (t + 1) * query.n; row++) {
      const cross = Float64Array.from(x, xi => covariance(family, xi, query.x[row]));
      solveLower(factor, s, cross);
      let m = 0;
      let explained = 0;
      for (let i = 0; i < s; i++) {
        m += cross[i] * whitened[i];
        explained += cross[i] ** 2;
      }
      mean[row] = m;
      variance[row] = family.scale ** 2 + family.noise ** 2 - explained;
      logLikelihood[t] -=
        0.5 * (Math.log(2 * Math.PI * variance[row]) + (query.y[row] - m) ** 2 / variance[row]);
    }
    logLikelihood[t] /= query.n;
  }
  return { mean, variance, logLikelihood };
}
