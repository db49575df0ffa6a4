/**
 * Weights generated and applied in one op: W[t] = Σ_e code[t,e] · basis[e] + base, y = x · W[t], without W. What it
 * computes is linear in each operand, so its derivatives in all of them are `generateApply` and `generateGradients`
 * again, to any order.
 *
 * Rows are `[N,i]`, N/T of each task, or those between `offsets` (i32 `[T+1]`, from 0 to N).
 */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { add } from './elementwise.js';
import { matmul } from './matmul.js';
import { transpose } from './views.js';

/** What y depends on. */
export interface GenerateOperands {
  /** [T,E]. */
  readonly code: Tensor;
  /** [E,i,o]. */
  readonly basis: Tensor;
  /** [N,i]. */
  readonly x: Tensor;
  /** [i,o], which all tasks share. */
  readonly base?: Tensor | null;
  /** i32 [T+1]; without them every task has as many rows. */
  readonly offsets?: Tensor | null;
}

const slots = ['code', 'basis', 'x', 'base'] as const;
/** An operand with a derivative. */
export type GenerateSlot = (typeof slots)[number];

/** Which of the optional inputs stand behind the others, and the derivatives wanted, in the order of `slots`. */
interface GenerateAttrs {
  readonly base: boolean;
  readonly ragged: boolean;
  readonly wants: readonly GenerateSlot[];
}
const attrsOf = (
  { base, offsets }: GenerateOperands,
  wants: readonly GenerateSlot[] = [],
): GenerateAttrs => ({
  base: Boolean(base),
  ragged: Boolean(offsets),
  wants,
});
const optional = ({ base, offsets }: GenerateOperands): Tensor[] => [base, offsets].filter(x => x != null);

const inputNames = (fixed: readonly string[], { base, ragged }: GenerateAttrs): string[] => [
  ...fixed,
  ...(base ? ['base'] : []),
  ...(ragged ? ['offsets'] : []),
];

/** Inputs after the first `fixed` by name. */
const tail = <T>(ins: readonly T[], fixed: number, { base, ragged }: GenerateAttrs) => ({
  base: base ? ins[fixed] : null,
  offsets: ragged ? ins[ins.length - 1] : null,
});

function check(op: string, { code, basis, x, base, offsets }: GenerateOperands): void {
  const [T, E] = code.shape;
  const [, i, o] = basis.shape;
  if (code.rank !== 2 || basis.rank !== 3 || basis.shape[0] !== E || x.rank !== 2 || x.shape[1] !== i)
    throw new ShapeError(
      `${op}: code ${show(code.shape)}, basis ${show(basis.shape)} and x ${show(x.shape)} must be [T,E], [E,i,o] and [N,i]`,
    );
  if (base && (base.rank !== 2 || base.shape[0] !== i || base.shape[1] !== o))
    throw new ShapeError(`${op}: the base must be ${show([i, o])}, got ${show(base.shape)}`);
  if (
    offsets ? offsets.rank !== 1 || offsets.shape[0] !== T + 1 : T === 0 ? x.shape[0] > 0 : x.shape[0] % T > 0
  )
    throw new ShapeError(
      offsets
        ? `${op}: offsets ${show(offsets.shape)} must be [${T + 1}] for ${T} tasks`
        : `${op}: ${x.shape[0]} rows are not as many for each of ${T} tasks; give offsets`,
    );
}

/** Calls `visit(task, from, to)` with each task's rows. */
function eachTask(
  T: number,
  N: number,
  offsets: Dense | null,
  visit: (t: number, from: number, to: number) => void,
) {
  const at = (t: number) => (offsets ? Math.min(Math.max(offsets.data[t], 0), N) : (t * N) / T);
  for (let t = 0; t < T; t++) visit(t, at(t), at(t + 1));
}

/** One task's weight, `[i,o]` flat. */
function weave(code: Dense, basis: Dense, base: Dense | null, t: number, w: Float64Array): void {
  const E = code.shape[1];
  for (let p = 0; p < w.length; p++) {
    let total = base ? base.data[p] : 0;
    for (let e = 0; e < E; e++) total += code.data[t * E + e] * basis.data[e * w.length + p];
    w[p] = total;
  }
}

const applySpec: OpSpec<GenerateAttrs> = {
  name: 'generateApply',
  dtypes: ['f32', 'f32', 'f32', null],
  outputs: ([code, basis, x, ...rest], attrs) => {
    check('generateApply', { code, basis, x, ...tail([code, basis, x, ...rest], 3, attrs) });
    return { shape: [x.shape[0], basis.shape[2]] };
  },
  ref: ([y]: readonly Dense[], ins: readonly Dense[], attrs: GenerateAttrs) => {
    const [code, basis, x] = ins;
    const { base, offsets } = tail(ins, 3, attrs);
    const [, I, O] = basis.shape;
    const w = new Float64Array(I * O);
    y.data.fill(0);
    eachTask(code.shape[0], x.shape[0], offsets, (t, from, to) => {
      if (from < to) weave(code, basis, base, t, w);
      for (let r = from; r < to; r++)
        for (let o = 0; o < O; o++) {
          let total = 0;
          for (let i = 0; i < I; i++) total += x.data[r * I + i] * w[i * O + o];
          y.data[r * O + o] = total;
        }
    });
  },
  vjp: (g, ins, _out, attrs) => {
    const [code, basis, x] = ins;
    const of = attrs.base ? slots : slots.slice(0, 3);
    const gradient = together({ code, basis, x, ...tail(ins, 3, attrs) }, g, of);
    return inputNames(['code', 'basis', 'x'], attrs).map((_, k) => (of[k] ? () => gradient(of[k]) : null));
  },
};

const shapeOf = (slot: GenerateSlot, [code, basis, x]: readonly { readonly shape: Shape }[]): Shape =>
  slot === 'base' ? basis.shape.slice(1) : { code, basis, x }[slot].shape;

const gradientsSpec: OpSpec<GenerateAttrs> = {
  name: 'generateGradients',
  dtypes: ['f32', 'f32', 'f32', 'f32', null],
  outputs: (ins, attrs) => {
    const [code, basis, x, g] = ins;
    check('generateGradients', { code, basis, x, ...tail(ins, 4, attrs) });
    if (g.rank !== 2 || g.shape[0] !== x.shape[0] || g.shape[1] !== basis.shape[2])
      throw new ShapeError(
        `generateGradients: g must be ${show([x.shape[0], basis.shape[2]])}, got ${show(g.shape)}`,
      );
    return attrs.wants.map(slot => ({ shape: shapeOf(slot, ins) }));
  },
  ref: (outs: readonly Dense[], ins: readonly Dense[], attrs: GenerateAttrs) => {
    const [code, basis, x, g] = ins;
    const { base, offsets } = tail(ins, 4, attrs);
    const [E, I, O] = basis.shape;
    const sums = attrs.wants.map((_, k) => new Float64Array(outs[k].data.length));
    const sumOf = (slot: GenerateSlot): Float64Array | undefined => sums[attrs.wants.indexOf(slot)];
    const [dCode, dBasis, dX, dBase] = slots.map(sumOf);
    const [w, dw] = [new Float64Array(I * O), new Float64Array(I * O)];
    eachTask(code.shape[0], x.shape[0], offsets, (t, from, to) => {
      if (from >= to) return;
      if (dX) weave(code, basis, base, t, w);
      dw.fill(0);
      for (let r = from; r < to; r++)
        for (let i = 0; i < I; i++)
          for (let o = 0; o < O; o++) {
            dw[i * O + o] += x.data[r * I + i] * g.data[r * O + o];
            if (dX) dX[r * I + i] += w[i * O + o] * g.data[r * O + o];
          }
      for (let p = 0; p < I * O; p++) {
        if (dBase) dBase[p] += dw[p];
        for (let e = 0; e < E; e++) {
          if (dCode) dCode[t * E + e] += dw[p] * basis.data[e * I * O + p];
          if (dBasis) dBasis[e * I * O + p] += dw[p] * code.data[t * E + e];
        }
      }
    });
    for (const [k, out] of outs.entries()) out.data.set(sums[k]);
  },
  // With F = Σ x · (code · basis + base) · g, an out's cotangent takes the place of what the out is the gradient of.
  vjp: (_g, ins, _out, attrs, { gs }) => {
    const [code, basis, x, g] = ins;
    const whole = { code, basis, x, ...tail(ins, 4, attrs) };
    const shares = new Map<string, (() => Tensor)[]>();
    const share = (name: string, f: () => Tensor) => shares.set(name, [...(shares.get(name) ?? []), f]);
    const term = (operands: GenerateOperands, of: readonly GenerateSlot[]) => {
      const gradient = together(operands, g, of, whole);
      for (const slot of of) share(slot, () => gradient(slot));
      share('g', () => generateApply(operands));
    };
    const given = Object.fromEntries(attrs.wants.map((slot, k) => [slot, gs[k]]));
    if (given.code) term({ ...whole, code: given.code, base: null }, ['basis', 'x']);
    if (given.basis) term({ ...whole, basis: given.basis, base: given.base }, ['code', 'x']);
    if (given.x) term({ ...whole, x: given.x }, attrs.base ? ['code', 'basis', 'base'] : ['code', 'basis']);
    if (given.base && !given.basis) {
      share('x', () => matmul(g, transpose(given.base!)));
      share('g', () => matmul(x, given.base!));
    }
    return inputNames(['code', 'basis', 'x', 'g'], attrs).map(name => {
      const parts = shares.get(name);
      return parts ? () => parts.map(f => f()).reduce((a, b) => add(a, b)) : null;
    });
  },
};
defineOp(applySpec);
defineOp(gradientsSpec);

/**
 * Derivatives by name. The first that is asked for brings, in the same op, those in `of` whose operand in `live` an open
 * gradient reaches; where none tells (a pullback called later), all of them.
 */
function together(
  operands: GenerateOperands,
  g: Tensor,
  of: readonly GenerateSlot[],
  live: GenerateOperands = operands,
): (slot: GenerateSlot) => Tensor {
  const made: Partial<Record<GenerateSlot, Tensor>> = {};
  const reached = of.filter(slot => live[slot]!.deps !== 0);
  return slot => {
    if (!made[slot]) {
      const more = (reached.length > 0 ? reached : of).filter(other => other !== slot && !made[other]);
      Object.assign(made, generateGradients(operands, g, [slot, ...more]));
    }
    return made[slot]!;
  };
}

/**
 * y[r] = x[r] · W[t] for each row r of task t, W[t] = Σ_e code[t,e] · basis[e] + base: code `[T,E]`, basis `[E,i,o]`,
 * x `[N,i]`, base `[i,o]` -> `[N,o]`. Throws ShapeError.
 */
export function generateApply(operands: GenerateOperands): Tensor {
  const { code, basis, x } = operands;
  return apply(applySpec, [code, basis, x, ...optional(operands)], attrsOf(operands))[0];
}

/**
 * Derivatives of Σ g · y, y as of `generateApply`, with respect to the operands in `wants`, all by one pass over the
 * weights: g `[N,o]`. Throws ShapeError.
 */
export function generateGradients(
  operands: GenerateOperands,
  g: Tensor,
  wants: readonly GenerateSlot[] = operands.base ? slots : slots.slice(0, 3),
): Partial<Record<GenerateSlot, Tensor>> {
  const { code, basis, x } = operands;
  const ordered = slots.filter(slot => wants.includes(slot));
  const outs = apply(gradientsSpec, [code, basis, x, g, ...optional(operands)], attrsOf(operands, ordered));
  return Object.fromEntries(ordered.map((slot, k) => [slot, outs[k]]));
}
