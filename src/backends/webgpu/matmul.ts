/** Kernels that are matrix products once their operands are loaded the right way: GEMM, convolution, ragged outer. */
import type { Expr } from '../../core/backend.js';
import { type Call, integers, type Pass, product } from './kernel.js';
import { foldParts } from './reduce.js';
import type { Access, Epilogue, Operand } from './source.js';
import { type ProductSizes, tilingOf } from './tiling.js';

/** y[batch, m, n] = sum over k of a[batch, m, k] b[batch, k, n], with a and b behind `load_a` and `load_b`. */
export interface Product extends ProductSizes {
  /** The axes of y that make up batch, m and n. */
  readonly groups: readonly number[];
  /** Operands from which the bodies load; 'a' and 'b' where no body defines `load_a` or `load_b`. */
  readonly access: readonly Access[];
  readonly bodies?: readonly string[];
  readonly constants?: Readonly<Record<string, number>>;
  /** True if a body defines `k_range`, because it depends on data. */
  readonly ranged?: boolean;
}

/** Into how many parts k is cut, so that there is work for every core: a function of the shape alone. */
export function kParts(k: number, workgroups: number, software: boolean): number {
  const wanted = software ? 4 : 256;
  const shortest = software ? 512 : 256;
  if (workgroups * 2 > wanted) return 1;
  return Math.max(1, Math.min(Math.floor(wanted / workgroups), Math.floor(k / shortest), 64));
}

function multiply(call: Call, p: Product): Pass[] {
  const passes = call.multiply?.(call, p);
  if (passes) return passes;
  const y = call.outs[0];
  const epilogue = epilogueOf(call);
  // Subgroups may exchange values only where all of their threads take the same path, which data must not decide.
  const t = tilingOf(p, p.ranged ? { software: call.software, subgroup: 0 } : call);
  const lanes = t.body === 'matmulLanes';
  const tilesM = Math.ceil(p.m / (t.rows * t.threadsM));
  const tilesN = Math.ceil(p.n / (t.columns * t.threadsN));
  const parts = p.ranged ? 1 : (t.parts ?? kParts(p.k, tilesM * tilesN * p.batch, call.software));
  const target = parts === 1 ? y : call.temporary([parts * p.batch, p.m, p.n]);
  const groups = parts === 1 ? p.groups : [1, 1, 1];
  const workgroups = tilesM * tilesN * p.batch * parts;
  const pass: Pass = {
    directives: lanes ? ['enable subgroups'] : [],
    bodies: [...(p.bodies ?? []), ...(p.ranged ? [] : ['matmulRange']), t.body],
    constants: {
      ...p.constants,
      ROWS: t.rows,
      COLUMNS: t.columns,
      ...(lanes ? { SUBGROUP: t.threadsN } : { THREADS_M: t.threadsM, THREADS_N: t.threadsN }),
      ...(t.tileK ? { TILE_K: t.tileK, A_BY_ROWS: Number(p.aByRows), B_BY_ROWS: Number(p.bByRows) } : {}),
    },
    params: {
      m: p.m,
      n: p.n,
      k: p.k,
      k_chunk: Math.ceil(p.k / parts),
      batch: p.batch,
      tiles_m: tilesM,
      tiles_n: tilesN,
      groups: workgroups,
    },
    access: [...p.access, { name: 'y', operand: target, groups, store: parts === 1 ? epilogue : 'raw' }],
    workgroups,
  };
  return parts === 1 ? [pass] : [pass, foldParts(call, target, parts, y, epilogue)];
}

/** What is done to each result before it is stored: `attrs.epilogue` over it and the operands after a and b. */
export function epilogueOf(call: Call): 'raw' | Epilogue {
  const expr = call.attrs.epilogue as Expr | undefined;
  return expr ? { expr, ins: call.ins.slice(2) } : 'raw';
}

const contiguousLast = (x: Operand): boolean => x.strides.at(-1) === 1 || x.shape.at(-1) === 1;

/** y[..., m, n] = a[..., m, k] b[..., k, n], over any strides; then `attrs.epilogue`. */
export function matmul(call: Call): Pass[] {
  const [a, b] = call.ins;
  const rank = a.shape.length - 2;
  const [m, k] = a.shape.slice(rank);
  const n = b.shape[rank + 1];
  const groups = [rank, 1, 1];
  return multiply(call, {
    batch: product(a.shape.slice(0, rank)),
    m,
    n,
    k,
    groups,
    access: [
      { name: 'a', operand: a, groups },
      { name: 'b', operand: b, groups },
    ],
    aByRows: contiguousLast(a),
    bByRows: contiguousLast(b),
  });
}

/** Names of sizes as the convolution bodies use them. They divide by channels, which must not be 0 for that. */
function convolutionSizes(call: Call, x: Operand, w: Operand, y: Operand): Record<string, number> {
  const [sh, sw] = integers(call, 'stride', 2);
  const [top, left] = integers(call, 'pad', 2);
  const [, , h, width, c] = x.shape;
  const [, kh, kw, , o] = w.shape;
  return {
    H: h,
    W: width,
    C: c || 1,
    KH: kh,
    KW: kw,
    O: o || 1,
    OH: y.shape[2],
    OW: y.shape[3],
    STRIDE_H: sh,
    STRIDE_W: sw,
    PAD_H: top,
    PAD_W: left,
  };
}

const AXES = [1, 1, 1, 1, 1];

/** x [T,N,H,W,C] with w [T,KH,KW,C,O]: m is (image, oh, ow), n an output channel, k is (kh, kw, c). */
export function conv2d(call: Call): Pass[] {
  const [x, w] = call.ins;
  const y = call.outs[0];
  const constants = convolutionSizes(call, x, w, y);
  return multiply(call, {
    batch: x.shape[0],
    m: x.shape[1] * constants.OH * constants.OW,
    n: constants.O,
    k: constants.KH * constants.KW * w.shape[3],
    groups: [1, 3, 1],
    access: [
      { name: 'x', operand: x, groups: AXES },
      { name: 'b', operand: w, groups: [1, 3, 1] },
    ],
    bodies: ['conv2d'],
    constants,
    aByRows: true,
    bByRows: true,
  });
}

/** The adjoint of conv2d in x: m is (image, h, w), n an input channel, k is (kh, kw, o). */
export function conv2dInput(call: Call): Pass[] {
  const [g, w] = call.ins;
  const dx = call.outs[0];
  const constants = convolutionSizes(call, dx, w, g);
  return multiply(call, {
    batch: dx.shape[0],
    m: dx.shape[1] * constants.H * constants.W,
    n: constants.C,
    k: constants.KH * constants.KW * w.shape[4],
    groups: [1, 3, 1],
    access: [
      { name: 'g', operand: g, groups: AXES },
      { name: 'w', operand: w, groups: AXES },
    ],
    bodies: ['conv2dInput'],
    constants,
    aByRows: true,
    bByRows: false,
  });
}

/** The adjoint of conv2d in w: m is (kh, kw, c), n an output channel, k is (image, oh, ow). */
export function conv2dFilter(call: Call): Pass[] {
  const [x, g] = call.ins;
  const dw = call.outs[0];
  const constants = convolutionSizes(call, x, dw, g);
  return multiply(call, {
    batch: dw.shape[0],
    m: constants.KH * constants.KW * constants.C,
    n: constants.O,
    k: x.shape[1] * constants.OH * constants.OW,
    groups: [1, 3, 1],
    access: [
      { name: 'x', operand: x, groups: AXES },
      { name: 'b', operand: g, groups: [1, 3, 1] },
    ],
    bodies: ['conv2dFilter'],
    constants,
    aByRows: false,
    bByRows: true,
  });
}

/** w[t] = x[rows of t]^T g[rows of t]: k is a row, and its range is the task's. */
export function raggedOuter(call: Call): Pass[] {
  const [x, g, offsets] = call.ins;
  const w = call.outs[0];
  return multiply(call, {
    batch: w.shape[0],
    m: w.shape[1],
    n: w.shape[2],
    k: x.shape[0],
    groups: [1, 1, 1],
    access: [
      { name: 'x', operand: x, groups: [1, 1] },
      { name: 'g', operand: g, groups: [1, 1] },
      { name: 'offset', operand: offsets, groups: [1] },
    ],
    bodies: ['raggedOuter'],
    constants: { FIRST: Number(call.attrs.first ?? 0) },
    aByRows: false,
    bByRows: true,
    ranged: true,
  });
}
