import { DataError } from '../core/errors.js';

/**
 * Lower factor L of a symmetric positive definite matrix, A = L L^T, in place in the lower triangle of `a` [n, n];
 * the upper triangle is left as it was.
 *
 * @throws DataError if the matrix is not positive definite to rounding.
 */
export function cholesky(a: Float64Array, n: number): void {
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j];
      for (let k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
      if (i !== j) a[i * n + j] = sum / a[j * n + j];
      else if (sum > 0) a[i * n + i] = Math.sqrt(sum);
      else throw new DataError(`cholesky: pivot ${i} of ${n} is ${sum}; the matrix is not positive definite`);
    }
}

/** Solves L z = b in place in `b` [n], L being what `cholesky` left. */
export function solveLower(l: Float64Array, n: number, b: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let sum = b[i];
    for (let k = 0; k < i; k++) sum -= l[i * n + k] * b[k];
    b[i] = sum / l[i * n + i];
  }
}

/** Solves L^T z = b in place in `b` [n]. */
export function solveLowerTransposed(l: Float64Array, n: number, b: Float64Array): void {
  for (let i = n - 1; i >= 0; i--) {
    let sum = b[i];
    for (let k = i + 1; k < n; k++) sum -= l[k * n + i] * b[k];
    b[i] = sum / l[i * n + i];
  }
}
