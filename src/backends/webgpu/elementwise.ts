/** Elementwise expressions: one, or several that have nothing to do with each other, in one dispatch. */
import type { Command, Expr } from '../../core/backend.js';
import { type Call, flat, isDense, type Pass, size, streaming } from './kernel.js';
import { MAX_PARAMS, type Operand, type Source } from './source.js';
import { Touched } from './touched.js';

/** The fewest elements for which an expression is worth its text four times over. */
const FOURS_FROM = 4096;

interface Part {
  readonly expr: Expr;
  readonly outs: readonly Operand[];
  readonly ins: readonly Operand[];
}

/** The expressions of a command: `attrs.exprs`, whose operands follow each other, or `attrs.expr`. */
export const exprsOf = (attrs: Call['attrs']): readonly Expr[] =>
  (attrs.exprs as readonly Expr[] | undefined) ?? [attrs.expr as Expr];

/** The expression with its immediates behind `first` others. */
export function shifted(expr: Expr, first: number): Expr {
  const moved = (arg: number) => (arg < 0 ? arg - first : arg);
  const code = expr.code.map(({ scalar, args }) => ({ scalar, args: args.map(moved) }));
  return { ...expr, code, outs: expr.outs.map(moved) };
}

function partsOf({ outs, ins, attrs }: Call): Part[] {
  const next = { out: 0, in: 0, immediate: 0 };
  return exprsOf(attrs).map(expr => {
    const start = { ...next };
    next.out += expr.outs.length;
    next.in += expr.inputs;
    next.immediate += expr.immediates.length;
    return {
      expr: shifted(expr, start.immediate),
      outs: outs.slice(start.out, next.out),
      ins: ins.slice(start.in, next.in),
    };
  });
}

/** One dispatch for all expressions of a command: each has workgroups of its own. */
export function elementwise(call: Call): Pass[] {
  const parts = byFours(partsOf(call), call);
  const counts = parts.map(({ outs }) => size(outs[0]));
  const { perThread, width } = streaming(
    counts.reduce((a, b) => a + b, 0),
    call.software,
  );
  const span = width * perThread;
  const params: Record<string, number> = {};
  let workgroups = 0;
  parts.forEach((_, p) => {
    params[`first${p}`] = workgroups;
    params[`count${p}`] = counts[p];
    workgroups += Math.ceil(counts[p] / span);
  });
  return [
    {
      bodies: ['bundle'],
      constants: { WIDTH: width, SPAN: span },
      params,
      access: parts.flatMap(({ outs, ins }, p) => [
        ...outs.map((y, j) => flat(`y${p}_${j}`, y, 'raw')),
        ...ins.map((x, j) => flat(`x${p}_${j}`, x)),
      ]),
      generate: source => {
        parts.forEach((part, p) => {
          evaluator(source, part, p);
        });
        // A workgroup before or after a part's own starts beyond its count; before it, by wrapping around.
        const loops = parts.map(
          (_, p) => `  let start${p} = (group - params.first${p}) * SPAN;
  let end${p} = min(start${p} + SPAN, params.count${p});
  for (var i = start${p} + lane; i < end${p}; i += WIDTH) { evaluate${p}(i); }
`,
        );
        source.add(`fn run(group: u32, lane: u32) {\n${loops.join('')}}\n`);
      },
      workgroups,
    },
  ];
}

/** Adds `evaluate<p>(<indices>)`: loads, the expression for each component, stores. */
export function evaluator(
  source: Source,
  { expr, outs, ins }: Part,
  p: number | string,
  indices: readonly string[] = ['i'],
): void {
  const at = indices.join(', ');
  const components = outs[0].fours ? ['.x', '.y', '.z', '.w'] : [''];
  const type = outs[0].fours ? 'vec4<f32>' : 'f32';
  const loads = ins.map((_, j) => `  let in${j} = load_x${p}_${j}(${at});\n`);
  const results = outs.map((_, j) => `  var out${j}: ${type};\n`);
  const bodies = components.map(component => {
    const { lines, outs: values } = source.expression(
      expr,
      ins.map((x, j) => `in${j}${x.fours ? component : ''}`),
    );
    const assigned = values.map((value, j) => `  out${j}${component} = ${value};\n`);
    return `  {\n${lines}${assigned.join('')}  }\n`;
  });
  const stores = outs.map((_, j) => `  store_y${p}_${j}(${at}, out${j});\n`);
  const list = indices.map(index => `${index}: u32`).join(', ');
  source.add(`fn evaluate${p}(${list}) {\n${[...loads, ...results, ...bodies, ...stores].join('')}}\n`);
}

const isSingle = (x: Operand): boolean => x.shape.every((n, axis) => n === 1 || x.strides[axis] === 0);
const fours = (x: Operand): Operand =>
  isSingle(x) ? x : { ...x, shape: [size(x) / 4], strides: [1], fours: true };

/** Parts with their operands bound by fours where all of them can be: loads are what software adapters take long for. */
function byFours(parts: readonly Part[], { software, mixed }: Call): readonly Part[] {
  const fit = parts.map(({ outs, ins }) => {
    const operands = [...outs, ...ins];
    return (
      size(outs[0]) >= FOURS_FROM &&
      operands.every(
        x => x.dtype === 'f32' && (isSingle(x) || (isDense(x) && x.aligned && size(x) % 4 === 0)),
      )
    );
  });
  const bound = parts.map((part, p) =>
    fit[p] ? { ...part, outs: part.outs.map(fours), ins: part.ins.map(fours) } : part,
  );
  const operands = bound.flatMap(({ outs, ins }) => [...outs, ...ins]);
  const quads = new Set(operands.filter(x => x.fours).map(x => x.slot));
  const clash = operands.some(x => !x.fours && quads.has(x.slot));
  return software && (mixed || !clash) ? bound : parts;
}

/**
 * Joins neighbouring elementwise commands where none writes a buffer that another one uses. `buffersOf` names the
 * buffers of a command's outputs, then of its inputs.
 */
export function bundle(
  commands: readonly Command[],
  buffersOf: (command: Command) => readonly object[],
  maxBindings: number,
): Command[] {
  const out: Command[] = [];
  let touched = new Touched();
  let words = 0;
  for (const command of commands) {
    const last = out.at(-1);
    const buffers = buffersOf(command);
    const cost = command.kernel === 'elementwise' ? wordsOf(command, exprsOf(command.attrs)) + 3 : 0;
    const joins =
      last?.kernel === 'elementwise' &&
      command.kernel === 'elementwise' &&
      words + cost <= MAX_PARAMS &&
      !touched.conflicts(buffers, command.outs.length) &&
      touched.countWith(buffers) <= maxBindings;
    if (joins) {
      out[out.length - 1] = {
        kernel: 'elementwise',
        op: `${last.op}, ${command.op}`,
        outs: [...last.outs, ...command.outs],
        ins: [...last.ins, ...command.ins],
        attrs: { exprs: [...exprsOf(last.attrs), ...exprsOf(command.attrs)] },
      };
    } else {
      out.push(command);
      touched = new Touched();
      words = 0;
    }
    touched.add(buffers, command.outs.length);
    words += cost;
  }
  return out;
}

/** The most words of the parameter block that a command's views and expressions take. */
export function wordsOf({ outs, ins }: Command, exprs: readonly Expr[]): number {
  const views = [...outs, ...ins].reduce((n, { shape }) => n + shape.length + 1, 0);
  return views + exprs.reduce((n, { immediates }) => n + immediates.length, 0);
}
