/**
 * What a compiled step costs: operations and bytes of every kernel it runs, added up, per generated weight if asked,
 * and against a machine's roofline (Williams, Waterman, Patterson, CACM 2009).
 */
import type { Command, Expr, View } from '../core/backend.js';
import { ArgumentError } from '../core/errors.js';
import { type Shape, sizeOf } from '../core/shape.js';
import type { Machine } from './rates.js';

/** Operations and compulsory traffic of one kernel, in f32 operations and bytes. */
export interface KernelCost {
  /** What the user called; names of what was fused are joined. */
  readonly op: string;
  readonly kernel: string;
  /** Shape of the first result. */
  readonly shape: Shape;
  readonly flops: number;
  /** Every element that is read, once: a broadcast one is read once, whatever it is spread over. */
  readonly read: number;
  readonly written: number;
}

/** Distinct elements of a view. */
const elements = ({ shape, strides }: View): number =>
  shape.reduce((n, size, i) => (strides[i] === 0 && size > 0 ? n : n * size), 1);
const bytes = (views: readonly View[]): number => views.reduce((sum, view) => sum + 4 * elements(view), 0);

const product = (shape: readonly number[], from: number, to?: number) => sizeOf(shape.slice(from, to));

/** Operations by kernel: a multiply-add is two, any other scalar instruction one. Kernels that only move data have none. */
const OPERATIONS: Readonly<
  Record<string, (outs: readonly View[], ins: readonly View[], attrs: any) => number>
> = {
  matmul: ([y], [a]) => 2 * sizeOf(y.shape) * a.shape[a.shape.length - 1],
  conv2d: ([y], [, w]) => 2 * sizeOf(y.shape) * product(w.shape, 1, 4),
  conv2dInput: (_, [g, w]) => 2 * sizeOf(g.shape) * product(w.shape, 1, 4),
  conv2dFilter: ([dw], [, g]) => 2 * sizeOf(g.shape) * product(dw.shape, 1, 4),
  raggedMatmul: (_, [x, w]) => 2 * sizeOf(x.shape) * w.shape[2],
  raggedOuter: (_, [x, g]) => 2 * sizeOf(x.shape) * g.shape[1],
  generateApply: (_, [code, basis, x]) => 2 * product(basis.shape, 1) * (sizeOf(code.shape) + x.shape[0]),
  // W made again for dx, dW for the others; then one product for each derivative.
  generateGradients: (_, [code, basis, x], { wants }) => {
    const ofCode = (count: number) => count * sizeOf(code.shape);
    const [dx, dw] = [wants.includes('x'), wants.some((slot: string) => slot !== 'x')];
    const products = wants.filter((slot: string) => slot === 'code' || slot === 'basis').length;
    const rows = (Number(dx) + Number(dw)) * x.shape[0];
    return 2 * product(basis.shape, 1) * (ofCode(Number(dx) + products) + rows);
  },
  reduce: (_, [x]) => sizeOf(x.shape),
  argmax: (_, [x]) => sizeOf(x.shape),
  // The maximum, the difference, the exponential, the sum, the quotient (or its logarithm).
  softmax: ([y]) => 5 * sizeOf(y.shape),
  logSoftmax: ([y]) => 5 * sizeOf(y.shape),
  // Of those, all but the quotient; with them, less the target, times the cotangent.
  crossEntropy: (_, [x]) => 4 * sizeOf(x.shape),
  crossEntropyGradient: ([y]) => 7 * sizeOf(y.shape),
  // Sum, difference, square and its sum, scaling.
  normalise: (_, [x]) => 5 * sizeOf(x.shape),
  maxPool: ([y], _ins, { window }) => sizeOf(y.shape) * sizeOf(window),
  sumPool: ([y], _ins, { window }) => sizeOf(y.shape) * sizeOf(window),
  maxPoolScatter: (_, [g]) => sizeOf(g.shape),
  sumPoolSpread: (_, [g], { window }) => sizeOf(g.shape) * sizeOf(window),
  scatterAdd: (_, [x]) => sizeOf(x.shape),
  elementwise: ([y], _ins, { expr }) => (expr as Expr).code.length * sizeOf(y.shape),
};

/** What one command costs. An expression folded into a kernel counts with it. */
export function costOf({ op, kernel, outs, ins, attrs }: Command): KernelCost {
  const { prologue, epilogue } = attrs as { prologue?: Expr; epilogue?: Expr };
  const folded =
    (prologue ? prologue.code.length * sizeOf(ins[0].shape) : 0) +
    (epilogue ? epilogue.code.length * sizeOf(outs[0].shape) : 0);
  const flops = (OPERATIONS[kernel]?.(outs, ins, attrs) ?? 0) + folded;
  return { op, kernel, shape: outs[0].shape, flops, read: bytes(ins), written: bytes(outs) };
}

export interface CostOptions {
  /** Weights the step generates, all tasks together: everything is then also given per weight. */
  readonly weights?: number;
  /** Seconds one call was measured to take. */
  readonly seconds?: number;
  /** Peak operations and bytes per second, measured or assumed. */
  readonly machine?: Pick<Machine, 'flops' | 'bandwidth'>;
}

/** The figures of `costReport`. */
export interface Cost {
  readonly kernels: readonly KernelCost[];
  readonly flops: number;
  readonly read: number;
  readonly written: number;
  /** Operations per byte moved. */
  readonly intensity: number;
  readonly weights?: number;
  /** The same per generated weight. */
  readonly perWeight?: { readonly flops: number; readonly read: number; readonly written: number };
  /** The least time the machine could take: kernel by kernel the longer of operations and bytes. */
  readonly boundSeconds?: number;
  readonly seconds?: number;
  /** Bound over measured: 1 is the machine's limit. */
  readonly roofline?: number;
}

/** Adds up what kernels cost. Throws ArgumentError for a number of weights, seconds or a rate that is not above 0. */
export function addCosts(
  kernels: readonly KernelCost[],
  { weights, seconds, machine }: CostOptions = {},
): Cost {
  for (const [name, x] of Object.entries({ weights, seconds, ...machine }))
    if (x !== undefined && !(x > 0)) throw new ArgumentError(`costReport: ${name} must be above 0, got ${x}`);
  const total = (f: (cost: KernelCost) => number) => kernels.reduce((sum, cost) => sum + f(cost), 0);
  const [flops, read, written] = [total(c => c.flops), total(c => c.read), total(c => c.written)];
  const bound =
    machine && total(c => Math.max(c.flops / machine.flops, (c.read + c.written) / machine.bandwidth));
  return {
    kernels,
    flops,
    read,
    written,
    intensity: flops / Math.max(read + written, 1),
    ...(weights !== undefined && {
      weights,
      perWeight: { flops: flops / weights, read: read / weights, written: written / weights },
    }),
    ...(bound !== undefined && { boundSeconds: bound }),
    ...(seconds !== undefined && { seconds }),
    ...(bound !== undefined && seconds !== undefined && { roofline: bound / seconds }),
  };
}

/** What a step that has been called costs; `stats` of `compile` gives it. */
export interface Costed {
  stats(): readonly { readonly commands: readonly KernelCost[] }[];
}

/**
 * The cost of the latest program of a compiled step: operations, bytes read and written, arithmetic intensity, and with
 * what the options give, all of it per generated weight and against the roofline. Temporaries count as traffic, though
 * caches may hold them. For the backward or double backward pass compile that: `compile(valueAndGrad(f))`.
 * Throws ArgumentError where the step has not been called.
 */
export function costReport(step: Costed, options?: CostOptions): Cost {
  const [latest] = step.stats();
  if (!latest) throw new ArgumentError('costReport: the step has not been called, so nothing of it is known');
  return addCosts(latest.commands, options);
}

const UNITS = ['', 'k', 'M', 'G', 'T', 'P'];
/** `1.23 M`: three digits and a decimal unit. */
function scaled(x: number): string {
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(x, 1)) / 3)));
  return `${Number((x / 1000 ** power).toPrecision(3))} ${UNITS[power]}`;
}

/** The report as text: one line per kind of kernel, the most work first, then the totals. */
export function costText(cost: Cost): string {
  const kinds = new Map<string, Omit<KernelCost, 'kernel' | 'shape'> & { count: number }>();
  for (const { op, kernel, flops, read, written } of cost.kernels) {
    const name = op === kernel ? op : `${op} (${kernel})`;
    const sum = kinds.get(name) ?? { flops: 0, read: 0, written: 0, count: 0 };
    kinds.set(name, {
      op: name,
      flops: sum.flops + flops,
      read: sum.read + read,
      written: sum.written + written,
      count: sum.count + 1,
    });
  }
  const row = (name: string, count: string, flops: number, read: number, written: number) =>
    `${name.padEnd(28)} ${count.padStart(5)} ${`${scaled(flops)}FLOP`.padStart(12)} ${`${scaled(read)}B`.padStart(10)} ${`${scaled(written)}B`.padStart(10)}`;
  const lines = [...kinds.values()]
    .sort((a, b) => b.flops - a.flops || b.read + b.written - a.read - a.written)
    .map(k => row(k.op, `${k.count}`, k.flops, k.read, k.written));
  return [
    `${'kernel'.padEnd(28)} ${'calls'.padStart(5)} ${'work'.padStart(12)} ${'read'.padStart(10)} ${'written'.padStart(10)}`,
    ...lines,
    row('all', `${cost.kernels.length}`, cost.flops, cost.read, cost.written),
    `intensity ${cost.intensity.toPrecision(3)} FLOP/B`,
    ...(cost.perWeight
      ? [
          `per generated weight (of ${scaled(cost.weights!)}): ${cost.perWeight.flops.toPrecision(3)} FLOP, ` +
            `${cost.perWeight.read.toPrecision(3)} B read, ${cost.perWeight.written.toPrecision(3)} B written`,
        ]
      : []),
    ...(cost.boundSeconds !== undefined
      ? [`the machine's bound ${(1e3 * cost.boundSeconds).toPrecision(3)} ms`]
      : []),
    ...(cost.roofline !== undefined
      ? [
          `measured ${(1e3 * cost.seconds!).toPrecision(3)} ms: ${(100 * cost.roofline).toFixed(0)} % of the roofline`,
        ]
      : []),
  ].join('\n');
}

/**
 * A roofline plot as SVG: the machine's ceiling over arithmetic intensity, both axes logarithmic, and one dot per report
 * at the rate it was measured (or bound) to reach. Throws ArgumentError for a report without `boundSeconds`.
 */
export function rooflineSvg(
  reports: readonly { readonly name: string; readonly cost: Cost }[],
  machine: Pick<Machine, 'flops' | 'bandwidth'>,
): string {
  const [width, height, left, bottom] = [640, 420, 70, 50];
  const points = reports.map(({ name, cost }) => {
    const seconds = cost.seconds ?? cost.boundSeconds;
    if (seconds === undefined) throw new ArgumentError(`rooflineSvg: the report of '${name}' has no time`);
    return { name, x: cost.intensity, y: cost.flops / seconds };
  });
  const xs = [...points.map(p => p.x), machine.flops / machine.bandwidth];
  const [x0, x1] = [
    Math.floor(Math.log10(Math.min(...xs))) - 0.2,
    Math.ceil(Math.log10(Math.max(...xs))) + 0.2,
  ];
  const y1 = Math.ceil(Math.log10(machine.flops)) + 0.1;
  const y0 = Math.floor(Math.log10(Math.min(...points.map(p => p.y), machine.bandwidth * 10 ** x0)));
  const X = (x: number) => left + ((Math.log10(x) - x0) / (x1 - x0)) * (width - left - 20);
  const Y = (y: number) => height - bottom - ((Math.log10(y) - y0) / (y1 - y0)) * (height - bottom - 20);
  const quoted = (s: string) => s.replace(/[<>&"]/g, c => `&#${c.charCodeAt(0)};`);
  const powers = (from: number, to: number) =>
    Array.from({ length: Math.floor(to) - Math.ceil(from) + 1 }, (_, i) => 10 ** (Math.ceil(from) + i));
  const ridge = machine.flops / machine.bandwidth;
  const path = [
    [10 ** x0, machine.bandwidth * 10 ** x0],
    [ridge, machine.flops],
    [10 ** x1, machine.flops],
  ].map(([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="Inter, sans-serif" font-size="12">`,
    '<title>Roofline: FLOP per second over FLOP per byte</title>',
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...powers(x0, x1).map(
      x =>
        `<line x1="${X(x)}" y1="20" x2="${X(x)}" y2="${height - bottom}" stroke="#e5e7eb"/>` +
        `<text x="${X(x)}" y="${height - bottom + 18}" text-anchor="middle" fill="#4b5563">${Number(x.toPrecision(3))}</text>`,
    ),
    ...powers(y0, y1).map(
      y =>
        `<line x1="${left}" y1="${Y(y)}" x2="${width - 20}" y2="${Y(y)}" stroke="#e5e7eb"/>` +
        `<text x="${left - 8}" y="${Y(y) + 4}" text-anchor="end" fill="#4b5563">${scaled(y)}</text>`,
    ),
    `<text x="${(left + width) / 2}" y="${height - 12}" text-anchor="middle" fill="#111827">arithmetic intensity, FLOP per byte</text>`,
    `<text x="16" y="${(height - bottom) / 2}" text-anchor="middle" fill="#111827" transform="rotate(-90 16 ${(height - bottom) / 2})">FLOP per second</text>`,
    `<polyline points="${path.join(' ')}" fill="none" stroke="#111827" stroke-width="2"/>`,
    ...points.map(
      ({ name, x, y }) =>
        `<circle cx="${X(x).toFixed(1)}" cy="${Y(y).toFixed(1)}" r="5" fill="#2563eb"/>` +
        `<text x="${(X(x) + 8).toFixed(1)}" y="${(Y(y) + 16).toFixed(1)}" fill="#1f2937">${quoted(name)}</text>`,
    ),
    '</svg>',
    '',
  ].join('\n');
}
