import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import type { Backend } from '../src/core/backend.js';
import { grad, valueAndGrad } from '../src/core/grad.js';
import { type Tensor, use } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import * as o from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';
import { randomStep, runBoth } from './programs.js';

type Params = Record<string, Tensor>;
let backend: Backend;
beforeEach(() => {
  backend = createRef({ float: 64 });
  use(backend);
});
afterEach(() => backend.dispose());

const values = (t: unknown) => tree.leaves<Tensor>(t).map(x => Array.from(x.dataSync()));

/** Adam on a small regression net, with everything a training step has. */
function problem() {
  const [k1, k2, k3] = o.split(o.key(3), 3);
  const params: Params = {
    w1: o.mul(o.normal(k1, [3, 8]), 0.5),
    b1: o.zeros([8]),
    w2: o.mul(o.normal(k2, [8, 2]), 0.5),
    b2: o.zeros([2]),
  };
  const x = o.normal(k3, [4, 5, 3]);
  const y = o.sin(o.slice(x, -1, 0, 2));
  const loss = (p: Params, x: Tensor, y: Tensor) => {
    const h = o.relu(o.add(o.matmul(x, p.w1), p.b1));
    return o.mean(o.square(o.sub(o.add(o.matmul(h, p.w2), p.b2), y)));
  };
  const zeros = () => tree.map((p: Tensor) => o.zeros(p.shape), params) as Params;
  const step = (p: Params, s: { m: Params; v: Params }, x: Tensor, y: Tensor, lr: number | Tensor) => {
    const { value, grads } = valueAndGrad(loss)(p, x, y);
    const m = tree.map((m: Tensor, g: Tensor) => o.add(o.mul(m, 0.9), o.mul(g, 0.1)), s.m, grads);
    const v = tree.map((v: Tensor, g: Tensor) => o.add(o.mul(v, 0.99), o.mul(o.square(g), 0.01)), s.v, grads);
    const next = tree.map(
      (p: Tensor, m: Tensor, v: Tensor) => o.sub(p, o.mul(lr, o.div(m, o.add(o.sqrt(v), 1e-8)))),
      p,
      m,
      v,
    );
    return [next, { m, v }, value] as const;
  };
  return { params, state: { m: zeros(), v: zeros() }, x, y, loss, step };
}

describe('compile', () => {
  test('a training step gives the eager bits, in fewer commands, with every parameter in place', () => {
    const { params, state, x, y, step } = problem();
    let eager = [params, state] as const;
    const losses: number[] = [];
    for (let i = 0; i < 5; i++) {
      const [p, s, loss] = step(eager[0], eager[1], x, y, 0.01 * (i + 1));
      eager = [p, s];
      losses.push(loss.dataSync()[0]);
    }
    const fast = compile(step as (...args: any[]) => any, { donate: [0, 1] });
    const copyOf = (t: unknown) => tree.map((a: Tensor) => o.copy(a), t);
    let [p, s] = [copyOf(params), copyOf(state)];
    const seen: Tensor[] = [];
    for (let i = 0; i < 5; i++) {
      const out = fast(p, s, x, y, 0.01 * (i + 1));
      [p, s] = out;
      seen.push(out[2]);
    }
    expect(values([p, s])).toEqual(values(eager));
    expect(seen.map(t => t.dataSync()[0])).toEqual(losses);
    const [stats, ...others] = fast.stats();
    expect(others).toEqual([]);
    expect(stats.inPlace).toBe(12);
    expect(stats.commands.length).toBeLessThan(stats.recorded / 3);
  });

  test('numbers computed of numbers alone take no command', () => {
    const scaled = (x: Tensor) => o.mul(x, o.sub(o.div(o.full([], 3), 7), o.full([1], 0.1)));
    const x = o.tensor([1, -2, 0.3]);
    const fast = compile(scaled);
    expect(values(fast(x))).toEqual(values(scaled(x)));
    expect(fast.stats()[0].commands.map(c => c.op)).toHaveLength(1);
  });

  test('second-order MAML gives the eager bits', () => {
    const { params, x, y, loss } = problem();
    const outer = (p: Params, x: Tensor, y: Tensor) => {
      let q = p;
      for (let k = 0; k < 2; k++)
        q = tree.map((w: Tensor, g: Tensor) => o.sub(w, o.mul(g, 0.1)), q, grad(loss)(q, x, y));
      return loss(q, x, y);
    };
    const step = (p: Params, x: Tensor, y: Tensor) => {
      const { value, grads } = valueAndGrad(outer)(p, x, y);
      return [tree.map((w: Tensor, g: Tensor) => o.sub(w, o.mul(g, 0.1)), p, grads), value] as const;
    };
    const eager = step(params, x, y);
    const fast = compile(step as (...args: any[]) => any, { donate: [0] });
    const wanted = values(eager);
    expect(
      values(
        fast(
          tree.map((a: Tensor) => o.copy(a), params),
          x,
          y,
        ),
      ),
    ).toEqual(wanted);
  });

  test('in place only where no read is harmed', () => {
    const matrix = () =>
      o.tensor([
        [1, 2],
        [6, 4],
      ]);
    const symmetric = compile((w: Tensor) => [o.mul(o.add(w, o.transpose(w)), 0.5)], { donate: [0] });
    expect(values(symmetric(matrix()))).toEqual([[1, 4, 4, 4]]);
    const norm = compile((w: Tensor) => [o.sub(w, 1), o.sum(o.square(w))], { donate: [0] });
    expect(values(norm(o.tensor([2, 5])))).toEqual([[1, 4], [29]]);
    const swap = compile((a: Tensor, b: Tensor) => [b, a], { donate: [0, 1] });
    expect(values(swap(o.tensor([1]), o.tensor([2])))).toEqual([[2], [1]]);
  });

  test('donated tensors are dead, views on them too, and results keep for a while', () => {
    const step = compile((w: Tensor) => [o.add(w, 1), o.sum(w)], { donate: [0], keep: 2 });
    const w = o.tensor([1, 2]);
    const view = o.slice(w, 0, 0, 1);
    const [w1, s1] = step(w) as Tensor[];
    expect(() => w.dataSync()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    expect(() => o.add(view, 1)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    const [w2] = step(w1) as Tensor[];
    expect(values([s1])).toEqual([[3]]);
    step(w2);
    expect(() => s1.dataSync()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    const x = o.tensor([1, 2]);
    expect(() => compile((a: Tensor, b: Tensor) => [o.add(a, b)], { donate: [0] })(x, x)).toThrow(/shares/);
    const part = o.slice(o.tensor([1, 2, 3]), 0, 1);
    expect(() => compile((a: Tensor) => [o.add(a, 1)], { donate: [0] })(part)).toThrow(/view/);
    expect(() => compile((a: Tensor) => [o.sum(a)], { donate: [0] })(x)).toThrow(/donated argument 0/);
  });

  test('numbers are data, strings are keys, shapes make programs', () => {
    const f = compile((x: Tensor, scale: number, mode: string) =>
      mode === 'up' ? o.mul(x, scale) : o.div(x, scale),
    );
    const x = o.tensor([2, 4]);
    for (const s of [1, 2, 3]) expect(values(f(x, s, 'up'))).toEqual([[2 * s, 4 * s]]);
    expect(f.stats().length).toBe(1);
    expect(values(f(x, 2, 'down'))).toEqual([[1, 2]]);
    expect(values(f(o.tensor([1]), 2, 'down'))).toEqual([[0.5]]);
    expect(f.stats().length).toBe(3);
    expect(values(f(o.slice(o.tensor([9, 2, 4]), 0, 1), 2, 'up'))).toEqual([[4, 8]]);
    const typed = compile((x: Tensor) => o.sum(x));
    // A compiled step has the type of its function, and takes arrays too.
    expect(values(Reflect.apply(typed, undefined, [Float32Array.of(1, 2)]))).toEqual([[3]]);
  });

  test('one program serves the same tensor in two places, inputs returned, views and duplicates', () => {
    const f = compile((a: Tensor, b: Tensor) => ({ sum: o.add(a, b), a, t: o.transpose(b), again: a }));
    const x = o.tensor([
      [1, 2],
      [3, 4],
    ]);
    const y = o.tensor([
      [5, 6],
      [7, 8],
    ]);
    expect(values(f(x, y))).toEqual([
      [6, 8, 10, 12],
      [1, 2, 3, 4],
      [5, 7, 6, 8],
      [1, 2, 3, 4],
    ]);
    expect(values(f(x, x))).toEqual([
      [2, 4, 6, 8],
      [1, 2, 3, 4],
      [1, 3, 2, 4],
      [1, 2, 3, 4],
    ]);
  });

  test('a step that is no function of its arguments is told so', () => {
    let k = 0;
    const counter = compile((x: Tensor) => o.add(x, ++k));
    const x = o.tensor([1]);
    counter(x);
    expect(() => counter(x)).toThrow(/other literals/);
    let closed = o.tensor([1]);
    const closing = compile((x: Tensor) => o.add(x, closed));
    expect(values(closing(x))).toEqual([[2]]);
    closed = o.tensor([5]);
    expect(() => closing(x)).toThrow(/closed over/);
    const steady = compile((x: Tensor) => o.add(x, o.tensor([1, 2])));
    expect(values(steady(x))).toEqual([[2, 3]]);
    expect(values(steady(x))).toEqual([[2, 3]]);
  });

  test('nothing is read, awaited or leaked inside', () => {
    const x = o.tensor([1]);
    expect(() => compile((x: Tensor) => o.add(x, x.dataSync()[0]))(x)).toThrow(/inside a compiled step/);
    expect(() => compile(async (x: Tensor) => x)(x)).toThrow(/synchronous/);
    let leaked: Tensor | null = null;
    compile((x: Tensor) => (leaked = o.add(x, 1)))(x);
    expect(() => o.add(leaked!, 1)).toThrow(/ended/);
    expect(() =>
      compile((_: Tensor) => {
        throw new RangeError('mine');
      })(x),
    ).toThrow(RangeError);
    expect(values(o.add(x, 1))).toEqual([[2]]);
  });

  test('inside a gradient or another step it is its plain function', () => {
    const f = compile((x: Tensor) => o.sum(o.mul(x, o.square(x))));
    const x = o.tensor([2, 3]);
    expect(values(grad((y: Tensor) => f(y))(x))).toEqual([[12, 27]]);
    expect(values(compile((y: Tensor) => o.add(f(y), 1))(x))).toEqual([[36]]);
    const g = compile((w: Tensor) => o.mul(w, 2));
    expect(() =>
      grad((y: Tensor) => o.sum(compile((w: Tensor) => o.mul(w, y))(o.tensor([1, 1]))))(x),
    ).toThrow(/closes over/);
    expect(values(g(x))).toEqual([[4, 6]]);
  });

  test('concat and pad windows survive fusion and packing', () => {
    const f = (x: Tensor) => {
      const a = o.concat([o.add(x, 1), o.mul(x, 2)], 1);
      return o.sum(o.mul(o.pad(a, 0, 1, 2), o.pad(o.exp(a), 0, 2, 1)), 0);
    };
    const x = o.tensor([
      [1, 2],
      [3, 4],
    ]);
    expect(values(compile(f)(x))).toEqual(values(f(x)));
  });

  test('random steps: compiled equals eager to the bit, whatever is fused, packed or donated', async () => {
    await fc.assert(
      fc.asyncProperty(randomStep, async step => {
        const { eager, first, again } = await runBoth(step);
        expect(first).toEqual(eager);
        expect(again).toEqual(eager);
      }),
      { numRuns: 300, seed: 1 },
    );
  });
});
