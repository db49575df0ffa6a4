/** Kernels of weights that are generated and applied in one command: W lives in the threads' registers only. */
import { byAxis, type Call, type Pass, perElement, size } from './kernel.js';
import type { Access, Operand, Source } from './source.js';

/** Values of W a thread holds for its tasks, times the rows it applies them to at once. */
const REGISTERS = 32;

interface Operands {
  readonly code: Operand;
  readonly basis: Operand;
  readonly x: Operand;
  readonly base: Operand | null;
  readonly offsets: Operand | null;
  /** The row, of those that offsets count, where x starts. */
  readonly first: unknown;
}

const operandsOf = ({ ins, attrs }: Call, fixed: number): Operands => ({
  code: ins[0],
  basis: ins[1],
  x: ins[2],
  base: attrs.base ? ins[fixed] : null,
  offsets: attrs.ragged ? ins[ins.length - 1] : null,
  first: attrs.first ?? 0,
});

/** The functions `start_of` (of a task's rows) and, where asked for, `base`. */
function rowsAndBase({ base, offsets, first }: Operands, perTask: number) {
  return (source: Source): void => {
    if (offsets) source.load('offset', offsets, [1]);
    const start = offsets ? `load_offset(t) - ${first}` : `i32(t * ${perTask}u)`;
    source.add(`fn start_of(t: u32) -> i32 { return ${start}; }\n`);
    if (base) source.load('base', base, [1, 1]);
    source.add(`fn base(k: u32, column: u32) -> f32 { return ${base ? 'load_base(k, column)' : '0.0'}; }\n`);
  };
}

/** Tasks and rows a thread works on: every task's rows at once if they are few. */
function sharing({ code, x }: Operands): { TASKS: number; ROWS: number } {
  const perTask = Math.max(1, Math.ceil(x.shape[0] / Math.max(code.shape[0], 1)));
  let rows = 1;
  while (rows < perTask && rows < REGISTERS) rows *= 2;
  return { TASKS: Math.max(1, Math.min(8, REGISTERS / rows)), ROWS: rows };
}

function sizesOf({ code, basis, x }: Operands): Record<string, number> {
  const [tasks, width] = code.shape;
  const [, depth, columns] = basis.shape;
  return { tasks, width, depth, columns, rows: x.shape[0] };
}

const perTaskOf = ({ code, x }: Operands): number =>
  code.shape[0] === 0 ? 0 : Math.floor(x.shape[0] / code.shape[0]);

function applied(o: Operands, y: Operand): Pass {
  const params = sizesOf(o);
  const shared = sharing(o);
  return perElement(Math.ceil(params.tasks / shared.TASKS) * params.columns, {
    bodies: ['generateRows', 'generateApply'],
    constants: shared,
    params,
    access: [byAxis('code', o.code), byAxis('basis', o.basis), byAxis('x', o.x), byAxis('y', y, 'raw')],
    generate: rowsAndBase(o, perTaskOf(o)),
  });
}

/** y = x · (code · basis + base), of each task's rows. */
export const generateApply = (call: Call): Pass[] => [applied(operandsOf(call, 3), call.outs[0])];

const transposed = (x: Operand): Operand => {
  const swap = ([...axes]: readonly number[]) =>
    axes.slice(0, -2).concat(axes[axes.length - 1], axes[axes.length - 2]);
  return { ...x, shape: swap(x.shape), strides: swap(x.strides) };
};

/** The derivatives that `attrs.wants` names: each a pass that makes what it needs of W, or of its gradient, anew. */
export function generateGradients(call: Call): Pass[] {
  const o = operandsOf(call, 4);
  const g = call.ins[3];
  const params = sizesOf(o);
  const access = (more: Access[], y: Operand): Access[] => [
    ...more,
    byAxis('x', o.x),
    byAxis('g', g),
    byAxis('y', y, 'raw'),
  ];
  const generate = rowsAndBase({ ...o, base: null }, perTaskOf(o));
  const passes: Record<string, (y: Operand) => Pass> = {
    code: y => {
      const WIDTH = 64;
      const TASKS = 4;
      const groups = Math.ceil(params.width / WIDTH);
      return {
        bodies: ['generateRows', 'generateCode'],
        constants: { WIDTH, TASKS },
        params: { ...params, groups },
        access: access([byAxis('basis', o.basis)], y),
        generate,
        workgroups: groups * Math.ceil(params.tasks / TASKS),
      };
    },
    basis: y => {
      const CODES = Math.min(16, params.width);
      return perElement(params.depth * params.columns * Math.ceil(params.width / CODES), {
        bodies: ['generateRows', 'generateBasis'],
        constants: { CODES },
        params,
        access: access([byAxis('code', o.code)], y),
        generate,
      });
    },
    x: y => {
      const base = o.base && transposed(o.base);
      return applied({ ...o, basis: transposed(o.basis), x: g, base }, y);
    },
    base: y =>
      perElement(params.depth * params.columns, {
        bodies: ['generateRows', 'generateBasis'],
        constants: { CODES: 1 },
        params: { ...params, width: 1 },
        access: access([], { ...y, shape: [1, ...y.shape], strides: [0, ...y.strides] }),
        generate: source => {
          generate(source);
          source.add('fn load_code(t: u32, e: u32) -> f32 { return 1.0; }\n');
        },
      }),
  };
  const wants = call.attrs.wants as readonly string[];
  return wants.flatMap((slot, k) => (size(call.outs[k]) > 0 ? [passes[slot](call.outs[k])] : []));
}
