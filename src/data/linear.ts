import { cholesky, solveLower, solveLowerTransposed } from './cholesky.js';
import { Stream } from './stream.js';
import type { RegressionFamily, TaskBatch } from './task.js';

/** Sizes of the linear family; the defaults are the family the command line calls `linear`. */
export interface LinearOptions {
  /** Length of x. */
  readonly inSize?: number;
  /** Length of the code c. */
  readonly codeSize?: number;
  /** Standard deviation of the noise on every y, support and query. */
  readonly noise?: number;
  /** Seed of the basis A, which all tasks share. */
  readonly basisSeed?: number;
}

/** Linear tasks together with the basis that a learner has to discover. */
export interface LinearFamily extends RegressionFamily {
  /** A [inSize, codeSize]. */
  readonly basis: Float32Array;
  readonly noise: number;
}

/**
 * Linear regression whose weights lie in a small subspace: w = A c with c ~ N(0, I), x ~ N(0, I), y = x . w + noise.
 * It is the one family where a hypernetwork's optimum is known in closed form (`linearOracle`). `latent` is c.
 */
export function linearTasks({
  inSize = 8,
  codeSize = 3,
  noise = 0.1,
  basisSeed = 0,
}: LinearOptions = {}): LinearFamily {
  const basisStream = new Stream(basisSeed);
  const basis = Float32Array.from({ length: inSize * codeSize }, () => basisStream.normal());
  return {
    name: 'linear',
    kind: 'regression',
    inShape: [inSize],
    outSize: 1,
    latentSize: codeSize,
    basis,
    noise,
    draw({ support, query, latent }, stream) {
      for (let e = 0; e < codeSize; e++) latent[e] = stream.normal();
      for (const { n, x, y } of [support, query]) {
        for (let i = 0; i < x.length; i++) x[i] = stream.normal();
        for (let i = 0; i < n; i++) {
          let sum = noise * stream.normal();
          for (let d = 0; d < inSize; d++)
            for (let e = 0; e < codeSize; e++) sum += x[i * inSize + d] * basis[d * codeSize + e] * latent[e];
          y[i] = sum;
        }
      }
    },
  };
}

/**
 * The best any learner can do who knows A: the posterior mean of c given the support set, which is the ridge solution
 * (F^T F + noise^2 I)^-1 F^T y with F = X A, applied to the query inputs.
 *
 * @returns predictions [tasks, n] for the query rows.
 */
export function linearOracle(family: LinearFamily, batch: TaskBatch<Float32Array>): Float32Array {
  const [inSize] = family.inShape;
  const e = family.basis.length / inSize;
  const features = (x: Float32Array, row: number): Float64Array => {
    const out = new Float64Array(e);
    for (let d = 0; d < inSize; d++)
      for (let k = 0; k < e; k++) out[k] += x[row * inSize + d] * family.basis[d * e + k];
    return out;
  };
  const { support, query } = batch;
  const prediction = new Float32Array(batch.tasks * query.n);
  for (let t = 0; t < batch.tasks; t++) {
    const gram = new Float64Array(e * e);
    const code = new Float64Array(e);
    for (let k = 0; k < e; k++) gram[k * e + k] = family.noise ** 2;
    for (let row = t * support.n; row < (t + 1) * support.n; row++) {
      const f = features(support.x, row);
      for (let i = 0; i < e; i++) {
        code[i] += f[i] * support.y[row];
        for (let j = 0; j < e; j++) gram[i * e + j] += f[i] * f[j];
      }
    }
    cholesky(gram, e);
    solveLower(gram, e, code);
    solveLowerTransposed(gram, e, code);
    for (let row = t * query.n; row < (t + 1) * query.n; row++)
      prediction[row] = features(query.x, row).reduce((sum, f, k) => sum + f * code[k], 0);
  }
  return prediction;
}
