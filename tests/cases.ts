/**
 * One row list for every op, keyed by the public function's name. Parity with `ref`, finite differences, second
 * derivatives, `selftest` and the coverage test all read it; it is compiled into dist for the command line.
 *
 * Values stay clear of kinks and poles, so that finite differences mean something: `apart` keeps away from zero,
 * `spaced` keeps all elements of an operand (and of operands with other offsets) apart from each other.
 */
import type { Tensor } from '../src/core/tensor.js';
import * as op from '../src/ops/index.js';
import { generated } from './cases/generated.js';
import {
  accumulated,
  apart,
  arithmetic,
  below,
  binary,
  compare,
  exact,
  exactly,
  f32,
  far,
  fixed,
  flat,
  halves,
  ints,
  keyWords,
  mask,
  moves,
  normalised,
  positive,
  type Row,
  row,
  shifted,
  spaced,
  transcendental,
  unary,
  wide,
  winograd,
  within,
} from './cases/rows.js';

export type { Input, Row, Tolerance, Values } from './cases/rows.js';

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
    row(
      [wide([20, 37]), below(20, [37])],
      (x, y) => op.crossEntropy(op.transpose(x), y, { smoothing: 0.2 }),
      transcendental,
    ),
    ...[0, 0.1].flatMap(smoothing => [
      row([wide([3, 70]), ints(69, 70, -1)], (x, y) => op.crossEntropy(x, y, { smoothing }), transcendental),
      row([wide([3, 5]), ints(4, 5, -1)], (x, y) => op.crossEntropy(x, y, { smoothing }), transcendental),
    ]),
    row(
      [wide([70, 3]), below(70, [3])],
      (x, y) => op.crossEntropy(op.transpose(x), y, { smoothing: 0.1 }),
      transcendental,
    ),
    row(
      [fixed(exactly(1e4, 1e4 - 1, -1e4)), ints(1)],
      (x, y) => op.crossEntropy(op.expand(x, 0), y),
      transcendental,
    ),
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
  widen: [
    row([keyWords], x => op.where(op.isFinite(op.widen(x)), op.widen(x), 0), exact),
    row([halves([2, 0])], op.widen, exact),
    row([halves([3, 5])], op.widen, exact),
    row([halves([5, 4])], x => op.widen(op.transpose(x)), exact),
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
