/** Reductions: how many threads and passes an output gets. */
import type { Expr } from '../../core/backend.js';
import { KernelError } from '../../core/errors.js';
import { type Call, integer, type Pass, product, size } from './kernel.js';
import type { Access, Operand, Source } from './source.js';

/** What reductions fold with, as WGSL. */
export const FOLDS: Readonly<Record<string, { combine: string; identity: string }>> = {
  sum: { combine: 'a + b', identity: '0.0' },
  max: { combine: 'math_max(a, b)', identity: '-math_infinity()' },
  min: { combine: 'math_min(a, b)', identity: 'math_infinity()' },
};

interface Shares {
  /** Threads that share an output (a power of two), and threads of a workgroup. */
  readonly lanes: number;
  readonly width: number;
  /** Parts an output is cut into, folded by a second pass. */
  readonly parts: number;
}

/** How `outputs` rows of `length` elements are shared out: a function of the shape alone. */
export function shares(outputs: number, length: number, software: boolean): Shares {
  const width = software ? 64 : 256;
  const threads = software ? 128 : 65536;
  const wanted = Math.min(threads / outputs, length / (software ? 64 : 2), width);
  const lanes = 2 ** Math.max(0, Math.floor(Math.log2(wanted)));
  const most = lanes < width ? 1 : Math.min(threads / (outputs * width), length / (width * 16), 256);
  return { lanes, width, parts: Math.max(1, Math.floor(most)) };
}

/** How the lanes of a row exchange values. The tree, and with it every bit, is the same with subgroups and without. */
export const lanesOf = ({ subgroup }: Call) =>
  subgroup > 0
    ? { bodies: ['lanesSubgroup'], directives: ['enable subgroups'], constants: { SUBGROUP: subgroup } }
    : { bodies: ['lanes'] };

interface Fold {
  readonly fn: string;
  readonly x: Operand;
  /** What is folded, as an expression over operands shaped like x; x itself unless given. */
  readonly prologue?: { readonly expr: Expr; readonly ins: readonly Operand[] };
  /** Axes of x that are kept, and that are folded. */
  readonly groups: readonly [kept: number, folded: number];
  readonly y: Operand;
  readonly store: Access['store'];
}

/** Adds `combine` and `identity`, with `suffix` behind their names. Throws KernelError for another `fn`. */
export function functionsOf(source: Source, fn: string, suffix = ''): void {
  if (!(fn in FOLDS)) throw new KernelError(`reduce: fn must be one of ${Object.keys(FOLDS)}, got '${fn}'`);
  const { combine, identity } = FOLDS[fn];
  source.add(`fn combine${suffix}(a: f32, b: f32) -> f32 { return ${combine}; }
fn identity${suffix}() -> f32 { return ${identity}; }
`);
}

function foldPass(call: Call, { fn, x, prologue, groups, y, store }: Fold, shared: Shares): Pass {
  const lanes = lanesOf(call);
  const outputs = product(x.shape.slice(0, groups[0])) * shared.parts;
  return {
    ...lanes,
    bodies: [...lanes.bodies, 'reduce'],
    constants: { ...lanes.constants, LANES: shared.lanes, WIDTH: shared.width },
    params: { outputs, length: product(x.shape.slice(groups[0])), parts: shared.parts },
    access: [
      ...(prologue?.ins ?? [x]).map((operand, j) => ({ name: prologue ? `x${j}` : 'x', operand, groups })),
      { name: 'y', operand: y, groups: [y.shape.length], store },
    ],
    generate: source => {
      functionsOf(source, fn);
      if (prologue) {
        const { lines, outs } = source.expression(
          prologue.expr,
          prologue.ins.map((_, j) => `load_x${j}(i0, i1)`),
        );
        source.add(`fn load_x(i0: u32, i1: u32) -> f32 {\n${lines}  return ${outs[0]};\n}\n`);
      }
    },
    workgroups: Math.ceil(outputs / (shared.width / shared.lanes)),
  };
}

/** Folds the trailing `attrs.reduced` axes of its input or of `attrs.prologue`, or runs `attrs.epilogue` after it. */
export function reduce(call: Call): Pass[] {
  const [x, ...extras] = call.ins;
  const { prologue: before, epilogue: after } = call.attrs as { prologue?: Expr; epilogue?: Expr };
  const prologue = before && { expr: before, ins: call.ins };
  const store = after ? { expr: after, ins: extras } : 'raw';
  const [y] = call.outs;
  const fn = String(call.attrs.fn);
  const kept = x.shape.length - integer(call, 'reduced');
  const groups = [kept, x.shape.length - kept] as const;
  const outputs = size(y);
  const shared = shares(outputs, product(x.shape.slice(kept)), call.software);
  if (shared.parts === 1) return [foldPass(call, { fn, x, prologue, groups, y, store }, shared)];
  const parts = call.temporary([outputs, shared.parts]);
  return [
    foldPass(call, { fn, x, prologue, groups, y: parts, store: 'raw' }, shared),
    foldPass(call, { fn, x: parts, groups: [1, 1], y, store }, { ...shared, lanes: 1, parts: 1 }),
  ];
}

/** Sums partial results [parts, ...shape of y] into y. */
export function foldParts(
  call: Call,
  partial: Operand,
  parts: number,
  y: Operand,
  store: Access['store'],
): Pass {
  const outputs = size(y);
  const x = { ...partial, shape: [outputs, parts], strides: [1, outputs] };
  const shared = shares(outputs, parts, call.software);
  return foldPass(call, { fn: 'sum', x, groups: [1, 1], y, store }, { ...shared, lanes: 1, parts: 1 });
}
