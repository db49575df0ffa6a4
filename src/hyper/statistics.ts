/**
 * Statistics of generated weights over tasks, computed in the space of codes: no task's weights are ever made. All of
 * them follow from inner products: those of full weights from the codes and the Gram matrix of the basis, E x E numbers
 * in place of T x P.
 */
import { ArgumentError } from '../core/errors.js';
import { type Shape, sizeOf } from '../core/shape.js';
import { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { projections } from '../ops/generated.js';
import {
  add,
  ChunkedGenerated,
  div,
  eq,
  expand,
  FullGenerated,
  Generated,
  LowRankGenerated,
  log,
  matmul,
  max,
  mean,
  mul,
  reshape,
  rsqrt,
  slice,
  square,
  sub,
  sum,
  tensor,
  transpose,
} from '../ops/index.js';

/** Weights of T tasks in two factors: row t of `left · right` is a part of the weights of task t, flat. */
interface Product {
  /** [T, c, E]. */
  readonly codes: Tensor;
  /** [E, n]: the same for each of the c places. */
  readonly basis: Tensor;
  /** What every task has beside it, [c, n]. */
  readonly base: Tensor | null;
}

const flat = (x: Tensor): Tensor => reshape(x, [x.shape[0], sizeOf(x.shape.slice(1))]);

/** The places of a chunked weight: one cut off at the start, whole ones, one cut off at the end. */
function places({ code, basis, base, weightShape, start }: ChunkedGenerated): Product[] {
  const chunk = basis.shape[1];
  const size = sizeOf(weightShape);
  const end = start + size;
  const row = base && reshape(base, [size]);
  const cut = (first: number, last: number): Product => {
    const from = Math.max(first * chunk, start);
    const to = Math.min(last * chunk, end);
    const n = (to - from) / (last - first);
    const begin = from - first * chunk;
    return {
      codes: slice(code, 1, first, last),
      basis: slice(basis, 1, begin, begin + n),
      base: row && reshape(slice(row, 0, from - start, to - start), [last - first, n]),
    };
  };
  const [first, last] = [Math.floor(start / chunk), Math.ceil(end / chunk)];
  const [wholeFrom, wholeTo] = [Math.ceil(start / chunk), Math.floor(end / chunk)];
  if (wholeFrom >= wholeTo)
    return Array.from({ length: last - first }, (_, i) => cut(first + i, first + i + 1));
  return [
    ...(first < wholeFrom ? [cut(first, wholeFrom)] : []),
    cut(wholeFrom, wholeTo),
    ...(wholeTo < last ? [cut(wholeTo, last)] : []),
  ];
}

const fullProduct = (code: Tensor, basis: Tensor, base: Tensor | null): Product => ({
  codes: expand(code, 1),
  basis: flat(basis),
  base: base && reshape(base, [1, base.size]),
});

/** What a part of the weights adds to the inner products of all pairs, or of each task with itself. */
interface Part {
  pairs(): Tensor;
  own(): Tensor;
}

const productPart = ({ codes, basis, base }: Product): Part => {
  const gram = matmul(basis, transpose(basis));
  const turned = matmul(codes, gram);
  // <w_t, base> of every task.
  const cross = () => sum(mul(codes, matmul(base!, transpose(basis))), [1, 2]);
  const withBase = (products: Tensor, crossed: (c: Tensor) => Tensor) =>
    base ? add(add(products, crossed(cross())), sum(square(base))) : products;
  return {
    pairs: () => withBase(matmul(flat(turned), transpose(flat(codes))), c => add(expand(c, 0), expand(c, 1))),
    own: () => withBase(sum(mul(turned, codes), [1, 2]), c => mul(c, 2)),
  };
};

/** <a_t b_t, a_s b_s> = sum over (k, l) of (a_t' a_s)[k,l] (b_t b_s')[k,l]. */
const lowRankPart = ({ a, b, scale, base, tasks }: LowRankGenerated): Part => {
  const rank = a.shape[2];
  const columns = transpose(a);
  const cross = () =>
    mul(scale, sum(mul(matmul(columns, reshape(base!, [a.shape[1], b.shape[2]])), b), [1, 2]));
  const withBase = (products: Tensor, crossed: (c: Tensor) => Tensor) =>
    base ? add(add(products, crossed(cross())), sum(square(base))) : products;
  const gram = (x: Tensor) => {
    const rows = reshape(x, [tasks * rank, x.shape[2]]);
    return matmul(rows, transpose(rows));
  };
  return {
    pairs: () => {
      const both = reshape(mul(gram(columns), gram(b)), [tasks, rank, tasks, rank]);
      return withBase(mul(scale * scale, sum(both, [1, 3])), c => add(expand(c, 0), expand(c, 1)));
    },
    own: () => {
      const both = mul(matmul(columns, a), matmul(b, transpose(b)));
      return withBase(mul(scale * scale, sum(both, [1, 2])), c => mul(c, 2));
    },
  };
};

const plainPart = (w: Tensor): Part => ({
  pairs: () => matmul(flat(w), transpose(flat(w))),
  own: () => sum(square(flat(w)), 1),
});

/** The number of tasks and the parts of everything in `theta` that differs between tasks. */
function partsOf(theta: unknown): { tasks: number; weights: number; parts: Part[] } {
  const leaves = tree.leaves(theta);
  const first = leaves.find((leaf): leaf is Generated => leaf instanceof Generated);
  if (!first) throw new ArgumentError('statistics of generated weights: there are none in this tree');
  const { tasks } = first;
  const whole = projections(theta);
  const parts: Part[] = whole.map(([{ code, projection }]) =>
    productPart(fullProduct(code, projection!.basis, projection!.base)),
  );
  const woven = new Set<unknown>(whole.flat());
  let weights = 0;
  for (const leaf of leaves) {
    const shape: Shape | null = leaf instanceof Tensor || leaf instanceof Generated ? leaf.shape : null;
    if (!shape || (leaf instanceof Tensor && shape[0] !== tasks)) continue;
    weights += sizeOf(shape.slice(1));
    if (woven.has(leaf)) continue;
    if (leaf instanceof FullGenerated) parts.push(productPart(fullProduct(leaf.code, leaf.basis, leaf.base)));
    else if (leaf instanceof ChunkedGenerated) parts.push(...places(leaf).map(productPart));
    else if (leaf instanceof LowRankGenerated) parts.push(lowRankPart(leaf));
    else parts.push(plainPart(leaf instanceof Generated ? leaf.materialise() : (leaf as Tensor)));
  }
  return { tasks, weights, parts };
}

const total = (parts: readonly Tensor[]): Tensor => parts.reduce((a, b) => add(a, b));

/**
 * Inner products of the weights of all pairs of tasks, `[T,T]`, over the generated leaves of a tree and its tensors
 * `[T, ...]`; weights that all tasks share are left out. Differentiable. Throws ArgumentError without generated weights.
 */
export const weightGram = (theta: unknown): Tensor => total(partsOf(theta).parts.map(part => part.pairs()));

/** The squared norm of each task's weights, `[T]`: the diagonal of `weightGram`, for less. */
export const weightNorms = (theta: unknown): Tensor => total(partsOf(theta).parts.map(part => part.own()));

/** Cosines of all pairs from their inner products `[T,T]`. */
function cosines(gram: Tensor): Tensor {
  const own = mul(gram, identity(gram.shape[0]));
  const scale = rsqrt(sum(own, 1));
  return mul(mul(gram, expand(scale, 0)), expand(scale, 1));
}

const identity = (n: number): Tensor => {
  const index = tensor(Float32Array.from({ length: n }, (_, i) => i));
  return eq(expand(index, 0), expand(index, 1));
};

/** Mean squared norm of a task's weights, a scalar: times lambda, the weight-norm regulariser. */
export const weightNormLoss = (theta: unknown): Tensor => mean(weightNorms(theta));

/**
 * Mean cosine between the weights of two different tasks, a scalar in [-1, 1]: as a loss it drives them apart, so that
 * the condition (or the noise) cannot be ignored. Throws ArgumentError for fewer than two tasks.
 */
export function diversityLoss(theta: unknown): Tensor {
  const gram = weightGram(theta);
  const [T] = gram.shape;
  if (T < 2) throw new ArgumentError(`diversityLoss: needs two tasks or more, got ${T}`);
  return div(sub(sum(cosines(gram)), T), T * (T - 1));
}

/**
 * Minus the mean logarithm of the squared distance between the weights of two different tasks, a scalar: as a loss it
 * drives them apart whatever their norms, where `diversityLoss` asks for other directions only. Times lambda, a weight
 * that a squared error would pull to one place settles with variance about lambda. Throws ArgumentError for fewer than
 * two tasks.
 */
export function spreadLoss(theta: unknown): Tensor {
  const gram = weightGram(theta);
  const [T] = gram.shape;
  if (T < 2) throw new ArgumentError(`spreadLoss: needs two tasks or more, got ${T}`);
  const same = identity(T);
  const own = sum(mul(gram, same), 1);
  const squared = sub(add(expand(own, 0), expand(own, 1)), mul(gram, 2));
  // The logarithm of the diagonal's zeros is kept out by ones; rounding may leave other distances below 0.
  return div(sum(log(add(max(squared, 1e-12), same))), -T * (T - 1));
}

/** What `weightStatistics` finds. */
export interface WeightStatistics {
  readonly tasks: number;
  /** Weights of one task. */
  readonly weights: number;
  /** Mean over tasks of the norm of the weights. */
  readonly norm: number;
  /** Variance over tasks of a weight, averaged over weights: 0 where the generator ignores its input. */
  readonly variance: number;
  /** Mean cosine between two tasks. */
  readonly cosine: number;
  /**
   * How many directions the weights of the tasks spread over around their mean: the exponential of the entropy of the
   * normalised spectrum (Roy and Vetterli, "The effective rank", 2007). 0 if they do not differ.
   */
  readonly effectiveRank: number;
}

/** Norm, variance, cosine and effective rank of the weights of two tasks or more, without making them. */
export async function weightStatistics(theta: unknown): Promise<WeightStatistics> {
  const { tasks: T, weights, parts } = partsOf(theta);
  if (T < 2) throw new ArgumentError(`weightStatistics: needs two tasks or more, got ${T}`);
  const gram = Float64Array.from(await total(parts.map(part => part.pairs())).data());
  const norms = Float64Array.from({ length: T }, (_, t) => Math.sqrt(Math.max(gram[t * T + t], 0)));
  let cosine = 0;
  const centre = new Float64Array(T);
  let all = 0;
  for (let t = 0; t < T; t++)
    for (let s = 0; s < T; s++) {
      centre[t] += gram[t * T + s] / T;
      all += gram[t * T + s] / (T * T);
      if (s !== t) cosine += gram[t * T + s] / (norms[t] * norms[s]) / (T * (T - 1));
    }
  const centred = gram.map((x, i) => x - centre[Math.floor(i / T)] - centre[i % T] + all);
  const spread = centred.reduce((trace, x, i) => (i % (T + 1) === 0 ? trace + x : trace), 0);
  return {
    tasks: T,
    weights,
    norm: norms.reduce((a, b) => a + b) / T,
    variance: Math.max(spread, 0) / ((T - 1) * weights),
    cosine,
    // f32 products leave about 1e-6 of the norms where nothing differs.
    effectiveRank: spread <= 1e-6 * T * all ? 0 : spectralRank(eigenvalues(centred, T)),
  };
}

const spectralRank = (values: Float64Array): number => {
  const positive = values.filter(x => x > 0);
  const trace = positive.reduce((a, b) => a + b, 0);
  return Math.exp(-positive.reduce((h, x) => h + (x / trace) * Math.log(x / trace), 0));
};

/** Eigenvalues of a symmetric n x n matrix by Jacobi's rotations (Golub and Van Loan, section 8.5). */
function eigenvalues(matrix: Float64Array, n: number): Float64Array {
  const a = matrix.slice();
  const scale = a.reduce((sum, x) => sum + x * x, 0);
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) {
        const x = a[p * n + q];
        off += x * x;
        if (x === 0) continue;
        const theta = (a[q * n + q] - a[p * n + p]) / (2 * x);
        const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1);
        const s = t * c;
        for (let k = 0; k < n; k++) {
          const [u, v] = [a[k * n + p], a[k * n + q]];
          a[k * n + p] = c * u - s * v;
          a[k * n + q] = s * u + c * v;
        }
        for (let k = 0; k < n; k++) {
          const [u, v] = [a[p * n + k], a[q * n + k]];
          a[p * n + k] = c * u - s * v;
          a[q * n + k] = s * u + c * v;
        }
      }
    if (off <= 1e-24 * scale) break;
  }
  return Float64Array.from({ length: n }, (_, i) => a[i * n + i]);
}
