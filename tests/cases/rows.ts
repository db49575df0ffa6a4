/** What the rows of the case tables are written in: operands, bounds and shorthand. */
import type { TypedArray } from '../../src/core/backend.js';
import { type Shape, sizeOf } from '../../src/core/shape.js';
import type { Tensor } from '../../src/core/tensor.js';
import type { Stream } from '../../src/data/stream.js';
import * as op from '../../src/ops/index.js';

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

export const f32 = (shape: Shape, draw: (random: Stream, i: number) => number): Input => {
  return random => ({
    shape,
    values: Float32Array.from({ length: sizeOf(shape) }, (_, i) => draw(random, i)),
  });
};
/** Uniform on [lo, hi). */
export const within = (shape: Shape, lo = -2, hi = 2) =>
  f32(shape, random => lo + (hi - lo) * random.uniform());
/** Of either sign, and at least `least` away from zero. */
export const apart = (shape: Shape, least = 0.2, most = 2) =>
  f32(shape, random => (random.below(2) ? 1 : -1) * (least + (most - least) * random.uniform()));
/** Multiples of 0.1 in random order, centred, plus `offset`: no two of them nearer than 0.1. */
export const spaced =
  (shape: Shape, offset = 0): Input =>
  random => {
    const n = sizeOf(shape);
    const order = random.shuffle(Array.from({ length: n }, (_, i) => (i - Math.floor(n / 2)) * 0.1 + offset));
    return { shape, values: Float32Array.from(order) };
  };
export const exactly = (...values: number[]): Input => {
  return () => ({ shape: [values.length], values: Float32Array.from(values) });
};
export const fixed =
  (input: Input): Input =>
  random => ({ ...input(random), fixed: true });
/** Zeros and ones. */
export const mask = (shape: Shape) => fixed(f32(shape, random => random.below(2)));
/** Whole numbers below `n`. */
export const below =
  (n: number, shape: Shape): Input =>
  random => ({ shape, values: Int32Array.from({ length: sizeOf(shape) }, () => random.below(n)) });
export const ints = (...values: number[]): Input => {
  return () => ({ shape: [values.length], values: Int32Array.from(values) });
};
export const keyWords: Input = random => ({ shape: [2], values: Uint32Array.of(random.u32(), random.u32()) });

/** Pairs of halves that are numbers, the smallest among them. */
export const halves =
  (shape: Shape): Input =>
  random => ({
    shape,
    values: Uint32Array.from({ length: sizeOf(shape) }, (_, i) =>
      i === 0 ? 0x80010001 : (random.u32() & 0xbbffbbff) >>> 0,
    ),
  });

export const moves: Tolerance = {
  value: 0,
  gradient: 2e-6,
  second: 2e-6,
  reason: 'values are moved, not one bit may change; derivatives add and multiply in f32',
};
export const exact: Tolerance = {
  value: 0,
  reason: 'whole numbers, comparisons or bits: nothing is rounded',
};
export const flat: Tolerance = {
  value: 0,
  gradient: 0,
  second: 0,
  reason: 'piecewise constant, so its derivatives are zeros',
};
export const arithmetic: Tolerance = {
  value: 5e-7,
  gradient: 2e-6,
  second: 4e-6,
  reason: 'one rounding of f32 per operation (6e-8); WGSL allows 2.5 units for a division',
};
export const transcendental: Tolerance = {
  value: 5e-6,
  gradient: 1e-5,
  second: 2e-5,
  reason: 'WGSL allows several units for exp, log and pow; drivers are far better',
};
export const accumulated: Tolerance = {
  value: 3e-6,
  gradient: 5e-6,
  second: 1e-5,
  reason:
    'f32 sums in another order than the oracle, with cancellation; conv2d in tiles rounds twice as much',
};
export const winograd = {
  ...accumulated,
  value: 6e-6,
  gradient: 1e-5,
  reason: 'tiles round twice as much as sums',
};
export const normalised: Tolerance = {
  value: 1e-5,
  gradient: 1e-4,
  second: 2e-4,
  reason: 'differences from a mean and quotients of sums cancel digits of f32',
};

export const row = (inputs: readonly Input[], call: Row['call'], tolerance: Tolerance): Row => ({
  inputs,
  call,
  tolerance,
});
/** An elementwise function of one operand: small, on a strided view, and larger than one workgroup. */
export const unary = (
  call: (x: Tensor) => Tensor,
  input: (shape: Shape) => Input,
  tolerance: Tolerance,
): Row[] => [
  row([input([3, 5])], call, tolerance),
  row([input([4, 3])], x => call(op.slice(op.transpose(x), 1, 1)), tolerance),
  row([input([9, 131])], call, tolerance),
];
/** Of two operands: equal shapes, broadcast both ways, and with a number on either side. */
export const binary = (
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
export const compare = (call: (x: op.Value, y: op.Value) => Tensor): Row[] => [
  ...binary(call, spaced, shape => spaced(shape, 0.05), flat),
  row([exactly(1, 2, 3, -0, 0), exactly(2, 2, 2, 0, 1)].map(fixed), call, exact),
  row([exactly(Number.NaN, 1, Infinity), exactly(Number.NaN, Number.NaN, Infinity)].map(fixed), call, exact),
];
export const wide = (shape: Shape) => within(shape);
export const positive = (shape: Shape) => within(shape, 0.3, 3);
export const shifted = (shape: Shape) => spaced(shape, 0.05);
/** Angles of many turns; from 2^15 on, only whole-number arithmetic finds what is left of them. */
export const far = fixed(exactly(-801.5, 29999.3, -32767.99, 32768, -1e5, 123456784, 1e10, 3e20, -3e38));
