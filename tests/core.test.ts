import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { createRef } from '../src/backends/ref.js';
import { grad, hvp, stopGradient, valueAndGrad, vjp } from '../src/core/grad.js';
import { defineOp } from '../src/core/op.js';
import { runtime } from '../src/core/queue.js';
import * as shapes from '../src/core/shape.js';
import { type Tensor, use, withBackend } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import { axisIndex, axisList } from '../src/ops/axes.js';
import * as op from '../src/ops/index.js';

const { add, exp, log, mul, pow, sin, square, sub, sum, tensor } = op;
const precise = createRef({ float: 64 });
beforeEach(() => use(precise));

const values = (x: Tensor): number[] => [...x.dataSync()];
const value = (x: Tensor): number => values(x)[0];
const at = (x: number): Tensor => tensor(x);
/** The code of what `f` throws, and its text. */
function thrown(f: () => unknown): { code: string; message: string } {
  try {
    f();
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('nothing was thrown');
}
const codeOf = (f: () => unknown): string => thrown(f).code;

describe('shapes', () => {
  /** Positions in memory in row-major order, the long way. */
  const positions = (shape: readonly number[], strides: readonly number[]): number[] => {
    let found = [0];
    shape.forEach((n, i) => {
      found = found.flatMap(p => Array.from({ length: n }, (_, k) => p + k * strides[i]));
    });
    return found;
  };

  it('have dense strides', () => {
    expect(shapes.denseStrides([2, 3, 4])).toEqual([12, 4, 1]);
    expect(shapes.denseStrides([])).toEqual([]);
    expect(shapes.isDense([2, 1, 4], [4, 99, 1])).toBe(true);
    expect(shapes.isDense([2, 3], [1, 2])).toBe(false);
    expect(shapes.isDense([2, 3], [0, 1])).toBe(false);
    expect([shapes.sizeOf([]), shapes.sizeOf([2, 0, 3])]).toEqual([1, 0]);
  });

  it('broadcast by the rule of NumPy', () => {
    expect(shapes.broadcastShapes('x', [4, 1, 3], [5, 1], [])).toEqual([4, 5, 3]);
    expect(shapes.broadcastShapes('x', [0, 2], [1, 2])).toEqual([0, 2]);
    expect(() => shapes.broadcastShapes('add', [2, 3], [4])).toThrow(
      /^add: \[2,3\] and \[4\] do not broadcast, axis 1 has 3 and 4$/,
    );
    expect(shapes.broadcastStrides([1, 3], [3, 1], [2, 2, 3])).toEqual([0, 0, 1]);
    expect(shapes.broadcastStrides([2, 3], [3, 1], [3])).toBeNull();
    expect(shapes.broadcastStrides([2], [1], [3])).toBeNull();
  });

  it('reshape without a copy exactly where one set of strides reads the same memory', () => {
    const axis = fc.record({ n: fc.integer({ min: 1, max: 4 }), gap: fc.nat(2), still: fc.boolean() });
    const view = fc.array(axis, { maxLength: 4 }).chain(axes =>
      fc.record({
        axes: fc.constant(axes),
        order: fc.shuffledSubarray([...axes.keys()], { minLength: axes.length }),
        cuts: fc.array(fc.nat(5), { maxLength: 5 }),
      }),
    );
    let views = 0;
    fc.assert(
      fc.property(view, ({ axes, order, cuts }) => {
        const shape = axes.map(({ n }) => n);
        const strides = new Array<number>(axes.length);
        let step = 1;
        for (const i of order) {
          strides[i] = axes[i].still ? 0 : step;
          step *= axes[i].n + axes[i].gap;
        }
        let rest = shapes.sizeOf(shape);
        const to: number[] = [];
        for (const cut of cuts) {
          const divisors = [1, 2, 3, 4, 6, 8].filter(d => rest % d === 0);
          to.push(divisors[cut % divisors.length]);
          rest /= to[to.length - 1];
        }
        to.push(rest);
        const want = positions(shape, strides);
        const dense = shapes.denseStrides(to);
        const only = to.map((n, i) => (n > 1 ? want[dense[i]] - want[0] : 0));
        const possible = positions(to, only).every((p, i) => p === want[i]);
        const got = shapes.reshapeStrides(shape, strides, to);
        expect(got !== null).toBe(possible);
        if (got) expect(positions(to, got)).toEqual(want);
        views += got ? 1 : 0;
      }),
      { numRuns: 500, seed: 7 },
    );
    expect(views).toBeGreaterThan(50);
  });

  it('name axes from either end and refuse others', () => {
    expect(axisIndex('x', -1, [2, 3])).toBe(1);
    expect(() => axisIndex('sum', 2, [2, 3])).toThrow(/^sum: axis 2 is not an axis of \[2,3\]$/);
    expect(() => axisIndex('sum', 0.5, [2, 3])).toThrow(/axis 0.5/);
    expect(axisList('x', [-1, 0], [2, 3])).toEqual([0, 1]);
    expect(axisList('x', undefined, [2, 3])).toEqual([0, 1]);
    expect(() => axisList('sum', [1, -1], [2, 3])).toThrow(/^sum: axes \[1,1\] name one axis twice$/);
  });
});

describe('trees', () => {
  class Box {
    constructor(readonly inside: number) {}
  }
  it('take branches apart and leave everything else whole', () => {
    const box = new Box(3);
    const forest = { a: [1, { b: box }], c: {}, d: [], e: null };
    expect(tree.entries(forest)).toEqual([
      ['a.0', 1],
      ['a.1.b', box],
      ['e', null],
    ]);
    expect(tree.map(x => x, forest)).toEqual(forest);
    expect(tree.rebuild(forest, [7, 8, 9])).toEqual({ a: [7, { b: 8 }], c: {}, d: [], e: 9 });
    expect(tree.map((x, y) => x + y, [1, { k: 2 }], [10, { k: 20 }])).toEqual([11, { k: 22 }]);
    expect(tree.leaves(5)).toEqual([5]);
  });

  it.each([
    [{ a: { b: 1 } }, { a: { c: 1 } }],
    [{ a: [1] }, { a: [1, 2] }],
    [{ a: [1] }, { a: { 0: 1 } }],
    [{ a: 1 }, { a: [1] }],
    [{ a: [1] }, { a: 1 }],
  ])('%j and %j differ at a', (first, second) => {
    const { code, message } = thrown(() => tree.map((x, y) => x + y, first, second));
    expect(code).toBe('ERR_GRAPH');
    expect(message).toMatch(/^trees differ at 'a'/);
  });
});

describe('gradients', () => {
  it('nest: the third derivative of sin', () => {
    const third = grad(grad(grad((x: Tensor) => sin(x))));
    for (const x of [-2, 0.3, 1.7]) expect(value(third(at(x)))).toBeCloseTo(-Math.cos(x), 14);
  });

  it('do not confuse perturbations', () => {
    // d/dx (x · d/dy (x + y)) = 1; one tag for both gives 2.
    const constant = grad((x: Tensor) => mul(x, grad((y: Tensor) => add(x, y))(at(1))));
    expect(value(constant(at(1)))).toBe(1);
    // d/dx (x · d/dy (x y²) at y = x) = d/dx (2 x³) = 6 x².
    const shared = grad((x: Tensor) => mul(x, grad((y: Tensor) => mul(x, square(y)))(x)));
    expect(value(shared(at(3)))).toBe(54);
  });

  it('mix orders and inner steps, as MAML does', () => {
    const inner = grad((w: Tensor, a: Tensor) => square(sub(mul(w, w), a)));
    const outer = (w: Tensor, a: Tensor) => {
      const stepped = sub(w, mul(0.01, inner(w, a)));
      return square(sub(stepped, a));
    };
    const f = (w: number) => {
      const stepped = w - 0.01 * 2 * (w * w - 2) * 2 * w;
      return (stepped - 2) ** 2;
    };
    const h = 1e-5;
    expect(value(grad(outer)(at(1.3), at(2)))).toBeCloseTo((f(1.3 + h) - f(1.3 - h)) / (2 * h), 8);
    const second = grad(grad(outer) as (w: Tensor, a: Tensor) => Tensor)(at(1.3), at(2));
    expect(value(second)).toBeCloseTo((f(1.3 + 1e-4) - 2 * f(1.3) + f(1.3 - 1e-4)) / 1e-8, 5);
  });

  it('follow trees, skip what is not f32, return aux untouched', () => {
    const params = { w: [tensor([1, 2])], labels: tensor(Int32Array.of(1)) };
    const result = valueAndGrad((p: typeof params, scale: number) => {
      const y = mul(p.w[0], scale);
      return [sum(square(y)), { y }] as const;
    })(params, 3);
    expect(value(result.value)).toBe(45);
    expect(values(result.grads.w[0])).toEqual([18, 36]);
    expect(result.grads.labels).toBeNull();
    expect(values(result.aux.y)).toEqual([3, 6]);
  });

  it('add up where a value is used twice, and where one leaf stands twice', () => {
    const x = tensor([2, 3]);
    expect(values(grad((p: Tensor) => sum(mul(p, p)))(x))).toEqual([4, 6]);
    const tied = grad((p: { a: Tensor; b: Tensor }) => sum(mul(p.a, square(p.b))))({ a: x, b: x });
    expect([values(tied.a), values(tied.b)]).toEqual([
      [4, 9],
      [8, 18],
    ]);
  });

  it('refuse an unused parameter unless zeros are asked for', () => {
    const f = (p: { a: Tensor; b: { c: Tensor } }) => square(p.a);
    const params = { a: at(2), b: { c: tensor([1, 2]) } };
    const { code, message } = thrown(() => grad(f)(params));
    expect(code).toBe('ERR_GRAPH');
    expect(message).toMatch(/'b\.c' \[2\]/);
    expect(values(grad(f, { unused: 'zeros' })(params).b.c)).toEqual([0, 0]);
  });

  it('refuse promises, values that are no scalars, and ops without a derivative', () => {
    // The types forbid these calls, JavaScript makes them.
    const untyped = (f: (...args: any[]) => unknown, ...args: unknown[]) => Reflect.apply(f, undefined, args);
    const late = async (x: Tensor) => x;
    expect(codeOf(() => untyped(grad, late)(at(1)))).toBe('ERR_GRAPH');
    expect(codeOf(() => untyped(vjp, late, at(1)))).toBe('ERR_GRAPH');
    expect(codeOf(() => untyped(grad, () => 3)(at(1)))).toBe('ERR_SHAPE');
    expect(codeOf(() => grad((x: Tensor) => mul(x, 2))(tensor([1, 2])))).toBe('ERR_SHAPE');
    const blind = defineOp({
      name: 'blind',
      outputs: ([x]) => ({ shape: x.shape }),
      ref: ([y], [x]) => y.data.set(x.data),
    });
    expect(thrown(() => grad((x: Tensor) => blind([x]))(at(1)))).toMatchObject({
      code: 'ERR_GRAPH',
      message: 'blind has no derivative',
    });
    expect(runtime.openGradients).toBe(0);
  });

  it('stop where they are told to', () => {
    const f = grad((x: Tensor) => mul(x, stopGradient(exp(x))));
    expect(value(f(at(2)))).toBeCloseTo(Math.exp(2), 12);
  });

  it('refuse to read a value that carries one, also in a promise', async () => {
    const reading = (read: (x: Tensor) => unknown) => () =>
      grad((x: Tensor) => {
        read(mul(x, 2));
        return x;
      })(at(1));
    expect(codeOf(reading(x => x.dataSync()))).toBe('ERR_GRAPH');
    let late: Promise<unknown> = Promise.resolve();
    reading(x => {
      late = x.data();
    })();
    await expect(late).rejects.toMatchObject({ code: 'ERR_GRAPH' });
    expect(reading(x => stopGradient(x).dataSync())).not.toThrow();
  });

  it('leave no trace on what leaks out of them', () => {
    let leaked = at(0);
    const f = grad((x: Tensor) => (leaked = mul(x, 2)));
    withBackend(precise, () => f(at(1)));
    expect([leaked.deps, leaked.node]).toEqual([0, null]);
    const outside = at(5);
    expect(value(grad((x: Tensor) => mul(x, outside))(at(1)))).toBe(5);
    expect(outside.deps).toBe(0);
  });

  it('open and close in order when the function throws', () => {
    const broken = grad((_x: Tensor): Tensor => {
      throw new RangeError('mine');
    });
    expect(() => grad((x: Tensor) => add(x, broken(x)))(at(1))).toThrow('mine');
    expect(runtime.openGradients).toBe(0);
    expect(value(grad((x: Tensor) => square(x))(at(3)))).toBe(6);
  });

  it('go 31 deep and say so beyond', () => {
    const nested = (depth: number): ((x: Tensor) => Tensor) =>
      depth === 0 ? (x: Tensor) => exp(x) : grad(nested(depth - 1));
    expect(value(nested(4)(at(1)))).toBeCloseTo(Math.E, 12);
    let open = 0;
    const dive = (x: Tensor): Tensor => {
      open++;
      return grad(dive)(x);
    };
    expect(thrown(() => grad(dive)(at(1)))).toMatchObject({
      code: 'ERR_GRAPH',
      message: 'more than 31 gradients are open at once',
    });
    expect(open).toBe(31);
    expect(runtime.openGradients).toBe(0);
  });

  it('multiply a Hessian: that of log-sum-exp', () => {
    const x = [0.3, -1.2, 0.8];
    const v = [1, 0.5, -2];
    const got = hvp((p: Tensor) => log(sum(exp(p))), tensor(x), tensor(v));
    const total = x.reduce((s, a) => s + Math.exp(a), 0);
    const p = x.map(a => Math.exp(a) / total);
    const pv = p.reduce((s, a, i) => s + a * v[i], 0);
    values(got).forEach((h, i) => {
      expect(h).toBeCloseTo(p[i] * (v[i] - pv), 12);
    });
  });

  it('pull back many times, later, and inside another gradient', () => {
    const { value: y, pullback } = vjp((p: { x: Tensor; k: Tensor }) => [mul(p.x, p.k), sin(p.x)], {
      x: tensor([1, 2]),
      k: at(3),
    });
    expect(y.map(values)[0]).toEqual([3, 6]);
    const zero = tensor([0, 0]);
    const first = pullback([tensor([1, 1]), zero]);
    expect([values(first.x), values(first.k)]).toEqual([[3, 3], [3]]);
    expect(values(pullback([zero, tensor([1, 0])]).x)).toEqual([Math.cos(1), 0]);
    expect(values(pullback([zero, tensor([1, 0])]).k)).toEqual([0]);
    // The pullback is linear in its cotangent: its own derivative is the map forward.
    const through = grad((g: Tensor) => sum(mul(tensor([5, 7]), pullback([g, zero]).x)))(tensor([1, 1]));
    expect(values(through)).toEqual([15, 21]);
    // A vjp taken inside a gradient is differentiated in what it closes over.
    const mixed = grad((a: Tensor) => {
      const inner = vjp((b: Tensor) => mul(a, pow(b, 3)), at(2));
      return sum(inner.pullback(at(1)));
    });
    expect(value(mixed(at(4)))).toBe(12);
  });
});

describe('checkpoint and customVjp', () => {
  const f = (x: Tensor, y: Tensor) => sum(sin(mul(x, exp(y))));
  const x = () => tensor([0.4, -0.7]);
  const y = () => tensor([0.2, 0.5]);

  it('give the derivatives of the plain function, to second order', () => {
    let runs = 0;
    const counted = (a: Tensor, b: Tensor) => {
      runs++;
      return f(a, b);
    };
    const both = (g: typeof f) => (p: { a: Tensor; b: Tensor }) => mul(g(p.a, p.b), p.a);
    const total = (g: typeof f) => (p: { a: Tensor; b: Tensor }) => sum(both(g)(p));
    const params = () => ({ a: x(), b: y() });
    const want = grad(total(f))(params());
    const got = grad(total(op.checkpoint(counted)))(params());
    expect(runs).toBe(2);
    expect([values(got.a), values(got.b)]).toEqual([values(want.a), values(want.b)]);
    const [h, k] = [f, op.checkpoint(f)].map(g => hvp(total(g), params(), { a: y(), b: x() }));
    values(k.a).forEach((v, i) => {
      expect(v).toBeCloseTo(values(h.a)[i], 13);
    });
    values(k.b).forEach((v, i) => {
      expect(v).toBeCloseTo(values(h.b)[i], 13);
    });
  });

  it('run the function plainly where no gradient is open', () => {
    expect(value(op.checkpoint(f)(x(), y()))).toBe(value(f(x(), y())));
  });

  it('refuse a closure over a tensor that carries a gradient', () => {
    const cut = (wrap: (g: (b: Tensor) => Tensor) => (b: Tensor) => Tensor) => () =>
      grad((a: Tensor) => wrap(b => mul(a, b))(mul(a, 2)))(at(3));
    expect(codeOf(cut(op.checkpoint))).toBe('ERR_GRAPH');
    expect(codeOf(cut(g => op.customVjp(g, ct => [ct])))).toBe('ERR_GRAPH');
    expect(value(grad((x: Tensor) => square(x))(at(3)))).toBe(6);
  });

  it('use the derivative that was given, and differentiate it', () => {
    // A straight-through floor: the derivative of the identity.
    const through = op.customVjp(
      (a: Tensor) => op.floor(a),
      g => [g],
    );
    expect(value(grad((a: Tensor) => mul(through(a), 3))(at(2.7)))).toBe(3);
    const cube = op.customVjp(
      (a: Tensor) => mul(a, square(a)),
      (g, [a]) => [mul(g, mul(3, square(a)))],
    );
    const third = grad(grad(grad(cube)));
    expect(value(grad(cube)(at(2)))).toBe(12);
    expect(value(grad(grad(cube))(at(2)))).toBe(12);
    expect(value(third(at(2)))).toBe(6);
  });

  it('pass trees in and out, and inputs that have no gradient', () => {
    const pick = op.customVjp(
      (p: { a: Tensor }, index: Tensor) => ({ taken: op.take(p.a, index), all: sum(p.a) }),
      (g, [p, index]) => [{ a: add(op.scatterAdd(g.taken, index, 0, p.a.shape), g.all) }, null],
    );
    const got = grad((a: Tensor) => {
      const { taken, all } = pick({ a }, tensor(Int32Array.of(2, 2)));
      return add(sum(mul(taken, 5)), mul(all, 2));
    })(tensor([1, 2, 3]));
    expect(values(got)).toEqual([2, 2, 12]);
  });
});
