import { describe, expect, it } from 'vitest';
import { Stream } from '../src/data/stream.js';
import { threefry2x32 } from '../src/ops/random.js';

const hex = (words: number[]) => words.map(w => w.toString(16).padStart(8, '0')).join(' ');
const moments = (values: number[]) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return { mean, variance: values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length };
};

describe('threefry2x32', () => {
  it('gives the known answers of Random123', () => {
    expect(hex(threefry2x32(0, 0, 0, 0))).toBe('6b200159 99ba4efe');
    expect(hex(threefry2x32(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff))).toBe('1cb996fc bb002be7');
    expect(hex(threefry2x32(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3))).toBe('c4923a9c 483df7a0');
  });
});

describe('Stream', () => {
  it('is a function of its words alone, each tuple another stream', () => {
    const draw = (...words: number[]) => {
      const stream = new Stream(...words);
      return [stream.u32(), stream.u32(), stream.u32()].join();
    };
    const tuples = [[], [0], [0, 0], [1], [1, 0], [0, 1], [2 ** 32], [2 ** 32 + 1], [7, 2, 9], [7, 9, 2]];
    expect(new Set(tuples.map(words => draw(...words))).size).toBe(tuples.length);
    for (const words of tuples) expect(draw(...words)).toBe(draw(...words));
  });

  it('does not hand out the keys of longer tuples as draws', () => {
    const parent = new Stream(3);
    const draws = new Set(Array.from({ length: 64 }, () => parent.u32()));
    for (let i = 0; i < 32; i++) {
      const [k0] = threefry2x32(...threefry2x32(0, 0, 3, 0), i, 0);
      expect(draws.has(k0)).toBe(false);
    }
  });

  it('refuses words that are not non-negative integers', () => {
    for (const word of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => new Stream(word)).toThrow(/non-negative/);
  });

  it('draws uniforms of 24 bits in [0, 1) with the right moments', () => {
    const stream = new Stream(1);
    const values = Array.from({ length: 100_000 }, () => stream.uniform());
    expect(values.every(v => v >= 0 && v < 1 && v === Math.fround(v))).toBe(true);
    // Standard errors: 0.29/sqrt(1e5) = 9e-4 for the mean, 2.4e-4 for the variance; bounds are 4 of them.
    const { mean, variance } = moments(values);
    expect(Math.abs(mean - 0.5)).toBeLessThan(3.7e-3);
    expect(Math.abs(variance - 1 / 12)).toBeLessThan(1e-3);
  });

  it('draws normals with the right moments and tails', () => {
    const stream = new Stream(2);
    const values = Array.from({ length: 100_000 }, () => stream.normal());
    const { mean, variance } = moments(values);
    expect(Math.abs(mean)).toBeLessThan(0.013);
    expect(Math.abs(variance - 1)).toBeLessThan(0.018);
    const beyondTwo = values.filter(v => Math.abs(v) > 2).length / values.length;
    expect(Math.abs(beyondTwo - 0.0455)).toBeLessThan(0.0027);
  });

  it('draws integers below n without bias', () => {
    const stream = new Stream(3);
    for (const n of [1, 3, 7, 2 ** 31 + 1, 2 ** 32]) {
      for (let i = 0; i < 50; i++) {
        const value = stream.below(n);
        expect(Number.isInteger(value) && value >= 0 && value < n).toBe(true);
      }
    }
    // A plain modulo would put 2/3 of the values of n = 3 * 2^30 into the lowest third.
    const n = 3 * 2 ** 30;
    let low = 0;
    for (let i = 0; i < 9000; i++) if (stream.below(n) < n / 3) low++;
    expect(Math.abs(low - 3000)).toBeLessThan(4 * Math.sqrt(9000 * (1 / 3) * (2 / 3)));
    expect(() => stream.below(0)).toThrow(/\[1, 2\^32\]/);
    expect(() => stream.below(2.5)).toThrow(/\[1, 2\^32\]/);
  });

  it('shuffles with every order equally likely', () => {
    const stream = new Stream(4);
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = stream.shuffle([0, 1, 2]).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values())
      expect(Math.abs(count - 1000)).toBeLessThan(4 * Math.sqrt(6000 * (5 / 36)));
    expect([...stream.shuffle(Int32Array.from([5, 6, 7, 8]))].sort()).toEqual([5, 6, 7, 8]);
  });

  it('samples distinct indices, each equally often', () => {
    const stream = new Stream(5);
    const counts = new Array(10).fill(0);
    for (let i = 0; i < 5000; i++) {
      const chosen = stream.sample(10, 3);
      expect(new Set(chosen).size).toBe(3);
      for (const index of chosen) counts[index]++;
    }
    for (const count of counts) expect(Math.abs(count - 1500)).toBeLessThan(4 * Math.sqrt(5000 * 0.3 * 0.7));
    expect(stream.sample(6, 6).sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(stream.sample(4, 0)).toEqual([]);
    expect(() => stream.sample(3, 4)).toThrow(/\[0, n = 3\]/);
  });
});
