/** Random numbers on the host: sampling of tasks, episodes and orders. */
import { ArgumentError } from '../core/errors.js';
import { threefry2x32 } from '../ops/random.js';

/** Set in the high counter word of draws, and never in that of a folded word: draws cannot equal a derived key. */
const DRAW = 0x80000000;

/**
 * A sequential random stream on the host. It is named by a tuple of non-negative safe integers, for instance
 * `new Stream(seed, split, step)`: equal tuples give equal numbers, different tuples (of any length) independent ones.
 * Nothing else is state, so work that makes its stream from (seed, step) resumes bit for bit.
 *
 * @throws ArgumentError if a word is not a non-negative safe integer.
 */
export class Stream {
  private readonly k0: number;
  private readonly k1: number;
  private block = 0;
  private second: number | null = null;
  private spareNormal: number | null = null;

  constructor(...words: number[]) {
    let key: [number, number] = [0, 0];
    for (const word of words) {
      if (!Number.isSafeInteger(word) || word < 0)
        throw new ArgumentError(`Stream: every word must be a non-negative safe integer, got ${word}`);
      key = threefry2x32(key[0], key[1], word >>> 0, Math.floor(word / 2 ** 32));
    }
    [this.k0, this.k1] = key;
  }

  /** The next 32 random bits, as an unsigned number. */
  u32(): number {
    if (this.second !== null) {
      const word = this.second;
      this.second = null;
      return word;
    }
    const high = (DRAW | Math.floor(this.block / 2 ** 32)) >>> 0;
    const [first, second] = threefry2x32(this.k0, this.k1, this.block >>> 0, high);
    this.block++;
    this.second = second;
    return first;
  }

  /** A multiple of 2^-24, uniform in [0, 1): exact as f32. */
  uniform(): number {
    return (this.u32() >>> 8) * 2 ** -24;
  }

  /**
   * An unbiased integer in [0, n), by rejection.
   *
   * @throws ArgumentError unless n is an integer in [1, 2^32].
   */
  below(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32)
      throw new ArgumentError(`Stream.below: n must be an integer in [1, 2^32], got ${n}`);
    const limit = 2 ** 32 - (2 ** 32 % n);
    let word = this.u32();
    while (word >= limit) word = this.u32();
    return word % n;
  }

  /** A standard normal number (Box and Muller 1958), at most 6.7 in size. */
  normal(): number {
    if (this.spareNormal !== null) {
      const z = this.spareNormal;
      this.spareNormal = null;
      return z;
    }
    const radius = Math.sqrt(-2 * Math.log((this.u32() + 1) * 2 ** -32));
    const angle = 2 * Math.PI * (this.u32() * 2 ** -32);
    this.spareNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** Shuffles in place (Fisher and Yates), every order equally likely, and returns the same array. */
  shuffle<A extends { readonly length: number; [index: number]: unknown }>(array: A): A {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const held = array[i];
      array[i] = array[j];
      array[j] = held;
    }
    return array;
  }

  /**
   * `k` distinct integers of [0, n), in random order; time and memory grow with k alone.
   *
   * @throws ArgumentError unless 0 <= k <= n.
   */
  sample(n: number, k: number): number[] {
    if (!Number.isInteger(k) || k < 0 || k > n)
      throw new ArgumentError(`Stream.sample: k must be an integer in [0, n = ${n}], got ${k}`);
    const moved = new Map<number, number>();
    const chosen = new Array<number>(k);
    for (let i = 0; i < k; i++) {
      const j = i + this.below(n - i);
      chosen[i] = moved.get(j) ?? j;
      moved.set(j, moved.get(i) ?? i);
    }
    return chosen;
  }
}
