/** Parts that hypernetworks are composed of, each against what it promises. */
import { describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import {
  attentionEncoder,
  chunkedHead,
  dense,
  fullHead,
  gateConditions,
  grad,
  type Head,
  hypernet,
  key,
  lowRankHead,
  materialise,
  mean,
  mixedHead,
  mul,
  normal,
  recursiveHead,
  reshape,
  serial,
  setEncoder,
  slice,
  square,
  sum,
  type Tensor,
  tanh,
  taskId,
  tensor,
  tree,
  trunkHead,
  use,
} from '../src/index.js';
import { expectDerivatives } from './derivatives.js';

use(createRef({ float: 64 }));
const values = (x: Tensor) => Array.from(x.dataSync());
const i32 = (...xs: number[]) => tensor(Int32Array.from(xs));

const target = serial(dense(4), tanh, dense(5), tanh, dense(2));
const inShape = [3];
const support = { x: normal(key(1), [3, 6, 3]), y: normal(key(2), [3, 6, 2]) };
const query = normal(key(3), [3, 4, 3]);
const smooth = { target, inShape, trunk: dense(5), activation: tanh };

describe('gateConditions', () => {
  const hyper = hypernet({
    ...smooth,
    condition: gateConditions(setEncoder([4]), taskId(3, 2)),
    head: fullHead(),
  });
  const phi = hyper.init(key(0));
  /** The parameters with a gate of the same number everywhere, as its sigmoid sees it. */
  const forced = (at: number) => ({
    ...phi,
    condition: {
      ...phi.condition,
      gate: { w: mul(phi.condition.gate.w, 0), b: tensor(new Float32Array(4).fill(at)) },
    },
  });
  const ids = i32(0, 1, 2);

  it('leaves the code as it is where it is open, bit for bit', () => {
    const open = values(hyper.encode(forced(Infinity), [support, ids]));
    const plain = setEncoder([4])({ inShape, outShape: [2] }).encode(phi.condition.gated, support);
    expect(open).toEqual(values(plain));
  });

  it('makes weights independent of the gated input where it is shut', () => {
    const shut = forced(-Infinity);
    const other = { x: normal(key(8), [3, 6, 3]), y: support.y };
    const weights = (rows: typeof support) =>
      tree.leaves<Tensor>(materialise(hyper.generate(shut, hyper.encode(shut, [rows, ids])))).map(values);
    expect(weights(other)).toEqual(weights(support));
  });

  it('passes the gradient check through both conditions', () => {
    const loss = (p: typeof phi) =>
      mean(square(target.apply(hyper.generate(p, hyper.encode(p, [support, ids])), query)));
    expectDerivatives(loss, phi, key(4), 1e-5);
    const { condition } = grad(loss)(phi);
    for (const part of [condition.gated, condition.by, condition.gate])
      expect(tree.leaves<Tensor>(part).some(g => values(g).some(x => x !== 0))).toBe(true);
  });
});

describe('attentionEncoder', () => {
  const encoder = attentionEncoder([6, 4])({ inShape, outShape: [2] });
  const hyper = hypernet({ ...smooth, condition: attentionEncoder([6, 4]), head: fullHead() });
  const phi = hyper.init(key(0));
  const mask = tensor(Float32Array.from([1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1]), [3, 6]);

  it('weighs rows by numbers that add up to 1, masked rows by 0', () => {
    const weights = values(encoder.attention(phi.condition, { ...support, mask }));
    for (let t = 0; t < 3; t++) {
      const row = weights.slice(6 * t, 6 * t + 6);
      expect(Math.abs(row.reduce((a, b) => a + b) - 1)).toBeLessThan(1e-6);
      row.forEach((w, s) => {
        if (values(mask)[6 * t + s] === 0) expect(w).toBe(0);
        else expect(w).toBeGreaterThan(0);
      });
    }
  });

  it('gives masked rows no gradient, the others one', () => {
    const loss = (x: Tensor) =>
      mean(square(target.apply(hyper.generate(phi, hyper.encode(phi, { ...support, x, mask })), query)));
    const slopes = values(sum(square(grad(loss)(support.x)), -1));
    expect(slopes.map(s => s !== 0)).toEqual(values(mask).map(m => m !== 0));
  });

  it('does not see the order of rows', () => {
    const order = [3, 1, 5, 0, 2, 4];
    const turn = (t: Tensor) => {
      const [T, S, d] = t.shape;
      const from = values(t);
      const to = Float64Array.from(from, (_, i) => {
        const [task, row, at] = [Math.floor(i / (S * d)), Math.floor(i / d) % S, i % d];
        return from[(task * S + order[row]) * d + at];
      });
      return tensor(Float32Array.from(to), [T, S, d]);
    };
    const code = values(hyper.encode(phi, support));
    values(hyper.encode(phi, { x: turn(support.x), y: turn(support.y) })).forEach((x, i) => {
      expect(Math.abs(x - code[i])).toBeLessThan(1e-6);
    });
  });

  it('passes the gradient check', () => {
    expectDerivatives(
      (p: typeof phi) =>
        mean(square(target.apply(hyper.generate(p, hyper.encode(p, { ...support, mask })), query))),
      phi,
      key(5),
      1e-5,
    );
  });

  it('refuses rows in unequal numbers', () => {
    expect(() => hyper.encode(phi, { ...support, rows: Int32Array.of(0, 3, 6) })).toThrow(/give a mask/);
  });
});

/** The hypernetwork of a head, and its weights for three tasks as lists by layer: [w, b] of layers 0, 2 and 4. */
function made(head: Head) {
  const hyper = hypernet({ ...smooth, condition: setEncoder([4]), head });
  const phi = hyper.init(key(0));
  const weights = (p: any) =>
    tree.leaves<Tensor>(materialise(hyper.generate(p, hyper.encode(p, support)))).map(values);
  const loss = (p: any) => mean(square(target.apply(hyper.generate(p, hyper.encode(p, support)), query)));
  return { hyper, phi, weights, loss };
}

describe('a head for each layer', () => {
  const own = [
    fullHead(),
    trunkHead(dense(6), chunkedHead({ chunk: 9, slot: 3 }), tanh),
    lowRankHead({ rank: 1 }),
  ];
  const { phi, weights, loss } = made(mixedHead((_, i) => own[i >> 1]));

  it('moves its layer and no other', () => {
    const before = weights(phi);
    for (const l of [0, 1, 2]) {
      const parts = phi.head.parts.map((p: any, i: number) =>
        i === l ? tree.map((x: Tensor) => mul(x, 1.5), p) : p,
      );
      const after = weights({ ...phi, head: { parts } });
      const changed = after.map((w, i) => w.some((x, j) => x !== before[i][j]));
      expect([changed[2 * l] || changed[2 * l + 1], changed.filter((_, i) => i >> 1 !== l)]).toEqual([
        true,
        [false, false, false, false],
      ]);
    }
  });

  it('passes the gradient check', () => expectDerivatives(loss, phi, key(6), 1e-5));

  it('refuses a head that reads more than the code', () => {
    expect(() => made(mixedHead(() => chunkedHead({ chunk: 9 })))).toThrow(/trunkHead/);
  });
});

describe('recursiveHead', () => {
  const { phi, weights, loss } = made(recursiveHead(fullHead({ base: false }), 5));

  it("lets the parameters of one layer's weights move the next layer's, not those before", () => {
    const before = weights(phi);
    const moved = (l: number) => {
      const levels = phi.head.levels.map((p: any, i: number) =>
        i === l ? { ...p, head: tree.map((x: Tensor) => mul(x, 1.5), p.head) } : p,
      );
      const after = weights({ ...phi, head: { levels } });
      return [0, 1, 2].map(at => after[2 * at].some((x, j) => x !== before[2 * at][j]));
    };
    expect(moved(0)).toEqual([true, true, true]);
    expect(moved(1)).toEqual([false, true, true]);
    expect(moved(2)).toEqual([false, false, true]);
  });

  it("passes the gradient check, with a gradient from the last layer's output to the first layer's head", () => {
    expectDerivatives(loss, phi, key(7), 1e-5);
    const hyper = hypernet({
      ...smooth,
      condition: setEncoder([4]),
      head: recursiveHead(fullHead({ base: false }), 5),
    });
    const last = (p: any) => {
      const theta = hyper.generate(p, hyper.encode(p, support));
      return sum(square(materialise(theta.layers[4].w)));
    };
    const { levels } = grad(last, { unused: 'zeros' })(phi).head;
    expect(values(levels[0].head.basis).some(g => g !== 0)).toBe(true);
  });

  it('of a target of one layer is the head itself', () => {
    const one = dense(2);
    const bySelf = hypernet({ target: one, inShape, condition: setEncoder([4]), head: fullHead() });
    const recursive = hypernet({
      target: one,
      inShape,
      condition: setEncoder([4]),
      head: recursiveHead(fullHead()),
    });
    const p = bySelf.init(key(0));
    const same = { ...p, head: { levels: [{ head: p.head }] } };
    const [a, b] = [
      one.apply(bySelf.generate(p, bySelf.encode(p, support)), query),
      one.apply(recursive.generate(same, recursive.encode(same, support)), query),
    ];
    expect(values(b)).toEqual(values(a));
  });
});

it('every head starts weights with the variance their layer asks for', () => {
  const wide = serial(dense(64), tanh, dense(64), tanh, dense(8));
  const own = [fullHead(), fullHead(), fullHead()];
  for (const head of [
    recursiveHead(fullHead()),
    mixedHead((_, i) => own[i >> 1]),
    trunkHead(dense(64), fullHead()),
  ]) {
    const hyper = hypernet({
      target: wide,
      inShape: [32],
      condition: taskId(64, 16),
      trunk: dense(64),
      head,
    });
    const phi = hyper.init(key(3));
    const ids = tensor(Int32Array.from({ length: 64 }, (_, i) => i));
    const theta: any = materialise(hyper.generate(phi, hyper.encode(phi, ids)));
    [32, 64].forEach((fanIn, l) => {
      const w = theta.layers[2 * l].w as Tensor;
      const variance = values(mean(square(reshape(slice(w, 0, 0, 64), [-1]))))[0];
      expect(variance / (2 / fanIn)).toBeGreaterThan(0.85);
      expect(variance / (2 / fanIn)).toBeLessThan(1.15);
    });
  }
});
