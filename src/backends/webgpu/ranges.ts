/**
 * Commands whose operands are larger than a binding may be, as commands over ranges of them that are not: rows, tasks,
 * elements, and parts of a sum that are then added up. Each range binds its buffers from where it starts. Browsers do
 * not bundle this module.
 */
import type { Attrs, Command, Expr, View } from '../../core/backend.js';
import { DeviceLimitError } from '../../core/errors.js';
import type { Parts } from './backend.js';
import type { Device } from './device.js';
import { denseStrides, integer, type Lowering, product } from './kernel.js';
import { raggedMatmul, take } from './launch.js';
import type { Block, Pool } from './memory.js';
import { checkAliases, operandsOf } from './recipes.js';
import { tierShaders } from './shaders.gen.js';

/**
 * Runs a command whose operands lie in `buffers`, `offsets` elements from where they are bound. `regions` tell by identity
 * what of a buffer is one storage's alone.
 */
export type Run<B> = (
  command: Command,
  buffers: readonly B[],
  offsets: readonly number[],
  regions: readonly object[],
) => void;

/** A buffer from byte `start` on. */
export interface Window<B> {
  readonly of: B;
  readonly start: number;
}

/** What ranges need to know of their device, and of its buffers. */
interface Binder<B> {
  readonly device: Device;
  /** A buffer as it is bound from byte `start` on. */
  window(buffer: B, start: number): B;
  /** A buffer that lives as long as the command. */
  temporary(bytes: number): B;
}

interface Operand<B> {
  /** Its offset is not used: `offset` is the one. Of its storage only the type is. */
  readonly view: View;
  readonly buffer: B;
  readonly region: object;
  readonly offset: number;
}

interface Part<B> {
  readonly kernel: string;
  readonly attrs: Attrs;
  readonly outs: readonly Operand<B>[];
  readonly ins: readonly Operand<B>[];
}

/** The axis of an operand that is cut, how many of its places belong to one of the cut's, and how many more each range has. */
type Axis = readonly [axis: number, scale?: number, more?: number] | null;

/** One way to cut a command. */
interface Cut {
  /** Of outs, then ins. */
  readonly axes: readonly Axis[];
  /** True if the ranges' results are to be added up. */
  readonly sum?: boolean;
  /** What the kernel must know of its range; and which one it is then. */
  readonly attrs?: (first: number) => Attrs;
  readonly kernel?: string;
  /** Ranges have an even number of places. */
  readonly even?: boolean;
}

/** Bytes of which the start of a binding is a multiple on every device. */
const ALIGN = 256;

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Axis `i` of every operand, for the first `n` axes. */
const leading = (n: number, operands: number): Cut[] =>
  upTo(n).map(i => ({ axes: upTo(operands).map(() => [i]) }));

const rank = ({ view }: { readonly view: View }): number => view.shape.length;

/** Axes that every operand has, for each kernel that treats them all alike. */
const SHARED: Readonly<Record<string, (part: Part<unknown>) => number>> = {
  elementwise: ({ outs }) => rank(outs[0]),
  copy: ({ outs }) => rank(outs[0]),
  cast: ({ outs }) => rank(outs[0]),
  argmax: ({ outs }) => rank(outs[0]),
  reduce: ({ outs }) => rank(outs[0]),
  softmax: ({ outs }) => rank(outs[0]) - 1,
  logSoftmax: ({ outs }) => rank(outs[0]) - 1,
  crossEntropy: ({ ins }) => rank(ins[1]),
  crossEntropyGradient: ({ ins }) => rank(ins[1]),
  oneHot: ({ ins }) => rank(ins[0]),
  normalise: ({ outs }) => rank(outs[1]),
  maxPool: () => 1,
  maxPoolTake: () => 1,
  maxPoolScatter: () => 1,
  sumPool: () => 1,
  sumPoolSpread: () => 1,
};

/** The cuts of products: by the axes that are neither shared by all operands. `like` is where what an epilogue reads is cut. */
const outer = (part: Part<unknown>, y: Axis, a: Axis, b: Axis): Axis[] => [
  y,
  a,
  b,
  ...part.ins.slice(2).map(() => y),
];

/**
 * The tasks of generated weights, or where these have numbers of rows of their own the rows: of the operands in `rowsOf`,
 * and in `tasksOf`. Results that belong to neither are summed.
 */
function byTasks({ ins, attrs }: Part<unknown>, rowsOf: readonly number[], tasksOf: readonly number[]): Cut {
  const perTask = ins[2].view.shape[0] / ins[0].view.shape[0];
  const axisOf = (i: number): Axis =>
    rowsOf.includes(i) ? [0, attrs.ragged ? 1 : perTask] : !attrs.ragged && tasksOf.includes(i) ? [0] : null;
  const axes = upTo(5).map(axisOf);
  const from = (first: number) => ({ first: first + Number(attrs.first ?? 0) });
  return { axes, sum: !axes[0], attrs: attrs.ragged ? from : undefined };
}

/** Of ranges of a code's elements, the first adds the base. */
const withoutBase = (first: number): Attrs => (first > 0 ? { base: false } : {});

/** How kernels are cut beside that. */
const OTHERS: Readonly<Record<string, (part: Part<unknown>) => Cut[]>> = {
  reduce: part => {
    const kept = rank(part.outs[0]);
    const read = part.attrs.prologue ? part.ins.length : 1;
    return upTo(rank(part.ins[0]) - kept).map(i => ({
      sum: true,
      axes: [null, ...part.ins.map((_, j): Axis => (j < read ? [kept + i] : null))],
    }));
  },
  matmul: part => {
    const r = rank(part.outs[0]) - 2;
    return [
      ...leading(r, 1 + part.ins.length),
      { axes: outer(part, [r], [r], null) },
      { axes: outer(part, [r + 1], null, [r + 1]) },
      { sum: true, axes: [null, [r + 1], [r]] },
    ];
  },
  conv2d: part => [...leading(1, 1 + part.ins.length), { axes: outer(part, [1], [1], null) }],
  conv2dInput: part => [...leading(1, 3), { axes: outer(part, [1], [1], null) }],
  conv2dFilter: () => [...leading(1, 3), { sum: true, axes: [null, [1], [1]] }],
  take: ({ ins: [x, index], attrs }) => {
    const axis = Number(attrs.axis);
    const indices = rank(index);
    return [
      ...upTo(axis).map((i): Cut => ({ axes: [[i], [i], null] })),
      ...upTo(indices).map((i): Cut => ({ axes: [[axis + i], null, [i]] })),
      ...upTo(rank(x) - axis - 1).map((i): Cut => ({ axes: [[axis + indices + i], [axis + 1 + i], null] })),
      {
        axes: [null, [axis], null],
        kernel: 'takeRange',
        attrs: first => ({ first: first + Number(attrs.first ?? 0) }),
      },
    ];
  },
  scatterAdd: ({ outs: [y], ins: [, index], attrs }) => {
    const axis = Number(attrs.axis);
    const indices = rank(index);
    return [
      ...upTo(axis).map((i): Cut => ({ axes: [[i], [i], null] })),
      ...upTo(rank(y) - axis - 1).map((i): Cut => ({ axes: [[axis + 1 + i], [axis + indices + i], null] })),
      { axes: [[axis], null, null], attrs: first => ({ first: first + Number(attrs.first ?? 0) }) },
      ...upTo(indices).map((i): Cut => ({ sum: true, axes: [null, [axis + i], [i]] })),
    ];
  },
  widen: ({ ins: [x] }) => {
    const last = rank(x) - 1;
    return [...leading(last, 2), { axes: [[last, 2], [last]] }];
  },
  random: ({ outs: [y], attrs }) => {
    const axis = Math.max(
      0,
      y.view.shape.findIndex(n => n > 1),
    );
    const inner = product(y.view.shape.slice(axis + 1));
    return [
      {
        axes: [[axis], null],
        even: true,
        attrs: first => ({ start: Number(attrs.start) + (first * inner) / 2 }),
      },
    ];
  },
  raggedMatmul: ({ attrs }) => [
    {
      axes: [[0], [0], null, null],
      kernel: 'raggedMatmulRange',
      attrs: first => ({ first: first + Number(attrs.first ?? 0) }),
    },
    { axes: [null, null, [0], [0, 1, 1]], kernel: 'raggedMatmulRange' },
  ],
  raggedOuter: ({ attrs }) => [
    { axes: [[0], null, null, [0, 1, 1]] },
    { sum: true, axes: [null, [0], [0]], attrs: first => ({ first: first + Number(attrs.first ?? 0) }) },
  ],
  generateApply: part => [
    byTasks(part, [0, 3], [1]),
    { sum: true, axes: [null, [1], [0]], attrs: withoutBase },
  ],
  generateGradients: part => {
    const cuts: Record<string, Cut[]> = {
      code: [byTasks(part, [3, 4], [0, 1]), { axes: [[1], [1], [0]] }],
      basis: [byTasks(part, [3, 4], [1]), { axes: [[0], [1], [0]] }],
      x: [byTasks(part, [0, 3, 4], [1]), { sum: true, axes: [null, [1], [0]], attrs: withoutBase }],
      base: [byTasks(part, [3, 4], [1])],
    };
    return cuts[(part.attrs.wants as readonly string[])[0]];
  },
};

function cutsOf(part: Part<unknown>): Cut[] {
  const kernel = part.kernel.replace(/Range$/, '');
  const operands = part.outs.length + part.ins.length;
  return [...leading(SHARED[kernel]?.(part) ?? 0, operands), ...(OTHERS[kernel]?.(part) ?? [])];
}

/** The commands that one with several results stands for, each with its own operands; null if it is one. */
function singlesOf<B>(part: Part<B>): Part<B>[] | null {
  const { kernel, attrs, outs, ins } = part;
  const exprs = attrs.exprs as readonly Expr[] | undefined;
  if (exprs) {
    let [out, at] = [0, 0];
    return exprs.map(expr => ({
      kernel,
      attrs: { expr },
      outs: outs.slice(out, (out += expr.outs.length)),
      ins: ins.slice(at, (at += expr.inputs)),
    }));
  }
  const wants = attrs.wants as readonly string[] | undefined;
  if (!wants || (wants.length === 1 && (wants[0] !== 'base' || ins[0].view.shape[1] === 1))) return null;
  return wants.map((want, k) => {
    // What the base's gradient does not read has one element of a code.
    const [code, basis, ...rest] = ins;
    const short = want === 'base' ? [sliced(code, 1, 0, 1), sliced(basis, 0, 0, 1), ...rest] : ins;
    return { kernel, attrs: { ...attrs, wants: [want] }, outs: [outs[k]], ins: short };
  });
}

const sliced = <B>(x: Operand<B>, axis: number, first: number, end: number): Operand<B> => ({
  ...x,
  view: { ...x.view, shape: x.view.shape.with(axis, end - first) },
  offset: x.offset + first * x.view.strides[axis],
});

/** Elements from the first of a view to behind its last. */
const spanOf = ({ shape, strides }: View): number =>
  shape.includes(0) ? 0 : shape.reduce((span, n, i) => span + (n - 1) * strides[i], 1);

/** Gives `run` the command in ranges whose operands can all be bound. Throws DeviceLimitError where there are none. */
function runInRanges<B extends object>(
  { kernel, op, outs, ins, attrs }: Command,
  buffers: readonly B[],
  offsets: readonly number[],
  regions: readonly object[],
  binder: Binder<B>,
  run: Run<B>,
): void {
  const { device } = binder;
  const most = device.limits.maxStorageBufferBindingSize;
  const { slots, buffers: distinct } = operandsOf(regions, offsets);
  if (distinct.length < slots.length) checkAliases({ kernel, op, outs, ins, attrs }, slots, offsets);
  const windows = new Map<B, Map<number, B>>();

  /** Where an operand's binding starts: at 0, unless it lies farther from there than a binding reaches. */
  const startOf = ({ view, offset }: Operand<B>): number =>
    (offset + spanOf(view)) * 4 <= most ? 0 : Math.floor((offset * 4) / ALIGN) * ALIGN;
  const fits = (x: Operand<B>): boolean => (x.offset + spanOf(x.view)) * 4 - startOf(x) <= most;

  const bound = (x: Operand<B>): B => {
    const start = startOf(x);
    const known = windows.get(x.buffer) ?? new Map<number, B>();
    windows.set(x.buffer, known);
    if (!known.has(start)) known.set(start, binder.window(x.buffer, start));
    return known.get(start)!;
  };

  const visit = (part: Part<B>): void => {
    const operands = [...part.outs, ...part.ins];
    const large = operands.findIndex(x => !fits(x));
    if (large < 0) {
      const command = { ...part, op, outs: part.outs.map(x => x.view), ins: part.ins.map(x => x.view) };
      run(
        command,
        operands.map(bound),
        operands.map(x => x.offset - startOf(x) / 4),
        operands.map(x => x.region),
      );
      return;
    }
    const singles = singlesOf(part);
    if (singles) {
      for (const single of singles) visit(single);
      return;
    }
    const { view } = operands[large];
    const reach = ({ axes, even }: Cut): number => {
      const [axis, scale = 1] = axes[large] ?? [];
      if (axis === undefined || view.shape[axis] / scale < (even ? 3 : 2)) return 0;
      return (view.shape[axis] - 1) * view.strides[axis];
    };
    const best = cutsOf(part).reduce<Cut | null>((a, b) => (reach(b) > (a ? reach(a) : 0) ? b : a), null);
    if (!best)
      throw new DeviceLimitError(
        `${op}: an operand of shape [${view.shape}] spans ${spanOf(view) * 4} bytes, '${device.name}' binds at most ${most}, and kernel '${part.kernel}' cannot work on less of it`,
      );
    const [axis, scale = 1] = best.axes[large]!;
    const stride = view.strides[axis];
    // Elements that a range may have beyond its first place.
    const room = (most - ALIGN) / 4 - (spanOf(view) - reach(best)) - (scale - 1) * stride;
    const length = view.shape[axis] / scale;
    const count = Math.max(1, Math.floor(room / (stride * scale)) + 1);
    const step = best.even ? 2 : 1;
    inParts(part, best, length, Math.max(step, Math.floor(Math.min(count, length - 1) / step) * step));
  };

  const inParts = (part: Part<B>, { axes, sum, attrs, kernel }: Cut, length: number, each: number): void => {
    const [y] = part.outs;
    const { epilogue, ...plain } = part.attrs as Attrs & { epilogue?: Expr };
    const own = part.ins.length - (sum && epilogue ? epilogue.inputs - 1 : 0);
    const count = Math.ceil(length / each);
    const shape = [...y.view.shape, count];
    const strides = denseStrides(shape);
    const sums = sum && binder.temporary(product(shape) * 4);
    const partial = sums && { view: { ...y.view, shape, strides }, buffer: sums, region: sums, offset: 0 };
    for (let p = 0; p < count; p++) {
      const first = p * each;
      const end = Math.min(first + each, length);
      const range = (x: Operand<B>, i: number): Operand<B> => {
        const [axis, scale = 1, more = 0] = axes[i] ?? [];
        return axis === undefined ? x : sliced(x, axis, first * scale, end * scale + more);
      };
      const outs = partial
        ? [{ ...partial, view: { ...y.view, strides: strides.slice(0, -1) }, offset: p }]
        : part.outs.map(range);
      const ins = part.ins.map((x, i) => range(x, part.outs.length + i));
      visit({
        kernel: kernel ?? part.kernel,
        attrs: { ...(sum ? plain : part.attrs), ...attrs?.(first) },
        outs,
        ins: ins.slice(0, own),
      });
    }
    if (!partial) return;
    visit({
      kernel: 'reduce',
      attrs: { fn: part.attrs.fn ?? 'sum', reduced: 1, ...(epilogue ? { epilogue } : {}) },
      outs: part.outs,
      ins: [partial, ...part.ins.slice(own)],
    });
  };

  const operand = (view: View, i: number): Operand<B> => ({
    view,
    buffer: buffers[i],
    region: regions[i],
    offset: offsets[i],
  });
  visit({ kernel, attrs, outs: outs.map(operand), ins: ins.map((x, i) => operand(x, outs.length + i)) });
}

/** What one binding of `device` holds of a block from byte `start` on. */
function windowOf(device: Device, block: Block, start: number): Block {
  const size = Math.min(block.bytes - start, device.limits.maxStorageBufferBindingSize);
  if (size === block.bytes) return block;
  return { ...block, id: `${block.id}@${start}+${size}`, bytes: size, offset: block.offset + start };
}

/** Kernels that ranges of others become: of those, where their range starts is `attrs.first`. */
const rangeKernels: Readonly<Record<string, Lowering>> = {
  takeRange: call =>
    take(call).map(pass => ({
      ...pass,
      bodies: ['elementwise'],
      shader: tierShaders.takeRange,
      params: { ...pass.params, first: integer(call, 'first') },
    })),

  // Row 0 of x is row `first` of those that the offsets count, and rows of other tasks are left alone.
  raggedMatmulRange: call =>
    raggedMatmul(call).map(pass => ({
      ...pass,
      access: pass.access.map(access =>
        access.name === 'offset'
          ? { ...access, name: 'start' }
          : access.name === 'y'
            ? { ...access, name: 'kept' }
            : access,
      ),
      generate: source =>
        source.add(`fn load_offset(t: u32) -> i32 { return max(load_start(t) - ${call.attrs.first ?? 0}, 0); }
fn store_y(row: u32, column: u32, value: f32) {
  if (row >= u32(load_offset(0u)) && row < u32(load_offset(params.tasks))) { store_kept(row, column, value); }
}
`),
    })),
};

/** How a device's commands are run in ranges. */
export interface Ranges {
  /** Runs a command in ranges and returns true; false if its blocks can be bound as they are. */
  record(
    device: Device,
    pool: Pool,
    command: Command,
    blocks: readonly Block[],
    offsets: readonly number[],
    run: Run<Block>,
  ): boolean;
  /** For a plan whose buffers are objects: `run` is given ranges, whose temporaries and windows are collected. */
  plan(
    device: Device,
    run: Run<object>,
  ): {
    readonly run: Run<object>;
    readonly temporaries: readonly { readonly bytes: number }[];
    readonly windows: readonly Window<object>[];
  };
  /** What is bound of blocks, and behind them of windows on them; the blocks themselves where that is all of each. */
  places(device: Device, blocks: readonly Block[], windows: readonly Window<number>[]): readonly Block[];
}

/** These parts with tensors as large as the device's buffers. */
export const withRanges = (parts: Parts): Parts => ({
  ...parts,
  kernels: new Map([...parts.kernels, ...Object.entries(rangeKernels)]),
  ranges: {
    record(device, pool, command, blocks, offsets, run) {
      if (blocks.every(({ bytes }) => bytes <= device.limits.maxStorageBufferBindingSize)) return false;
      const taken: Block[] = [];
      const temporary = (bytes: number): Block => {
        const block = pool.take(bytes);
        taken.push(block);
        return block;
      };
      const window = (block: Block, start: number): Block => windowOf(device, block, start);
      runInRanges(command, blocks, offsets, blocks, { device, window, temporary }, run);
      // The next command that takes them is run behind this one.
      for (const block of taken) pool.give(block);
      return true;
    },
    plan(device, run) {
      const temporaries: { bytes: number }[] = [];
      const windows: Window<object>[] = [];
      const binder: Binder<object> = {
        device,
        window: (of, start) => (start === 0 ? of : windows[windows.push({ of, start }) - 1]),
        temporary: bytes => temporaries[temporaries.push({ bytes }) - 1],
      };
      return { run: (...part) => runInRanges(...part, binder, run), temporaries, windows };
    },
    places(device, blocks, windows) {
      const most = device.limits.maxStorageBufferBindingSize;
      if (windows.length === 0 && blocks.every(({ bytes }) => bytes <= most)) return blocks;
      return [
        ...blocks.map(block => windowOf(device, block, 0)),
        ...windows.map(({ of, start }) => windowOf(device, blocks[of], start)),
      ];
    },
  },
});
