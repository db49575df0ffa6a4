/**
 * How inexact products are in each `precision` on the adapter at hand: the length of a product's error over that of the
 * product in f64, for normal data and data scaled by millionths and millions. Where the adapter multiplies no matrices,
 * its kernels compute the tiers with the same roundings.
 *
 *   node bench/precision.mjs
 */
import { fileURLToPath } from 'node:url';

/** What normal data of both operands are multiplied by. */
export const SCALES = [
  [1, 1],
  [1e-6, 1],
  [1, 1e6],
  [1e-6, 1e-6],
  [1e6, 1e6],
];

/**
 * The product of [.., m, k] and [.., k, n] in f64, row-major.
 * @param {{ shape: readonly number[], data: ArrayLike<number> }} a
 * @param {{ shape: readonly number[], data: ArrayLike<number> }} b
 * @returns {number[]}
 */
export function exact(a, b) {
  const [m, k] = a.shape.slice(-2);
  const n = b.shape.at(-1);
  const batch = a.shape.slice(0, -2).reduce((all, size) => all * size, 1);
  const y = new Array(batch * m * n).fill(0);
  for (let t = 0; t < batch; t++)
    for (let i = 0; i < m; i++)
      for (let l = 0; l < k; l++) {
        const left = a.data[(t * m + i) * k + l];
        for (let j = 0; j < n; j++) y[(t * m + i) * n + j] += left * b.data[(t * k + l) * n + j];
      }
  return y;
}

/**
 * The length of the difference over that of `wanted`.
 * @param {ArrayLike<number>} got
 * @param {readonly number[]} wanted
 * @returns {number}
 */
export function relativeError(got, wanted) {
  let difference = 0;
  let all = 0;
  for (let i = 0; i < wanted.length; i++) {
    difference += (got[i] - wanted[i]) ** 2;
    all += wanted[i] ** 2;
  }
  return Math.sqrt(difference / all);
}

async function main() {
  const { key, matmul, normal, tensor, use } = await import('../dist/src/index.js');
  const { createWebGPU } = await import('../dist/src/backends/webgpu/index.js');
  const { DeviceLimitError } = await import('../dist/src/core/errors.js');
  const open = async precision => {
    try {
      return await createWebGPU({ precision });
    } catch (error) {
      if (!(error instanceof DeviceLimitError)) throw error;
      return await createWebGPU({ precision, emulated: true });
    }
  };
  const rows = SCALES.map(() => []);
  for (const precision of ['highest', 'high', 'medium']) {
    const backend = await open(precision);
    use(backend);
    const { adapter, matrices = 'none' } = backend.describe();
    console.log(`${precision}: ${adapter}, matrices: ${matrices}`);
    for (const [i, [s, t]] of SCALES.entries()) {
      const drawn = async (shape, scale) => {
        const values = await normal(key(shape[0]), shape).data();
        return { shape, data: values.map(value => value * scale) };
      };
      const [a, b] = [await drawn([193, 257], s), await drawn([257, 200], t)];
      const [x, w] = [a, b].map(({ shape, data }) => tensor(data, shape));
      rows[i].push(relativeError(await matmul(x, w).data(), exact(a, b)));
    }
    backend.dispose();
  }
  console.log('scales              highest    high       medium     high / highest');
  for (const [i, [highest, high, medium]] of rows.entries()) {
    const cells = [SCALES[i].join(', '), ...[highest, high, medium].map(x => x.toExponential(2))];
    console.log(
      `${cells[0].padEnd(20)}${cells
        .slice(1)
        .map(x => x.padEnd(11))
        .join('')}${(high / highest).toFixed(2)}`,
    );
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
