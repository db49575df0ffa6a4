/**
 * Elementwise ops: a table. A row is the meaning (`f`), the WGSL expression (over a, b, c; it may call the functions of
 * shaders/math.wgsl, which are safe where the built-in ones are not) and the derivative. All share the kernel
 * `elementwise`, which runs an expression: one row's instruction when eager, many rows' when a step is compiled.
 */
import type { Expr, Instruction, Scalar, View } from '../core/backend.js';
import { ArgumentError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec, type Pullback } from '../core/op.js';
import { broadcastShapes, broadcastStrides, type Shape, sameShape, show, sizeOf } from '../core/shape.js';
import { full, type Tensor } from '../core/tensor.js';
import { sumTo } from './reduce.js';

/** An operand: a tensor, or a number that becomes an immediate of the kernel. */
export type Value = Tensor | number;

interface Numbers {
  /** One entry per argument: null for a tensor, else the number. */
  readonly numbers: readonly (number | null)[];
}
type Rule = (g: Tensor, args: readonly Value[], out: Tensor) => ((() => Tensor) | null)[];

/** The view of `x` broadcast to `shape`. The op has checked that it broadcasts. */
export function broadcastView(x: View, shape: Shape): View {
  if (sameShape(x.shape, shape)) return x;
  const strides = broadcastStrides(x.shape, x.strides, shape);
  if (!strides) throw new ArgumentError(`${show(x.shape)} does not broadcast to ${show(shape)}`);
  return { ...x, shape, strides };
}

defineOp<{ expr: Expr }>({ name: 'elementwise', ref: evaluate });

/** Runs an expression element by element, rounding every instruction's result to the storage type. */
function evaluate(outs: readonly Dense[], ins: readonly Dense[], { expr }: { expr: Expr }): void {
  const n = sizeOf(outs[0].shape);
  const round = outs[0].data instanceof Float64Array ? (x: number) => x : Math.fround;
  const { inputs, code } = expr;
  const immediates = expr.immediates.map(round);
  const r = new Float64Array(inputs + code.length);
  const read = (a: number) => (a < 0 ? immediates[-1 - a] : r[a]);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < inputs; k++) r[k] = ins[k].data[i];
    for (let k = 0; k < code.length; k++) {
      const { scalar, args } = code[k];
      r[inputs + k] = round(scalar.f(read(args[0]), read(args[1] ?? args[0]), read(args[2] ?? args[0])));
    }
    for (let k = 0; k < outs.length; k++) outs[k].data[i] = read(expr.outs[k]);
  }
}

const scalars = new Map<string, Scalar>();
/** The scalar function of that name; fusion and tests read the table through it. */
export const scalarNamed = (name: string): Scalar | undefined => scalars.get(name);

function row(name: string, f: Scalar['f'], wgsl: string, rule: Rule): (...args: Value[]) => Tensor {
  const scalar: Scalar = { name, arity: f.length, f, wgsl };
  const { arity } = scalar;
  scalars.set(name, scalar);
  const tensorsOnly: Numbers = { numbers: new Array<null>(arity).fill(null) };
  const toKernel = ({ numbers }: Numbers) => ({ expr: single(scalar, numbers) });
  const tensorsOnlyToKernel = toKernel(tensorsOnly);
  const spec: OpSpec<Numbers> = {
    name,
    kernel: 'elementwise',
    outputs: ins => ({
      shape: ins.length === 1 ? ins[0].shape : broadcastShapes(name, ...ins.map(x => x.shape)),
    }),
    operands: (ins, _attrs, [out]) => ins.map(x => broadcastView(x.view, out.shape)),
    kernelAttrs: attrs => (attrs === tensorsOnly ? tensorsOnlyToKernel : toKernel(attrs)),
    vjp: (g, ins, out, { numbers }) => {
      let next = 0;
      const thunks = rule(
        g,
        numbers.map(n => n ?? ins[next++]),
        out,
      );
      const pullback: Pullback = [];
      for (let i = 0; i < arity; i++) {
        if (numbers[i] !== null) continue;
        const thunk = thunks[i];
        const { shape } = ins[pullback.length];
        pullback.push(thunk && (() => sumTo(thunk(), shape)));
      }
      return pullback;
    },
  };
  defineOp(spec);
  return (...args) => {
    if (args.length !== arity)
      throw new ArgumentError(`${name}: takes ${arity} operands, got ${args.length}`);
    let counted = 0;
    for (const a of args) if (typeof a === 'number') counted++;
    if (counted === 0) return apply(spec, args as Tensor[], tensorsOnly)[0];
    if (counted === arity) return full([], f(args[0] as number, args[1] as number, args[2] as number));
    const numbers = args.map(a => (typeof a === 'number' ? a : null));
    return apply(spec, args.filter(a => typeof a !== 'number') as Tensor[], { numbers })[0];
  };
}

function single(scalar: Scalar, numbers: readonly (number | null)[]): Expr {
  const immediates: number[] = [];
  let inputs = 0;
  const args = numbers.map(n => (n === null ? inputs++ : -immediates.push(n)));
  const code: Instruction[] = [{ scalar, args }];
  return { inputs, immediates, code, outs: [inputs] };
}

type Unary = (x: Value) => Tensor;
type Binary = (x: Value, y: Value) => Tensor;
type Ternary = (x: Value, y: Value, z: Value) => Tensor;

/** x + y, broadcast. */
export const add = row(
  'add',
  (a, b) => a + b,
  'a + b',
  g => [() => g, () => g],
) as Binary;
/** x - y, broadcast. */
export const sub = row(
  'sub',
  (a, b) => a - b,
  'a - b',
  g => [() => g, () => neg(g)],
) as Binary;
/** x · y, broadcast. */
export const mul = row(
  'mul',
  (a, b) => a * b,
  'a * b',
  (g, [x, y]) => [() => mul(g, y), () => mul(g, x)],
) as Binary;
/** x / y, broadcast. */
export const div = row(
  'div',
  (a, b) => a / b,
  'a / b',
  (g, [, y], out) => [() => div(g, y), () => neg(mul(g, div(out, y)))],
) as Binary;
/** -x. */
export const neg = row(
  'neg',
  a => -a,
  '-a',
  g => [() => neg(g)],
) as Unary;
/** x to the power y. A negative base is defined for whole y only; the derivative in y needs x > 0. */
export const pow = row(
  'pow',
  (a, b) => a ** b,
  'math_pow(a, b)',
  (g, [x, y], out) => [
    () => (typeof y === 'number' ? mul(g, mul(y, pow(x, y - 1))) : mul(g, mul(y, pow(x, sub(y, 1))))),
    () => mul(g, where(gt(x, 0), mul(out, log(where(gt(x, 0), x, 1))), 0)),
  ],
) as Binary;
/** e to the power x. */
export const exp = row('exp', Math.exp, 'exp(a)', (g, _, out) => [() => mul(g, out)]) as Unary;
/** exp(x) - 1, exact near 0. */
export const expm1 = row('expm1', Math.expm1, 'math_expm1(a)', (g, _, out) => [
  () => mul(g, add(out, 1)),
]) as Unary;
/** Natural logarithm. */
export const log = row('log', Math.log, 'log(a)', (g, [x]) => [() => div(g, x)]) as Unary;
/** log(1 + x), exact near 0. */
export const log1p = row('log1p', Math.log1p, 'math_log1p(a)', (g, [x]) => [
  () => div(g, add(x, 1)),
]) as Unary;
/** Square root. */
export const sqrt = row('sqrt', Math.sqrt, 'sqrt(a)', (g, _, out) => [() => div(mul(g, 0.5), out)]) as Unary;
/** 1 / sqrt(x). */
export const rsqrt = row(
  'rsqrt',
  a => 1 / Math.sqrt(a),
  'inverseSqrt(a)',
  (g, [x], out) => [() => mul(mul(g, -0.5), div(out, x))],
) as Unary;
/** x². */
export const square = row(
  'square',
  a => a * a,
  'a * a',
  (g, [x]) => [() => mul(g, mul(x, 2))],
) as Unary;
/** 1 / x. */
export const recip = row(
  'recip',
  a => 1 / a,
  '1.0 / a',
  (g, _, out) => [() => neg(mul(g, square(out)))],
) as Unary;
/** Hyperbolic tangent. */
export const tanh = row('tanh', Math.tanh, 'math_tanh(a)', (g, _, out) => [
  () => mul(g, sub(1, square(out))),
]) as Unary;
/** 1 / (1 + e^-x). */
export const sigmoid = row('sigmoid', logistic, '1.0 / (1.0 + exp(-a))', (g, _, out) => [
  () => mul(g, mul(out, sub(1, out))),
]) as Unary;
/** max(x, 0); the derivative at 0 is 0. */
export const relu = row(
  'relu',
  a => Math.max(a, 0),
  'max(a, 0.0)',
  (g, _, out) => [() => mul(g, gt(out, 0))],
) as Unary;
/** x for x > 0, slope·x below. */
export const leakyRelu = row(
  'leakyRelu',
  (a, s) => (a > 0 ? a : a * s),
  'select(a * b, a, a > 0.0)',
  (g, [x, s]) => [() => mul(g, where(gt(x, 0), 1, s)), () => mul(g, min(x, 0))],
) as Binary;
/** log(1 + e^x). */
export const softplus = row('softplus', softplusOf, 'max(a, 0.0) + math_log1p(exp(-abs(a)))', (g, [x]) => [
  () => mul(g, sigmoid(x)),
]) as Unary;
/** x · sigmoid(x) (Elfwing et al. 2018; also "swish"). */
export const silu = row(
  'silu',
  a => a * logistic(a),
  'a / (1.0 + exp(-a))',
  (g, [x]) => [
    () => {
      const s = sigmoid(x);
      return mul(g, mul(s, add(1, mul(x, sub(1, s)))));
    },
  ],
) as Unary;
/** Gaussian error linear unit, tanh form (Hendrycks & Gimpel 2016). */
export const gelu = row(
  'gelu',
  geluOf,
  '0.5 * a * (1.0 + math_tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)))',
  (g, [x]) => [
    () => {
      const t = tanh(mul(geluScale, add(x, mul(0.044715, mul(x, square(x))))));
      const slope = mul(geluScale, add(1, mul(3 * 0.044715, square(x))));
      return mul(g, mul(0.5, add(add(1, t), mul(mul(x, sub(1, square(t))), slope))));
    },
  ],
) as Unary;
/** Sine. */
export const sin = row('sin', Math.sin, 'math_sine(a, 0)', (g, [x]) => [() => mul(g, cos(x))]) as Unary;
/** Cosine. */
export const cos = row('cos', Math.cos, 'math_sine(a, 1)', (g, [x]) => [() => neg(mul(g, sin(x)))]) as Unary;
/** Error function. */
export const erf = row('erf', erfOf, 'math_erf(a)', (g, [x]) => [
  () => mul(g, mul(2 / Math.sqrt(Math.PI), exp(neg(square(x))))),
]) as Unary;
/** |x|; the derivative at 0 is 0. */
export const abs = row('abs', Math.abs, 'abs(a)', (g, [x]) => [() => mul(g, sign(x))]) as Unary;
/** -1, 0 or 1; the derivative is 0. */
export const sign = row('sign', Math.sign, 'sign(a)', () => [null]) as Unary;
/** Largest whole number not above x; the derivative is 0. */
export const floor = row('floor', Math.floor, 'floor(a)', () => [null]) as Unary;
/** The smaller one; NaN if either is. Equal operands share the gradient. */
export const min = row('min', Math.min, 'math_min(a, b)', (g, [x, y]) => [
  () => mul(g, add(lt(x, y), mul(0.5, eq(x, y)))),
  () => mul(g, add(lt(y, x), mul(0.5, eq(x, y)))),
]) as Binary;
/** The larger one; NaN if either is. Equal operands share the gradient. */
export const max = row('max', Math.max, 'math_max(a, b)', (g, [x, y]) => [
  () => mul(g, add(gt(x, y), mul(0.5, eq(x, y)))),
  () => mul(g, add(gt(y, x), mul(0.5, eq(x, y)))),
]) as Binary;
/** x limited to [lo, hi]; the derivative in x is 1 inside, bounds included, and 0 outside. */
export const clamp = row(
  'clamp',
  (a, lo, hi) => Math.min(Math.max(a, lo), hi),
  'math_min(math_max(a, b), c)',
  (g, [x, lo, hi]) => [
    () => mul(g, mul(ge(x, lo), le(x, hi))),
    () => mul(g, lt(x, lo)),
    () => mul(g, gt(x, hi)),
  ],
) as Ternary;
/** x where the condition is not 0, else y. */
export const where = row(
  'where',
  (c, a, b) => (c !== 0 ? a : b),
  'select(c, b, a != 0.0)',
  (g, [c]) => [null, () => where(c, g, 0), () => where(c, 0, g)],
) as Ternary;

const compare = (name: string, f: (a: number, b: number) => boolean, wgsl: string) =>
  row(
    name,
    (a, b) => (f(a, b) ? 1 : 0),
    `select(0.0, 1.0, ${wgsl})`,
    () => [null, null],
  ) as Binary;
/** 1 where x = y, else 0. */
export const eq = compare('eq', (a, b) => a === b, 'math_equal(a, b)');
/** 1 where x ≠ y, else 0. */
export const ne = compare('ne', (a, b) => a !== b, '!math_equal(a, b)');
/** 1 where x < y, else 0. */
export const lt = compare('lt', (a, b) => a < b, 'a < b');
/** 1 where x ≤ y, else 0. */
export const le = compare('le', (a, b) => a <= b, 'a <= b');
/** 1 where x > y, else 0. */
export const gt = compare('gt', (a, b) => a > b, 'a > b');
/** 1 where x ≥ y, else 0. */
export const ge = compare('ge', (a, b) => a >= b, 'a >= b');
/** 1 where x is neither NaN nor infinite, else 0. */
const isFiniteOp = row(
  'isFinite',
  a => (Number.isFinite(a) ? 1 : 0),
  'select(0.0, 1.0, math_is_finite(a))',
  () => [null],
) as Unary;

export { isFiniteOp as isFinite };

/** The tensor itself, so that a number may stand where a tensor is needed. */
export const toTensor = (x: Value): Tensor => (typeof x === 'number' ? full([], x) : x);

function logistic(a: number): number {
  return a >= 0 ? 1 / (1 + Math.exp(-a)) : Math.exp(a) / (1 + Math.exp(a));
}
function softplusOf(a: number): number {
  return Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
}
const geluScale = Math.sqrt(2 / Math.PI);
function geluOf(a: number): number {
  return 0.5 * a * (1 + Math.tanh(geluScale * (a + 0.044715 * a * a * a)));
}

/** erf to double precision: its Taylor series for |x| < 3, the continued fraction of erfc beyond. */
function erfOf(x: number): number {
  const a = Math.abs(x);
  if (!(a < 6)) return Number.isNaN(x) ? x : Math.sign(x);
  if (a < 3) {
    let term = x;
    let total = x;
    for (let k = 1; Math.abs(term) > 1e-18 * Math.abs(total); k++) {
      term *= (-x * x) / k;
      total += term / (2 * k + 1);
    }
    return (total * 2) / Math.sqrt(Math.PI);
  }
  let f = 0;
  for (let k = 60; k > 0; k--) f = k / 2 / (a + f);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + f) * Math.sqrt(Math.PI)));
}
