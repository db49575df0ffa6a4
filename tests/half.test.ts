/** Bases stored in f16: how numbers are rounded, what weights change by, and that plans and gradients stay the same. */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { createRef } from '../src/backends/ref.js';
import {
  abs,
  chunkedHead,
  dense,
  f16,
  fullHead,
  HalfGenerated,
  type Head,
  halve,
  hypernet,
  key,
  lowRankHead,
  materialise,
  matmul,
  narrow,
  normal,
  relu,
  type Strategy,
  serial,
  square,
  sub,
  sum,
  type Tensor,
  taskId,
  tensor,
  tree,
  trunkHead,
  use,
  valueAndGrad,
  weightNorms,
  widen,
} from '../src/index.js';
import { expectDerivatives, expectSameTree } from './derivatives.js';

const ref = createRef({ float: 64 });
const cpu = await open('cpu');
afterAll(() => cpu.dispose());
beforeEach(() => use(ref));

const values = (x: Tensor) => Array.from(x.dataSync());

describe('halves', () => {
  it('are all read as IEEE 754 says, and written back as they were', async () => {
    const all = Uint32Array.from({ length: 2 ** 15 }, (_, k) => 2 * k + (2 * k + 1) * 2 ** 16);
    const numbers = values(widen(tensor(all)));
    expect(numbers.slice(0, 3)).toEqual([0, 2 ** -24, 2 ** -23]);
    expect([0x3c00, 0xc000, 0x7bff, 0x0400, 0x03ff].map(h => numbers[h])).toEqual([
      ...[1, -2, 65504, 2 ** -14, 1023 * 2 ** -24],
    ]);
    expect([0x7c00, 0xfc00, 0x7e00].map(h => numbers[h])).toEqual([Infinity, -Infinity, Number.NaN]);
    use(cpu);
    expect(values(widen(tensor(all)))).toEqual(numbers);
    const finite = numbers.filter(Number.isFinite);
    const words = await narrow(tensor(Float32Array.from(finite), [1, finite.length]));
    expect(values(widen(words))).toEqual(finite);
  });

  it('are the nearest to a number, ties to even, and never infinite', async () => {
    const near = async (...xs: number[]) =>
      values(widen(await narrow(tensor(Float32Array.from(xs), [1, xs.length])))).slice(0, xs.length);
    const unit = 2 ** -10;
    expect(await near(1 + unit / 2, 1 + (3 * unit) / 2, 1 + 0.51 * unit)).toEqual([
      1,
      1 + 2 * unit,
      1 + unit,
    ]);
    expect(await near(2 - unit / 4, 2 ** -25, 1.5 * 2 ** -24, 65519)).toEqual([2, 0, 2 ** -23, 65504]);
    await expect(near(65520)).rejects.toThrow(/65520 has no half, the largest is 65504/);
    await expect(near(Number.NaN)).rejects.toThrow(/NaN has no half/);
    const draws = values(normal(key(3), [4096])).map((x, k) => Math.fround(x * 2 ** ((k % 40) - 25)));
    (await near(...draws)).forEach((half, k) => {
      expect(Math.abs(half - draws[k])).toBeLessThanOrEqual(
        Math.max(2 ** -11 * Math.abs(draws[k]), 2 ** -25),
      );
    });
  });
});

const target = serial(dense(7), relu, dense(300), relu, dense(3));
const heads: Record<string, { head: Head; strategies: (Strategy | undefined)[] }> = {
  full: { head: fullHead({ basis: f16 }), strategies: [undefined, 'materialise', 'fused', 'reorder'] },
  lowRank: { head: lowRankHead({ rank: 2, basis: f16 }), strategies: [undefined, 'materialise', 'lowRank'] },
  chunked: {
    head: trunkHead(dense(12), chunkedHead({ chunk: 9, slot: 4, basis: f16 })),
    strategies: [undefined, 'materialise'],
  },
};
const T = 4;
/** A basis of 150 codes: rows of the second layer are widened in two blocks. */
const netOf = (head: Head) =>
  hypernet({ target, inShape: [5], condition: taskId(T, 6), trunk: dense(150), head });
const tasks = () => tensor(Int32Array.from({ length: T }, (_, t) => t));

describe.each(Object.keys(heads))('a %s head with its basis in f16', name => {
  const { head, strategies } = heads[name];

  it('makes weights within the bound of those in f32, from half the bytes', async () => {
    for (const backend of [ref, cpu]) {
      use(backend);
      const hyper = netOf(head);
      const phi = hyper.init(key(0));
      const small = await halve(phi);
      const size = (p: { head: unknown }) =>
        tree.entries<Tensor>(p.head).reduce((n, [path, x]) => n + (path.endsWith('basis') ? x.size : 0), 0);
      expect(size(small)).toBeLessThanOrEqual(size(phi) / 2 + 150);
      const basisOf = (p: { head: unknown }) =>
        tree.entries<Tensor>(p.head).find(([path]) => path.endsWith('basis'))![1];
      const [wide, words] = [basisOf(phi), basisOf(small)];
      const code = normal(key(5), [T, wide.shape[0]]);
      const half = new HalfGenerated(code, words, [wide.shape[1]]);
      const error = values(abs(sub(matmul(code, wide), half.materialise())));
      // f32 rounds sums of at most 150 products, by 150 · 6e-8 of them, which is 2 % of 2^-11.
      const slack = backend === ref ? 1 : 1.02;
      values(half.errorBound()).forEach((most, k) => {
        expect(error[k]).toBeLessThanOrEqual(slack * most);
        expect(most).toBeLessThanOrEqual(0.02);
      });
      const is = hyper.generate(small, hyper.encode(small, tasks()));
      expect(weightNorms(is).shape).toEqual([T]);
    }
  });

  it('applies them by every plan, for rows in any numbers, with gradients of any order', async () => {
    const hyper = netOf(head);
    const phi = await halve(hyper.init(key(0)));
    const code = hyper.encode(phi, tasks());
    const rows = Int32Array.of(0, 1, 1, 4, 6);
    const loss = (how: object, x: Tensor) => (p: { code: Tensor }) =>
      sum(square(target.apply(hyper.generate(phi, p.code), x, how)));
    const plain = (x: Tensor, how: object) => (p: { code: Tensor }) =>
      sum(square(target.apply(materialise(hyper.generate(phi, p.code)), x, how)));
    const [even, ragged] = [normal(key(1), [T, 2, 5]), normal(key(2), [6, 5])];
    for (const strategy of strategies)
      for (const [x, how] of [
        [even, { strategy }],
        [ragged, { strategy, rows }],
      ] as const) {
        const { value, grads } = valueAndGrad(loss(how, x))({ code });
        const want = valueAndGrad(plain(x, how))({ code });
        expectSameTree([value, grads], [want.value, want.grads], 1e-10);
      }
    expectDerivatives(loss({}, even), { code }, key(4), 1e-5);
  });
});

describe('explain of a weight in f16', () => {
  it('prints what is saved and the most that changes', async () => {
    const basis = normal(key(1), [4, 6]);
    const half = new HalfGenerated(normal(key(0), [2, 4]), await narrow(basis), [2, 3]);
    const most = Math.max(...values(half.errorBound()));
    expect(await half.explain()).toBe(
      `generated weight (half) [2,2,3]: basis of 24 numbers in f16, 48 bytes instead of 96; a weight changes by at most ` +
        `${most.toPrecision(3)}, the largest is ${Math.max(...values(abs(half.materialise()))).toPrecision(3)}`,
    );
    expect(most).toBeLessThan(2 ** -8);
  });

  it('and parts that do not fit are refused', () => {
    const words = tensor(Uint32Array.of(1, 2), [1, 2]);
    expect(() => new HalfGenerated(normal(key(0), [2, 3]), words, [2])).toThrow(
      /must be \[T,E\] and u32 \[E,words\]/,
    );
    expect(() => new HalfGenerated(normal(key(0), [2, 1]), words, [5])).toThrow(/does not fit 2 words/);
  });
});
