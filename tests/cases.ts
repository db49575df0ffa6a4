/**
 * One row list for every op, keyed by the public function's name. Parity with `ref`, finite differences, second
 * derivatives, `selftest` and the coverage test all read it; it is compiled into dist for the command line.
 *
 * Values stay clear of kinks and poles, so that finite differences mean something: `apart` keeps away from zero,
 * `spaced` keeps all elements of an operand (and of operands with other offsets) apart from each other.
 */
import type { TypedArray } from '../src/core/backend.js';
import { type Shape, sizeOf } from '../src/core/shape.js';
import type { Tensor } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import type { Stream } from '../src/data/stream.js';
import * as op from '../src/ops/index.js';

/** Host values of one operand. `fixed` ones are not differentiated although they are f32. */
export interface Values {
  readonly values: TypedArray;
  readonly shape: Shape;
  readonly fixed?: boolean;
}
export type Input = (random: Stream) => Values;

/**
 * Bounds of the error against float64, element by element, relative to the larger of the element and the mean size of
 * its tensor. Where `gradient` is missing the row is not differentiated.
 */
export interface Tolerance {
  readonly value: number;
  readonly gradient?: number;
  readonly second?: number;
  /** Why no tighter bound holds. */
  readonly reason: string;
}

export interface Row {
  readonly inputs: readonly Input[];
  readonly call: (...xs: Tensor[]) => Tensor | readonly Tensor[];
  readonly tolerance: Tolerance;
}

const f32 = (shape: Shape, draw: (random: Stream, i: number) => number): Input => {
  return random => ({
    shape,
    values: Float32Array.from({ length: sizeOf(shape) }, (_, i) => draw(random, i)),
  });
};
/** Uniform on [lo, hi). */
const within = (shape: Shape, lo = -2, hi = 2) => f32(shape, random => lo + (hi - lo) * random.uniform());
/** Of either sign, and at least `least` away from zero. */
const apart = (shape: Shape, least = 0.2, most = 2) =>
  f32(shape, random => (random.below(2) ? 1 : -1) * (least + (most - least) * random.uniform()));
/** Multiples of 0.1 in random order, centred, plus `offset`: no two of them nearer than 0.1. */
const spaced =
  (shape: Shape, offset = 0): Input =>
  random => {
    const n = sizeOf(shape);
    const order = random.shuffle(Array.from({ length: n }, (_, i) => (i - Math.floor(n / 2)) * 0.1 + offset));
    return { shape, values: Float32Array.from(order) };
  };
const exactly = (...values: number[]): Input => {
  return () => ({ shape: [values.length], values: Float32Array.from(values) });
};
const fixed =
  (input: Input): Input =>
  random => ({ ...input(random), fixed: true });
/** Zeros and ones. */
const mask = (shape: Shape) => fixed(f32(shape, random => random.below(2)));
/** Whole numbers below `n`. */
const below =
  (n: number, shape: Shape): Input =>
  random => ({ shape, values: Int32Array.from({ length: sizeOf(shape) }, () => random.below(n)) });
const ints = (...values: number[]): Input => {
  return () => ({ shape: [values.length], values: Int32Array.from(values) });
};
const keyWords: Input = random => ({ shape: [2], values: Uint32Array.of(random.u32(), random.u32()) });

const moves: Tolerance = {
  value: 0,
  gradient: 2e-6,
  second: 2e-6,
  reason: 'values are moved, not one bit may change; derivatives add and multiply in f32',
};
const exact: Tolerance = { value: 0, reason: 'whole numbers, comparisons or bits: nothing is rounded' };
const flat: Tolerance = {
  value: 0,
  gradient: 0,
  second: 0,
  reason: 'piecewise constant, so its derivatives are zeros',
};
const arithmetic: Tolerance = {
  value: 5e-7,
  gradient: 2e-6,
  second: 4e-6,
  reason: 'one rounding of f32 per operation (6e-8); WGSL allows 2.5 units for a division',
};
const transcendental: Tolerance = {
  value: 5e-6,
  gradient: 1e-5,
  second: 2e-5,
  reason: 'WGSL allows several units for exp, log and pow; drivers are far better',
};
const accumulated: Tolerance = {
  value: 3e-6,
  gradient: 5e-6,
  second: 1e-5,
  reason:
    'f32 sums in another order than the oracle, with cancellation; conv2d in tiles rounds twice as much',
};
const winograd = { ...accumulated, value: 6e-6, gradient: 1e-5, reason: 'tiles round twice as much as sums' };
const normalised: Tolerance = {
  value: 1e-5,
  gradient: 1e-4,
  second: 2e-4,
  reason: 'differences from a mean and quotients of sums cancel digits of f32',
};

const row = (inputs: readonly Input[], call: Row['call'], tolerance: Tolerance): Row => ({
  inputs,
  call,
  tolerance,
});
/** An elementwise function of one operand: small, on a strided view, and larger than one workgroup. */
const unary = (call: (x: Tensor) => Tensor, input: (shape: Shape) => Input, tolerance: Tolerance): Row[] => [
  row([input([3, 5])], call, tolerance),
  row([input([4, 3])], x => call(op.slice(op.transpose(x), 1, 1)), tolerance),
  row([input([9, 131])], call, tolerance),
];
/** Of two operands: equal shapes, broadcast both ways, and with a number on either side. */
const binary = (
  call: (x: op.Value, y: op.Value) => Tensor,
  left: (shape: Shape) => Input,
  right: (shape: Shape) => Input,
  tolerance: Tolerance,
): Row[] => [
  row([left([3, 5]), right([3, 5])], call, tolerance),
  row([left([4, 1, 3]), right([5, 1])], call, tolerance),
  row([left([2, 3]), right([])], call, tolerance),
  row([left([7])], x => call(x, 0.275), tolerance),
  row([right([7])], x => call(0.275, x), tolerance),
];
const compare = (call: (x: op.Value, y: op.Value) => Tensor): Row[] => [
  ...binary(call, spaced, shape => spaced(shape, 0.05), flat),
  row([exactly(1, 2, 3, -0, 0), exactly(2, 2, 2, 0, 1)].map(fixed), call, exact),
  row([exactly(Number.NaN, 1, Infinity), exactly(Number.NaN, Number.NaN, Infinity)].map(fixed), call, exact),
];
const wide = (shape: Shape) => within(shape);
const positive = (shape: Shape) => within(shape, 0.3, 3);
const shifted = (shape: Shape) => spaced(shape, 0.05);
/** Angles of many turns; from 2^15 on, only whole-number arithmetic finds what is left of them. */
const far = fixed(exactly(-801.5, 29999.3, -32767.99, 32768, -1e5, 123456784, 1e10, 3e20, -3e38));

const elementwise: Record<string, Row[]> = {
  add: binary(op.add, wide, wide, arithmetic),
  sub: binary(op.sub, wide, wide, arithmetic),
  mul: binary(op.mul, wide, wide, arithmetic),
  div: binary(op.div, wide, apart, arithmetic),
  neg: unary(op.neg, wide, { ...moves, reason: 'a change of sign; derivatives as for moved values' }),
  pow: [
    ...binary(op.pow, positive, wide, transcendental),
    row([apart([3, 4])], x => op.pow(x, 3), transcendental),
    row([apart([6]), fixed(exactly(-2, -1, 0, 1, 2, 3))], op.pow, transcendental),
  ],
  exp: unary(op.exp, wide, transcendental),
  expm1: [
    ...unary(op.expm1, wide, transcendental),
    row([fixed(apart([8], 1e-4, 2e-3))], op.expm1, transcendental),
  ],
  log: unary(op.log, positive, transcendental),
  log1p: [
    ...unary(op.log1p, shape => within(shape, -0.7, 3), transcendental),
    row([fixed(apart([8], 1e-4, 2e-3))], op.log1p, transcendental),
  ],
  sqrt: unary(op.sqrt, positive, arithmetic),
  rsqrt: unary(op.rsqrt, positive, arithmetic),
  square: unary(op.square, wide, arithmetic),
  recip: unary(op.recip, apart, arithmetic),
  tanh: unary(op.tanh, wide, transcendental),
  sigmoid: [
    ...unary(op.sigmoid, wide, transcendental),
    row([fixed(exactly(-200, -90, 90, 200))], op.sigmoid, transcendental),
  ],
  relu: unary(op.relu, apart, arithmetic),
  leakyRelu: [
    ...unary(x => op.leakyRelu(x, 0.1), apart, arithmetic),
    row([apart([3, 4]), within([4], 0.1, 0.9)], op.leakyRelu, arithmetic),
  ],
  softplus: [
    ...unary(op.softplus, wide, transcendental),
    row([fixed(exactly(-200, -90, 90, 200))], op.softplus, transcendental),
  ],
  silu: unary(op.silu, wide, transcendental),
  gelu: unary(op.gelu, wide, transcendental),
  sin: [...unary(op.sin, wide, transcendental), row([far], op.sin, transcendental)],
  cos: [...unary(op.cos, wide, transcendental), row([far], op.cos, transcendental)],
  erf: [
    ...unary(op.erf, wide, transcendental),
    row([fixed(exactly(-7, -4, -1e-3, 0, 1e-3, 4, 7))], op.erf, transcendental),
  ],
  abs: unary(op.abs, apart, arithmetic),
  sign: [...unary(op.sign, apart, flat), row([fixed(exactly(-0, 0, 3))], op.sign, exact)],
  floor: unary(
    op.floor,
    shape => f32(shape, random => random.below(9) - 4 + 0.2 + 0.6 * random.uniform()),
    flat,
  ),
  min: binary(op.min, spaced, shifted, arithmetic),
  max: binary(op.max, spaced, shifted, arithmetic),
  clamp: [
    ...unary(x => op.clamp(x, -0.73, 0.57), spaced, arithmetic),
    row([spaced([4, 5]), within([5], -0.84, -0.81), within([4, 1], 0.51, 0.54)], op.clamp, arithmetic),
  ],
  where: [
    row([mask([3, 5]), wide([3, 5]), wide([3, 5])], op.where, moves),
    row([mask([4, 1]), wide([3]), wide([4, 3])], op.where, { ...arithmetic, value: 0 }),
    row([mask([5]), wide([5])], (c, x) => op.where(c, x, -1.5), moves),
  ],
  eq: compare(op.eq),
  ne: compare(op.ne),
  lt: compare(op.lt),
  le: compare(op.le),
  gt: compare(op.gt),
  ge: compare(op.ge),
  isFinite: [
    row([fixed(exactly(0, -1.5, 3e38, Infinity, -Infinity, Number.NaN))], op.isFinite, exact),
    ...unary(op.isFinite, wide, flat),
  ],
};

const reductions: Record<string, Row[]> = {
  sum: [
    row([wide([3, 4])], x => op.sum(x), accumulated),
    row([wide([2, 3, 4])], x => op.sum(x, 1), accumulated),
    row([wide([2, 3, 4])], x => op.sum(x, [0, -1], { keepDims: true }), accumulated),
    row([wide([4, 3, 2])], x => op.sum(op.permute(x, [2, 0, 1]), [0, 1]), accumulated),
    row([wide([70, 131])], x => op.sum(x, 0), accumulated),
    row([wide([70, 131])], x => op.sum(x, 1), accumulated),
    row([wide([3, 1])], x => op.sum(op.broadcastTo(x, [3, 6]), [1]), accumulated),
    row([wide([3, 0])], x => op.sum(x, 1), { ...accumulated, value: 0 }),
  ],
  mean: [
    row([wide([3, 4])], x => op.mean(x), accumulated),
    row([wide([2, 3, 4])], x => op.mean(x, [0, 2], { keepDims: true }), accumulated),
    row([wide([5, 300])], x => op.mean(x, 1), accumulated),
  ],
  maxOver: [
    row([spaced([3, 4])], x => op.maxOver(x), arithmetic),
    row([spaced([2, 3, 4])], x => op.maxOver(x, [0, 2], { keepDims: true }), arithmetic),
    row([spaced([40, 67])], x => op.maxOver(x, 0), arithmetic),
  ],
  minOver: [
    row([spaced([3, 4])], x => op.minOver(x), arithmetic),
    row([spaced([2, 3, 4])], x => op.minOver(x, 1, { keepDims: true }), arithmetic),
    row([spaced([40, 67])], x => op.minOver(x, 1), arithmetic),
  ],
  variance: [
    row([wide([3, 4])], x => op.variance(x), accumulated),
    row([wide([2, 3, 4])], x => op.variance(x, [1, 2]), accumulated),
    row([within([3, 50], 99, 101)], x => op.variance(x, 1), {
      ...normalised,
      value: 1e-4,
      gradient: 1e-4,
      reason: 'the mean of values near 100 is rounded to 8e-6, which the deviations, near 1, inherit',
    }),
  ],
  argmax: [
    row([spaced([3, 7])], x => op.argmax(x), exact),
    row([spaced([3, 7, 2])], x => op.argmax(x, 1), exact),
    row([spaced([4, 300])], x => op.argmax(x), exact),
    row([fixed(exactly(1, 3, 3, 2))], x => op.argmax(x), exact),
    row([fixed(exactly(1, 3, Number.NaN, Number.NaN, 9))], x => op.argmax(x), exact),
  ].map(r => ({ ...r, inputs: r.inputs.map(fixed) })),
  sumTo: [
    row([wide([2, 3, 4])], x => op.sumTo(x, [3, 1]), accumulated),
    row([wide([2, 3])], x => op.sumTo(x, []), accumulated),
  ],
};

const products: Record<string, Row[]> = {
  matmul: [
    row([wide([3, 4]), wide([4, 5])], op.matmul, accumulated),
    row([wide([2, 3, 4]), wide([2, 4, 2])], op.matmul, accumulated),
    row([wide([2, 1, 3, 4]), wide([3, 4, 2])], op.matmul, accumulated),
    row([wide([3, 4]), wide([2, 4, 2])], op.matmul, accumulated),
    row([wide([2, 3, 4]), wide([4, 5])], op.matmul, accumulated),
    row([wide([4, 3]), wide([5, 4])], (a, b) => op.matmul(op.transpose(a), op.transpose(b)), accumulated),
    row([wide([3, 2, 4]), wide([4, 5])], (a, b) => op.matmul(op.permute(a, [1, 0, 2]), b), accumulated),
    row(
      [wide([3, 9]), wide([6, 5])],
      (a, b) => op.matmul(op.slice(a, 1, 2, 6), op.slice(b, 0, 1, 5)),
      accumulated,
    ),
    row([wide([1, 4]), wide([6, 4, 5])], (a, b) => op.matmul(op.broadcastTo(a, [6, 3, 4]), b), accumulated),
    row([wide([1, 40]), wide([40, 33])], op.matmul, accumulated),
    row([wide([37, 19]), wide([19, 45])], op.matmul, accumulated),
    row([wide([5, 300]), wide([300, 7])], op.matmul, accumulated),
    row([wide([3, 0]), wide([0, 2])], op.matmul, { ...accumulated, value: 0 }),
  ],
  einsum: [
    row([wide([2, 3, 4]), wide([2, 4, 5])], (x, w) => op.einsum('tni,tio->tno', x, w), accumulated),
    row([wide([3, 4])], x => op.einsum('ij->ji', x), moves),
    row([wide([3]), wide([4])], (x, y) => op.einsum('i,j->ji', x, y), accumulated),
    row(
      [wide([2, 3]), wide([3, 4]), wide([4, 2])],
      (x, y, z) => op.einsum('ij,jk,kl->li', x, y, z),
      accumulated,
    ),
    row([wide([2, 3, 4]), wide([4, 2])], (x, y) => op.einsum('bij,jb->b', x, y), accumulated),
    row([positive([5]), positive([5])], (x, y) => op.einsum('i,i->', x, y), accumulated),
  ],
  raggedMatmul: [
    row([wide([6, 3]), wide([4, 3, 2]), ints(0, 2, 2, 5, 6)], op.raggedMatmul, accumulated),
    row([wide([3, 33]), wide([2, 33, 17]), ints(0, 3, 3)], op.raggedMatmul, accumulated),
  ],
  raggedOuter: [
    row([wide([6, 3]), wide([6, 2]), ints(0, 2, 2, 5, 6)], op.raggedOuter, accumulated),
    row([wide([40, 5]), wide([40, 9]), ints(0, 1, 40)], op.raggedOuter, accumulated),
  ],
  conv2d: [
    row([wide([2, 8, 7, 16]), wide([3, 3, 16, 16])], (x, w) => op.conv2d(x, w, { padding: 1 }), winograd),
    row([wide([2, 7, 6, 2]), wide([3, 2, 2, 3])], (x, w) => op.conv2d(x, w, { stride: 2 }), accumulated),
    row(
      [wide([1, 6, 5, 1]), wide([2, 2, 1, 2])],
      (x, w) => op.conv2d(x, w, { stride: [2, 1], padding: 'same' }),
      accumulated,
    ),
    row(
      [wide([3, 2, 5, 5, 2]), wide([3, 3, 3, 2, 3])],
      (x, w) => op.conv2d(x, w, { padding: 1 }),
      accumulated,
    ),
    row([wide([2, 2, 4, 4, 2]), wide([3, 3, 2, 3])], (x, w) => op.conv2d(x, w), accumulated),
    row([wide([2, 1, 4, 4, 2]), wide([2, 1, 1, 2, 5])], (x, w) => op.conv2d(x, w), accumulated),
  ],
  layerNorm: [
    row([wide([3, 6])], x => op.layerNorm(x), normalised),
    row([wide([2, 3, 6]), wide([2, 1, 6]), wide([6])], (x, s, b) => op.layerNorm(x, s, b), normalised),
  ],
  batchNorm: [
    row([wide([6, 3]), wide([3]), wide([3])], (x, s, b) => op.batchNorm(x, s, b), normalised),
    row([wide([2, 3, 4, 4, 2])], x => op.batchNorm(x, 1, 0, { tasks: true }), normalised),
    row(
      [wide([2, 5, 3]), wide([2, 1, 3]), wide([3])],
      (x, s, b) => op.batchNorm(x, s, b, { tasks: true }),
      normalised,
    ),
  ],
  normalise: [
    row([wide([3, 70])], x => op.normalise(x, 1), normalised),
    row([wide([2, 9, 3])], x => op.normalise(op.permute(x, [2, 0, 1]), [0, 2]), normalised),
    row([wide([70, 9])], x => op.normalise(x, 0, 0.5), normalised),
    row([within([40], 99, 101)], x => op.normalise(x, 0), normalised),
  ],
  softmax: [
    row([wide([3, 5])], op.softmax, transcendental),
    row([wide([5, 3])], x => op.softmax(op.transpose(x)), transcendental),
    row([within([4, 300], -8, 8)], op.softmax, {
      ...transcendental,
      value: 1e-5,
      gradient: 2e-5,
      second: 5e-5,
    }),
    row([fixed(exactly(1e4, 1e4 - 1, -1e4))], op.softmax, transcendental),
  ],
  logSoftmax: [
    row([wide([3, 5])], op.logSoftmax, transcendental),
    row([wide([2, 70])], op.logSoftmax, transcendental),
    row([fixed(exactly(1e4, 1e4 - 1, -1e4))], op.logSoftmax, transcendental),
  ],
  crossEntropy: [
    row([wide([4, 5]), below(5, [4])], (x, y) => op.crossEntropy(x, y), transcendental),
    row(
      [wide([2, 3, 4]), below(4, [2, 3])],
      (x, y) => op.crossEntropy(x, y, { smoothing: 0.1 }),
      transcendental,
    ),
  ],
};

/** Weights per task, applied without making them where a plan allows that. */
const full = (...[code, basis, base]: Tensor[]) => new op.FullGenerated(code, basis, base);
const lowRank = (...[a, b, base]: Tensor[]) => new op.LowRankGenerated(a, b, 0.7, base);
const woven = (theta: unknown): Tensor[] => tree.leaves(op.materialise(theta));
const generatedInputs = [wide([2, 3]), wide([3, 4, 5]), wide([4, 5])];
const lowRankInputs = [wide([2, 4, 2]), wide([2, 2, 5]), wide([4, 5])];

const generated: Record<string, Row[]> = {
  linear: [
    row([wide([2, 3, 4]), wide([4, 5]), wide([5])], (x, w, b) => op.linear(x, w, b), accumulated),
    row([wide([2, 3, 4]), wide([2, 4, 5]), wide([2, 5])], (x, w, b) => op.linear(x, w, b), accumulated),
    row(
      [wide([6, 4]), wide([3, 4, 5]), wide([3, 5]), ints(0, 2, 2, 6)],
      (x, w, b, rows) => op.linear(x, w, b, { rows }),
      accumulated,
    ),
    ...(['materialise', 'reorder'] as const).map(strategy =>
      row(
        [wide([2, 3, 4]), ...generatedInputs],
        (x, ...w) => op.linear(x, full(...w), null, { strategy }),
        accumulated,
      ),
    ),
    ...(['materialise', 'lowRank'] as const).map(strategy =>
      row(
        [wide([2, 3, 4]), ...lowRankInputs],
        (x, ...w) => op.linear(x, lowRank(...w), null, { strategy }),
        accumulated,
      ),
    ),
    row(
      [wide([5, 4]), ints(0, 1, 5), ...generatedInputs],
      (x, rows, ...w) => op.linear(x, full(...w), null, { rows, strategy: 'reorder' }),
      accumulated,
    ),
  ],
  vectorFor: [
    row([wide([2, 3, 4]), wide([2, 4])], (x, v) => op.mul(x, op.vectorFor(x, v)), accumulated),
    row(
      [wide([5, 4]), wide([2, 4]), ints(0, 1, 5)],
      (x, v, rows) => op.mul(x, op.vectorFor(x, v, rows)),
      accumulated,
    ),
  ],
  materialise: [
    row(generatedInputs, (...w) => woven(full(...w)), accumulated),
    row(lowRankInputs, (...w) => woven(lowRank(...w)), accumulated),
    row(
      [wide([2, 3, 4]), wide([4, 6]), wide([3, 5])],
      (code, basis, base) => new op.ChunkedGenerated(code, basis, [3, 5], base, 2).materialise(),
      accumulated,
    ),
  ],
  projectFull: [
    row(
      [wide([2, 3]), wide([3, 17]), wide([17])],
      (code, basis, base) => woven(op.projectFull(code, basis, base, [[3, 4], [5]])),
      accumulated,
    ),
  ],
  unpack: [
    row([wide([2, 7])], x => op.unpack(x, [3, 0, 4]), moves),
    row([wide([5, 2])], x => op.unpack(x, [2, 3], 0), moves),
  ],
};

const images: Record<string, Row[]> = {
  maxPool: [
    row([spaced([2, 6, 6, 3])], x => op.maxPool(x, 2), moves),
    row([spaced([1, 5, 7, 2])], x => op.maxPool(x, 3, { stride: 2, padding: 1 }), moves),
    row([spaced([2, 2, 4, 5, 1])], x => op.maxPool(x, [2, 1], { padding: 'same' }), moves),
    row([spaced([2, 4, 2, 6])], x => op.maxPool(op.permute(x, [0, 1, 3, 2]), 2), moves),
  ],
  avgPool: [
    row([wide([2, 6, 6, 3])], x => op.avgPool(x, 2), accumulated),
    row([wide([1, 5, 7, 2])], x => op.avgPool(x, [3, 2], { stride: [2, 1], padding: 1 }), accumulated),
    row([wide([2, 2, 4, 4, 1])], x => op.avgPool(x, 4), accumulated),
  ],
};

const views: Record<string, Row[]> = {
  reshape: [
    row([wide([2, 6])], x => op.reshape(x, [3, -1]), moves),
    row([wide([2, 6])], x => op.reshape(op.transpose(x), [4, 3]), moves),
  ],
  permute: [row([wide([2, 3, 4])], x => op.permute(x, [2, 0, -2]), moves)],
  transpose: [
    row([wide([3, 4])], x => op.transpose(x), moves),
    row([wide([2, 3, 4])], x => op.transpose(x, 0, 2), moves),
  ],
  broadcastTo: [row([wide([3, 1])], x => op.broadcastTo(x, [2, 3, 4]), moves)],
  slice: [
    row([wide([5, 4])], x => op.slice(x, 0, 1, 4), moves),
    row([wide([5, 4])], x => op.slice(x, -1, -3, -1), moves),
  ],
  expand: [row([wide([3, 4])], x => op.expand(x, 1), moves)],
  squeeze: [
    row([wide([1, 3, 1])], x => op.squeeze(x), moves),
    row([wide([1, 3, 1])], x => op.squeeze(x, -1), moves),
  ],
  copy: [
    row([wide([3, 4])], x => op.copy(op.transpose(x)), moves),
    row([wide([2, 1, 70])], x => op.copy(op.broadcastTo(x, [2, 9, 70])), moves),
    row([below(9, [2, 3])], x => op.copy(op.transpose(x)), exact),
  ],
  contiguous: [row([wide([3, 4])], x => op.contiguous(op.transpose(x)), moves)],
  concat: [
    row([wide([2, 3]), wide([4, 3])], (x, y) => op.concat([x, y]), moves),
    row(
      [wide([2, 3]), wide([2, 1]), wide([2, 2])],
      (x, y, z) => op.concat([x, op.transpose(op.transpose(y)), z], -1),
      moves,
    ),
    row([below(9, [2]), below(9, [3])], (x, y) => op.concat([x, y]), exact),
  ],
  stack: [
    row([wide([2, 3]), wide([2, 3])], (x, y) => op.stack([x, y]), moves),
    row([wide([2, 3]), wide([3, 2])], (x, y) => op.stack([x, op.transpose(y)], -1), moves),
  ],
  pad: [
    row([wide([2, 3])], x => op.pad(x, 1, 2, 1), moves),
    row([wide([2, 3])], x => op.pad(op.transpose(x), 0, 0, 2), moves),
  ],
};

const indexing: Record<string, Row[]> = {
  take: [
    row([wide([5, 3]), ints(4, 0, 0, 2)], (x, i) => op.take(x, i), moves),
    row([wide([2, 4, 3]), below(4, [2, 2])], (x, i) => op.take(x, i, 1), moves),
    row([wide([3, 5]), below(5, [70])], (x, i) => op.take(op.transpose(x), i), {
      ...moves,
      gradient: 5e-6,
      second: 1e-5,
    }),
    row([fixed(wide([3])), ints(-1, 1, 3)], (x, i) => op.take(x, i), exact),
  ],
  scatterAdd: [
    row([wide([4, 3]), ints(4, 0, 0, 2)], (x, i) => op.scatterAdd(x, i, 0, [5, 3]), accumulated),
    row([wide([2, 2, 2, 3]), below(4, [2, 2])], (x, i) => op.scatterAdd(x, i, 1, [2, 4, 3]), accumulated),
    row([wide([3]), ints(-1, 1, 3)], (x, i) => op.scatterAdd(x, i, 0, [3]), accumulated),
  ],
  oneHot: [
    row([ints(0, 3, 1)], i => op.oneHot(i, 4), exact),
    row([ints(-1, 4, 2)], i => op.oneHot(i, 4), exact),
    row([below(3, [2, 5])], i => op.oneHot(i, 3), exact),
  ],
  cast: [
    row([fixed(exactly(-2.7, -0.5, 0, 0.9, 2.7, 1e6))], x => op.cast(x, 'i32'), exact),
    row([fixed(exactly(0, 0.9, 2.7, 3e9))], x => op.cast(x, 'u32'), exact),
    row([ints(-3, 0, 7)], x => op.cast(x, 'f32'), exact),
    row([keyWords], x => op.cast(op.cast(x, 'f32'), 'u32'), {
      value: 6e-8,
      reason: 'u32 beyond 2^24 is rounded to f32',
    }),
  ],
};

const random: Record<string, Row[]> = {
  key: [row([], () => op.key(2 ** 40 + 7), exact)],
  split: [row([keyWords], k => op.split(k, 3), exact)],
  foldIn: [row([keyWords], k => op.foldIn(k, 5), exact)],
  uniform: [
    row([keyWords], k => op.uniform(k, [3, 5]), exact),
    row([keyWords], k => op.uniform(k, [3, 5], -1, 3), arithmetic),
  ],
  normal: [
    row([keyWords], k => op.normal(k, [7]), {
      value: 1e-5,
      reason: 'the cosine of an angle up to 2π, rounded to 2e-7, near its zeros',
    }),
  ],
};

const made: Record<string, Row[]> = {
  tensor: [
    row(
      [],
      () =>
        op.tensor([
          [1, 2],
          [3, 4.5],
        ]),
      exact,
    ),
    row([], () => op.tensor(Int32Array.of(1, -2)), exact),
  ],
  full: [row([], () => op.full([2, 3], 1.5), exact)],
  zeros: [row([], () => op.zeros([2, 3]), exact)],
  ones: [row([], () => op.ones([4]), exact)],
  checkpoint: [
    row(
      [wide([3]), wide([3])],
      op.checkpoint((x: Tensor, y: Tensor) => op.sin(op.mul(x, y))),
      transcendental,
    ),
  ],
  customVjp: [
    row(
      [wide([4])],
      op.customVjp(
        (x: Tensor) => op.exp(x),
        (g, _ins, out) => [op.mul(g, out)],
      ),
      transcendental,
    ),
  ],
};

/** Rows of every op, in the order of its kind. */
export const cases: Readonly<Record<string, readonly Row[]>> = {
  ...elementwise,
  ...reductions,
  ...products,
  ...generated,
  ...images,
  ...views,
  ...indexing,
  ...random,
  ...made,
};
