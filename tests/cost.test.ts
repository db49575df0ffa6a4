/** The cost report against costs counted by hand. */
import { beforeEach, describe, expect, it } from 'vitest';
import {
  add,
  broadcastTo,
  compile,
  conv2d,
  costReport,
  costText,
  init,
  key,
  matmul,
  maxPool,
  mean,
  mul,
  normal,
  relu,
  rooflineSvg,
  square,
  sum,
  type Tensor,
  valueAndGrad,
} from '../src/index.js';

beforeEach(() => init({ backend: 'cpu', threads: 1 }));

const draw = (...shape: number[]) => normal(key(shape.length), shape);

describe('costReport', () => {
  it('counts a product with what was folded into it', () => {
    const step = compile((x: Tensor, w: Tensor, b: Tensor) => relu(add(matmul(x, w), b)));
    step(draw(5, 8, 16), draw(5, 16, 4), draw(5, 1, 4));
    const cost = costReport(step);
    expect(cost.kernels.length).toBe(1);
    // A multiply-add is two operations; bias and relu are one each an element.
    expect(cost.flops).toBe(2 * 5 * 8 * 16 * 4 + 2 * 5 * 8 * 4);
    expect(cost.read).toBe(4 * (5 * 8 * 16 + 5 * 16 * 4 + 5 * 4));
    expect(cost.written).toBe(4 * 5 * 8 * 4);
    expect(cost.intensity).toBe(cost.flops / (cost.read + cost.written));
  });

  it('reads a broadcast operand once', () => {
    const step = compile((x: Tensor, y: Tensor) => mul(x, broadcastTo(y, [100, 50])));
    step(draw(100, 50), draw(1, 50));
    expect(costReport(step)).toMatchObject({ flops: 5000, read: 4 * 5050, written: 4 * 5000 });
  });

  it('counts convolutions, pools and reductions', () => {
    const step = compile((x: Tensor, w: Tensor) => sum(maxPool(conv2d(x, w, { padding: 1 }), 2)));
    step(draw(2, 8, 8, 3), draw(3, 3, 3, 6));
    const by = new Map(costReport(step).kernels.map(k => [k.op, k.flops]));
    expect(by.get('conv2d')).toBe(2 * 2 * 8 * 8 * 6 * 27);
    expect(by.get('maxPool')).toBe(2 * 4 * 4 * 6 * 4);
    expect(by.get('sum')).toBe(2 * 4 * 4 * 6);
  });

  it('counts the backward pass of a product as two', () => {
    const loss = (w: Tensor, x: Tensor) => mean(square(matmul(x, w)));
    const step = compile(valueAndGrad(loss));
    step(draw(16, 32), draw(64, 16));
    const products = costReport(step).kernels.filter(k => k.kernel === 'matmul');
    // x gets no gradient.
    expect(products.map(k => k.flops >= 2 * 64 * 16 * 32)).toEqual([true, true]);
  });

  it('divides by generated weights and compares with the roofline', () => {
    const step = compile((c: Tensor, p: Tensor) => matmul(c, p));
    step(draw(10, 4), draw(4, 1000));
    const machine = { flops: 1e9, bandwidth: 1e9 };
    const cost = costReport(step, { weights: 10_000, seconds: 1e-3, machine });
    const bytes = 4 * (10 * 4 + 4 * 1000 + 10 * 1000);
    expect(cost.perWeight).toEqual({ flops: 8, read: 4 * 0.404, written: 4 });
    expect(cost.boundSeconds).toBeCloseTo(Math.max(80_000, bytes) / 1e9, 12);
    expect(cost.roofline).toBeCloseTo(80_000e-9 / 1e-3, 12);
    const text = costText(cost);
    expect(text).toMatch(/matmul +1 +80 kFLOP +16.2 kB +40 kB/);
    expect(text).toMatch(/per generated weight \(of 10 k\): 8.00 FLOP, 1.62 B read, 4.00 B written/);
    expect(text).toMatch(/8 % of the roofline/);
    const svg = rooflineSvg([{ name: 'a < b', cost }], machine);
    expect(svg.match(/<circle/g)?.length).toBe(1);
    expect(svg).toContain('a &#60; b');
    expect(svg).not.toContain('NaN');
  });

  it('refuses what it cannot know', () => {
    const step = compile((x: Tensor) => mul(x, 2));
    expect(() => costReport(step)).toThrow(/has not been called/);
    step(draw(3));
    expect(() => costReport(step, { weights: 0 })).toThrow(/weights must be above 0, got 0/);
    expect(() => rooflineSvg([{ name: 'x', cost: costReport(step) }], { flops: 1, bandwidth: 1 })).toThrow(
      /'x' has no time/,
    );
  });
});
