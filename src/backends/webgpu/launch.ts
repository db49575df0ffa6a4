/** The kernel table: how each command becomes passes over shaders/*.wgsl. */
import { KernelError } from '../../core/errors.js';
import { elementwise } from './elementwise.js';
import { generateApply } from './generate.js';
import {
  byAxis,
  type Call,
  flat,
  integer,
  integers,
  type Lowering,
  type Pass,
  perElement,
  product,
  size,
  streaming,
} from './kernel.js';
import { conv2d, matmul } from './matmul.js';
import { normalise } from './normalise.js';
import { lanesOf, reduce, shares } from './reduce.js';
import type { Access, Operand } from './source.js';

/** As words, so that every bit pattern survives. */
export function copy({ ins: [x], outs: [y], software }: Call): Pass[] {
  const words = (operand: Operand): Operand => ({ ...operand, dtype: 'u32' });
  const access = [flat('x', words(x)), flat('y', words(y), 'raw')];
  return [perElement(size(y), { bodies: ['copy'], access }, streaming(size(y), software))];
}

function cast({ ins: [x], outs: [y] }: Call): Pass[] {
  return [
    perElement(size(y), {
      bodies: ['cast'],
      access: [flat('x', x), flat('y', y, 'raw')],
      generate: source => source.add(`alias Target = ${y.dtype};\n`),
    }),
  ];
}

const widen = ({ ins: [x], outs: [y] }: Call): Pass[] => [
  perElement(size(y), { bodies: ['widen'], access: [flat('x', x), flat('y', y, 'raw')] }),
];

function argmax({ ins: [x], outs: [y] }: Call): Pass[] {
  const kept = x.shape.length - 1;
  return [
    perElement(size(y), {
      bodies: ['argmax'],
      params: { length: x.shape[kept] },
      access: [{ name: 'x', operand: x, groups: [kept, 1] }, flat('y', y, 'raw')],
    }),
  ];
}

/** Axes before `axis`, of the indices, and after: as take and its adjoint see x and y. */
export function takeGroups(call: Call, whole: Operand, index: Operand) {
  const axis = integer(call, 'axis');
  const rank = whole.shape.length;
  if (axis < 0 || axis >= rank) throw new KernelError(`${call.kernel}: axis ${axis} is outside [0, ${rank})`);
  const inner = rank - axis - 1;
  return {
    whole: [axis, 1, inner],
    taken: [axis, index.shape.length, inner],
    params: { size: whole.shape[axis], indices: size(index), inner: product(whole.shape.slice(axis + 1)) },
    columns: product(whole.shape.slice(0, axis)) * product(whole.shape.slice(axis + 1)),
  };
}

/** x at the places of one axis that an index names. */
export function take(call: Call): Pass[] {
  const [x, index] = call.ins;
  const [y] = call.outs;
  const { whole, taken, params } = takeGroups(call, x, index);
  return [
    perElement(size(y), {
      bodies: ['take'],
      params,
      access: [
        { name: 'x', operand: x, groups: whole },
        flat('index', index),
        { name: 'y', operand: y, groups: taken, store: 'raw' },
      ],
    }),
  ];
}

function oneHot({ ins: [index], outs: [y] }: Call): Pass[] {
  const rank = index.shape.length;
  return [
    perElement(size(y), {
      bodies: ['oneHot'],
      params: { depth: y.shape[rank] },
      access: [flat('index', index), { name: 'y', operand: y, groups: [rank, 1], store: 'raw' }],
    }),
  ];
}

/** Rows of the first input, whose largest value and sum of exponentials `body` turns into what is stored. */
export function softmaxRows(call: Call, body: string, access: readonly Access[], generated: string): Pass[] {
  const [x] = call.ins;
  const length = x.shape.at(-1)!;
  const rows = size(x) / length;
  const { lanes, width } = shares(rows, length, call.software);
  const exchange = lanesOf(call);
  return [
    {
      ...exchange,
      bodies: [...exchange.bodies, 'softmax', body],
      constants: { ...exchange.constants, LANES: lanes, WIDTH: width },
      params: { rows, length },
      access: [rowwise('x', x), ...access],
      generate: source => source.add(generated),
      workgroups: Math.ceil(rows / (width / lanes)),
    },
  ];
}
/** An accessor by row and place in the last axis. */
export const rowwise = (name: string, operand: Operand, store?: Access['store']): Access => ({
  name,
  operand,
  groups: [operand.shape.length - 1, 1],
  store,
});

/** `result` says what is stored, from a value less the row's maximum and the sum of exponentials. */
const softmaxWith =
  (result: string): Lowering =>
  call =>
    softmaxRows(
      call,
      'softmaxRow',
      [rowwise('y', call.outs[0], 'raw')],
      `fn result(x: f32, sum: f32) -> f32 { return ${result}; }\n`,
    );

/** Sizes as the pooling bodies name them; `whole` is the image, `pooled` has one place per window. */
export function poolSizes(
  call: Call,
  whole: Operand,
  pooled: Operand,
  windows = true,
): Record<string, number> {
  const [, h, w, c] = whole.shape;
  const sizes = { h, w, c, oh: pooled.shape[1], ow: pooled.shape[2] };
  if (!windows) return sizes;
  const [kh, kw] = integers(call, 'window', 2);
  const [sh, sw] = integers(call, 'stride', 2);
  const [top, left] = integers(call, 'pad', 2);
  return { ...sizes, kh, kw, stride_h: sh, stride_w: sw, pad_h: top, pad_w: left };
}

function maxPool(call: Call): Pass[] {
  const [x] = call.ins;
  const [y, index] = call.outs;
  return [
    perElement(size(y), {
      bodies: ['maxPool'],
      params: poolSizes(call, x, y),
      access: [byAxis('x', x), byAxis('y', y, 'raw'), byAxis('index', index, 'raw')],
    }),
  ];
}

function sumPool(call: Call): Pass[] {
  const [x] = call.ins;
  const [y] = call.outs;
  return [
    perElement(size(y), {
      bodies: ['sumPool'],
      params: poolSizes(call, x, y),
      access: [byAxis('x', x), byAxis('y', y, 'raw')],
    }),
  ];
}

/** Rows times the matrix of their task. */
export function raggedMatmul(call: Call): Pass[] {
  const [x, w, offsets] = call.ins;
  const [y] = call.outs;
  const [rows, k] = x.shape;
  const [tasks, , n] = w.shape;
  const columns = Math.min(n, call.software ? 8 : 4);
  const columnThreads = Math.ceil(n / columns);
  return [
    perElement(rows * columnThreads, {
      bodies: ['raggedMatmul'],
      constants: { COLUMNS: columns },
      params: { k, n, tasks, column_threads: columnThreads },
      access: [byAxis('x', x), byAxis('w', w), flat('offset', offsets), byAxis('y', y, 'raw')],
    }),
  ];
}

function random(call: Call): Pass[] {
  const [key] = call.ins;
  const [y] = call.outs;
  const value = y.dtype === 'u32' ? 'word' : 'f32(word >> 8u) * 0x1p-24f';
  return [
    perElement(Math.ceil(size(y) / 2), {
      bodies: ['random'],
      params: { length: size(y), start: integer(call, 'start') },
      access: [flat('key', key), flat('y', y, 'raw')],
      generate: source => source.add(`fn output(word: u32) -> ${y.dtype} { return ${value}; }\n`),
    }),
  ];
}

/** What predictions take. */
export const kernels: ReadonlyMap<string, Lowering> = new Map(
  Object.entries({
    argmax,
    cast,
    conv2d,
    copy,
    elementwise,
    generateApply,
    logSoftmax: softmaxWith('x - log(sum)'),
    matmul,
    maxPool,
    normalise,
    oneHot,
    raggedMatmul,
    random,
    reduce,
    softmax: softmaxWith('exp(x) / sum'),
    sumPool,
    take,
    widen,
  }),
);
