/**
 * Random numbers from explicit keys by threefry2x32-20 (Salmon et al. 2011): equal keys give the same bits on every
 * backend. A key is a u32 tensor `[2]`, so a compiled step can take one as data.
 */
import { ArgumentError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { tensor } from './create.js';
import { add, cos, log, mul, sqrt, sub } from './elementwise.js';
import { reshape, slice } from './views.js';

const rotl = (x: number, r: number): number => (x << r) | (x >>> (32 - r));
const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * Threefry-2x32 with 20 rounds: a keyed bijection of 64-bit counters whose outputs pass BigCrush.
 * All four words and both results are unsigned 32-bit numbers.
 *
 * Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
export function threefry2x32(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const schedule = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  let x = (c0 + k0) | 0;
  let y = (c1 + k1) | 0;
  for (let group = 0; group < 5; group++) {
    const first = (group & 1) * 4;
    for (let round = first; round < first + 4; round++) {
      x = (x + y) | 0;
      y = rotl(y, ROTATIONS[round]) ^ x;
    }
    x = (x + schedule[(group + 1) % 3]) | 0;
    y = (y + schedule[(group + 2) % 3] + group + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}

interface RandomAttrs {
  readonly shape: Shape;
  readonly dtype: 'u32' | 'f32';
  /** The first counter block; a block is two words. */
  readonly start: number;
}

const spec: OpSpec<RandomAttrs> = {
  name: 'random',
  dtypes: ['u32'],
  outputs: (_ins, { shape, dtype }) => ({ shape, dtype }),
  kernelAttrs: ({ start }) => ({ start }),
  ref: ([out]: readonly Dense[], [key]: readonly Dense[], { start }: { start: number }) => {
    const bits = out.data instanceof Uint32Array;
    for (let j = 0; j < out.data.length; j += 2) {
      const words = threefry2x32(key.data[0], key.data[1], (start + (j >> 1)) >>> 0, 0);
      for (let lane = 0; lane < 2 && j + lane < out.data.length; lane++)
        out.data[j + lane] = bits ? words[lane] : (words[lane] >>> 8) * 2 ** -24;
    }
  },
  vjp: () => [null],
};
defineOp(spec);
const draw = (key: Tensor, shape: Shape, dtype: 'u32' | 'f32', start = 0) =>
  apply(spec, [key], { shape, dtype, start })[0];

/** A key from a whole number below 2^53. */
export function key(seed: number): Tensor {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new ArgumentError(`key: seed ${seed} must be whole, 0 .. 2^53-1`);
  return tensor(Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32)));
}
/** `n` independent keys. The key itself must not be used again. */
export function split(k: Tensor, n = 2): Tensor[] {
  const words = draw(k, [n, 2], 'u32');
  return Array.from({ length: n }, (_, i) => reshape(slice(words, 0, i, i + 1), [2]));
}
/** The key `split` would put at position `i`, without making the others. */
export const foldIn = (k: Tensor, i: number): Tensor => draw(k, [2], 'u32', i);

/** Uniform on [lo, hi), in steps of 2^-24 of the width. */
export function uniform(k: Tensor, shape: Shape, lo = 0, hi = 1): Tensor {
  const u = draw(k, shape, 'f32');
  return lo === 0 && hi === 1 ? u : add(mul(u, hi - lo), lo);
}
/** Standard normal, by Box and Muller's transform of two uniforms each. */
export function normal(k: Tensor, shape: Shape): Tensor {
  const n = sizeOf(shape);
  const u = draw(k, [2, n], 'f32');
  const radius = sqrt(mul(-2, log(sub(1, slice(u, 0, 0, 1)))));
  const angle = mul(2 * Math.PI, slice(u, 0, 1, 2));
  return reshape(mul(radius, cos(angle)), shape);
}
