import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { createRef } from '../src/backends/ref.js';
import {
  add,
  type Backend,
  ChunkedGenerated,
  checkpoint,
  concat,
  FullGenerated,
  type Generated,
  GraphError,
  grad,
  hvp,
  key,
  type LinearShapes,
  LowRankGenerated,
  linear,
  materialise,
  matmul,
  mul,
  nn,
  normal,
  planLinear,
  planOf,
  plansFor,
  projectFull,
  reshape,
  type Strategy,
  scope,
  split,
  stack,
  stopGradient,
  sum,
  type Tensor,
  tanh,
  tensor,
  tree,
  use,
  valueAndGrad,
  vjp,
  withBackend,
} from '../src/index.js';
import { machines } from '../src/program/rates.js';
import { counting, expectDerivatives, expectSameTree } from './derivatives.js';

const ref = createRef({ float: 64 });
use(ref);
let cpu: Backend;
beforeAll(async () => {
  cpu = await open('cpu');
});
afterAll(() => cpu.dispose());

interface Case {
  readonly kind: LinearShapes['kind'];
  readonly T: number;
  readonly n: number;
  readonly E: number;
  readonly i: number;
  readonly o: number;
  readonly base: boolean;
  /** Row counts where tasks are ragged. */
  readonly counts: number[] | null;
  readonly seed: number;
}
const size = fc.integer({ min: 1, max: 5 });
const someCase: fc.Arbitrary<Case> = fc
  .record({
    kind: fc.constantFrom('full' as const, 'chunked' as const, 'lowRank' as const),
    T: size,
    n: size,
    E: size,
    i: size,
    o: size,
    base: fc.boolean(),
    ragged: fc.option(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 5, maxLength: 5 })),
    seed: fc.nat(1000),
  })
  .map(({ ragged, ...c }) => ({ ...c, counts: ragged?.slice(0, c.T) ?? null }))
  .filter(c => !c.counts || c.counts.some(n => n > 0));

function offsetsOf(counts: number[]): number[] {
  const offsets = [0];
  for (const n of counts) offsets.push(offsets[offsets.length - 1] + n);
  return offsets;
}

/** Tensors a generated weight is made of, beside x and b; the chunk and its start depend on the case. */
function drawParts({ kind, T, n, E, i, o, base, counts, seed }: Case) {
  const keys = split(key(seed), 6);
  const chunk = 1 + (seed % 4);
  const start = seed % 3;
  const chunks = Math.ceil((start + i * o) / chunk);
  const rows = counts ? [counts.reduce((a, b) => a + b, 0)] : [T, n];
  const weight: Record<string, Tensor> =
    kind === 'full'
      ? { code: normal(keys[0], [T, E]), basis: normal(keys[1], [E, i, o]) }
      : kind === 'chunked'
        ? { code: normal(keys[0], [T, chunks, E]), basis: normal(keys[1], [E, chunk]) }
        : { a: normal(keys[0], [T, i, E]), b: normal(keys[1], [T, E, o]) };
  return {
    parts: {
      weight: base ? { ...weight, base: normal(keys[2], [i, o]) } : weight,
      x: normal(keys[3], [...rows, i]),
      b: normal(keys[4], [T, o]),
    },
    build: (made: Record<string, Tensor>): Generated => {
      const { code, basis, a, b } = made;
      const shared = base ? made.base : null;
      if (kind === 'full') return new FullGenerated(code, basis, shared);
      if (kind === 'chunked') return new ChunkedGenerated(code, basis, [i, o], shared, start);
      return new LowRankGenerated(a, b, 0.5, shared);
    },
    key: keys[5],
  };
}

const plansOf: Record<Case['kind'], Strategy[]> = {
  full: ['materialise', 'fused', 'reorder'],
  chunked: ['materialise'],
  lowRank: ['materialise', 'lowRank'],
};

/** Value, gradient and Hessian times a direction of a smooth loss through `linear`, as plain arrays. */
function results(c: Case, strategy: Strategy | undefined) {
  const { parts, build, key: k } = drawParts(c);
  const rows = c.counts ? Int32Array.from(offsetsOf(c.counts)) : undefined;
  const loss = (p: typeof parts) => sum(tanh(linear(p.x, build(p.weight), p.b, { rows, strategy })));
  const { value, grads } = valueAndGrad(loss)(parts);
  const keys = split(k, tree.leaves(parts).length);
  let i = 0;
  const direction = tree.map(x => normal(keys[i++], x.shape), parts);
  return { value, grads, second: hvp(loss, parts, direction) };
}

describe('every plan gives the same', () => {
  it('values, gradients and second gradients in float64', () => {
    fc.assert(
      fc.property(someCase, c => {
        const [first, ...others] = [...plansOf[c.kind], undefined].map(plan => results(c, plan));
        for (const other of others) expectSameTree(other, first, 1e-9);
      }),
      { numRuns: 60, seed: 1 },
    );
  });

  it('on cpu, in f32, as on the oracle', () => {
    fc.assert(
      fc.property(someCase, c => {
        const oracle = results(c, undefined);
        withBackend(cpu, () => {
          // f32 rounding of sums of at most 25 products of a few units each, twice through.
          for (const plan of plansOf[c.kind]) expectSameTree(results(c, plan), oracle, 1e-4, 1);
        });
      }),
      { numRuns: 30, seed: 2 },
    );
  });

  it('and derivatives that agree with finite differences', () => {
    for (const kind of ['full', 'chunked', 'lowRank'] as const)
      for (const strategy of plansOf[kind])
        for (const counts of [null, [2, 0, 3]]) {
          const {
            parts,
            build,
            key: k,
          } = drawParts({
            ...{ kind, counts, T: 3, n: 2, E: 3, i: 3, o: 2, base: true, seed: 11 },
          });
          const rows = counts ? tensor(Int32Array.from(offsetsOf(counts))) : undefined;
          expectDerivatives(p => sum(tanh(linear(p.x, build(p.weight), p.b, { rows, strategy }))), parts, k);
        }
  });
});

describe('materialise', () => {
  it('full: the sum over the code, written out', () => {
    const code = [1, 2, 3, 4];
    const basis = [1, 0, 2, 5, 10, 20, 30, 40];
    const w = new FullGenerated(
      tensor(code, [2, 2]),
      tensor(basis, [2, 2, 2]),
      tensor([100, 0, 0, 0], [2, 2]),
    );
    expect(w.shape).toEqual([2, 2, 2]);
    expect([...materialise(w).dataSync()]).toEqual([121, 40, 62, 85, 143, 80, 126, 175]);
  });

  it('chunked: a window of the chunks in a row', () => {
    const code = tensor([1, 10, 100], [1, 3, 1]);
    const w = new ChunkedGenerated(code, tensor([1, 2], [1, 2]), [3], tensor([0, 0, 7]), 1);
    expect([...materialise(w).dataSync()]).toEqual([2, 10, 27]);
  });

  it('lowRank: base + scale · a · b, filters included', () => {
    const a = tensor([1, 2, 3, 4], [1, 4, 1]);
    const b = tensor([5, 6], [1, 1, 2]);
    const w = new LowRankGenerated(a, b, 2, null, [2, 2, 1, 2]);
    expect(w.shape).toEqual([1, 2, 2, 1, 2]);
    expect([...materialise(w).dataSync()]).toEqual([10, 12, 20, 24, 30, 36, 40, 48]);
  });

  it('leaves other leaves of a tree alone', () => {
    const kept = normal(key(0), [3]);
    const w = new FullGenerated(normal(key(1), [2, 3]), normal(key(2), [3, 4]));
    const woven = materialise({ kept, list: [w] });
    expect(woven.kept).toBe(kept);
    expect(woven.list[0].shape).toEqual([2, 4]);
  });

  const shapes = [[2, 3], [3], [1, 2, 2]];
  const parts = { code: normal(key(3), [4, 5]), basis: normal(key(4), [5, 13]), base: normal(key(5), [13]) };
  const pieces = ({ code, basis, base }: typeof parts) => projectFull(code, basis, base, shapes);

  it('of one projection: one product, the same values and gradients as piece by piece', () => {
    const counted = counting(ref);
    const loss = (weave: (ws: FullGenerated[]) => readonly Tensor[]) => (p: typeof parts) =>
      weave(pieces(p)).reduce((total, w) => add(total, sum(tanh(w))), tensor(0));
    const each = (ws: FullGenerated[]) => ws.map(w => w.materialise());
    const flat = (ws: FullGenerated[]) => materialise(ws);
    expectSameTree(grad(loss(flat))(parts), grad(loss(each))(parts), 1e-12);
    expectSameTree(flat(pieces(parts)), each(pieces(parts)), 1e-12);
    const products = (f: (ws: FullGenerated[]) => unknown, change = (p: typeof parts) => pieces(p)) =>
      counted('matmul', () => f(change(withBackend(counted.backend, () => tree.map(copyOf, parts)))));
    expect(products(each)).toBe(3);
    expect(products(flat)).toBe(1);
    expect(products(ws => flat(stopGradient(ws)))).toBe(1);
    expect(products(ws => flat(ws.slice(1)))).toBe(2);
    expect(products(ws => flat([...ws].reverse()))).toBe(1);
    expect(products(flat, p => [...pieces(p), ...pieces({ ...p, code: add(p.code, 1) })])).toBe(2);
  });

  it('of one projection, one piece of it stopped: that piece alone gets no gradient', () => {
    const loss = (freeze: boolean) => (p: typeof parts) => {
      const [first, ...others] = pieces(p);
      const woven = materialise([freeze ? stopGradient(first) : first, ...others]);
      return woven.reduce((total, w) => add(total, sum(tanh(w))), tensor(0));
    };
    const [all, frozen] = [false, true].map(freeze => Array.from(grad(loss(freeze))(parts).base.dataSync()));
    expect(frozen).toEqual(all.map((v, i) => (i < 6 ? 0 : v)));
  });

  it('refuses parts that do not fit, naming both', () => {
    const z = (...shape: number[]) => normal(key(0), shape);
    expect(() => new FullGenerated(z(2, 3), z(4, 5))).toThrow(/code \[2,3\] and basis \[4,5\]/);
    expect(() => new FullGenerated(z(2, 3), z(3, 5), z(4))).toThrow(/the base must be \[5\], got \[4\]/);
    expect(() => new ChunkedGenerated(z(2, 2, 3), z(3, 4), [3, 3])).toThrow(
      /\[3,3\] from element 0 does not fit 2 chunks of 4/,
    );
    expect(() => new LowRankGenerated(z(2, 4, 3), z(2, 2, 5))).toThrow(/a \[2,4,3\] and b \[2,2,5\]/);
    expect(() => projectFull(z(2, 3), z(3, 5), null, [[2, 2]])).toThrow(
      /sizes \[4\] do not add up to axis 1 of \[3,5\]/,
    );
  });
});

const copyOf = (x: Tensor) => tensor(x.dataSync(), x.shape);

describe('a generated weight is opaque', () => {
  const phi = { code: normal(key(0), [2, 3]), basis: normal(key(1), [3, 4, 5]) };
  const weave = (p: typeof phi) => new FullGenerated(p.code, p.basis);
  const w = weave(phi);
  // The types keep it out of arithmetic; JavaScript callers are told at run time.
  const asTensor = w as unknown as Tensor;

  it.each<[string, () => unknown]>([
    ['add', () => add(asTensor, 1)],
    ['mul', () => mul(normal(key(2), [4, 5]), asTensor)],
    ['matmul', () => matmul(asTensor, normal(key(2), [5, 2]))],
    ['matmul of wrong sizes', () => matmul(asTensor, normal(key(2), [7, 2]))],
    ['sum', () => sum(asTensor)],
    ['reshape', () => reshape(asTensor, [40])],
    ['concat', () => concat([asTensor, asTensor])],
    ['stack', () => stack([asTensor])],
    ['x of linear', () => linear(asTensor, normal(key(2), [5, 2]))],
    ['a step of SGD over a tree', () => tree.map(x => add(x, 1), { w })],
    ['grad', () => grad((t: { w: Generated }) => sum(t.w.materialise()))({ w })],
    ['vjp', () => vjp((t: { w: Generated }) => sum(t.w.materialise()), { w })],
    ['checkpoint', () => checkpoint((t: Generated) => sum(t.materialise()))(w)],
  ])('%s throws GraphError and names what to do', (_name, f) => {
    expect(f).toThrow(GraphError);
    expect(f).toThrow(/not defined for a generated weight; use materialise\(theta\)/);
  });

  it('passes gradients to its parts, under every plan', () => {
    const x = normal(key(3), [2, 1, 4]);
    for (const strategy of ['materialise', 'fused', 'reorder'] as const) {
      const g = grad((p: typeof phi) => sum(tanh(linear(x, weave(p), null, { strategy }))))(phi);
      for (const leaf of tree.leaves<Tensor>(g)) expect(leaf.dataSync().every(v => v !== 0)).toBe(true);
    }
  });

  it('loses them by stopGradient, and nothing else', () => {
    const value = (t: Generated) => sum(tanh(t.materialise()));
    const stopped = (p: typeof phi) => value(stopGradient(weave(p)));
    expectSameTree(stopped(phi), value(w), 0);
    expect(() => grad(stopped)(phi)).toThrow(/does not depend on parameter 'code'/);
    for (const other of [
      (p: typeof phi) => new ChunkedGenerated(reshape(p.code, [1, 2, 3]), reshape(p.basis, [3, 20]), [40]),
      (p: typeof phi) => new LowRankGenerated(reshape(p.code, [1, 2, 3]), reshape(p.basis, [1, 3, 20])),
    ])
      expect(() => grad((p: typeof phi) => value(stopGradient(other(p))))(phi)).toThrow(/does not depend/);
  });

  it('survives the scope it leaves, projection included', () => {
    const kept = scope(() =>
      projectFull(mul(phi.code, 1), mul(reshape(phi.basis, [3, 20]), 1), null, [[4, 5]]),
    );
    expectSameTree(materialise(kept), [w.materialise()], 1e-15);
    expectSameTree(kept[0].materialise(), w.materialise(), 1e-15);
  });

  it('cannot be planned or applied as what it is not', () => {
    const filters = new FullGenerated(phi.code, normal(key(4), [3, 2, 2, 1, 5]));
    expect(() => planOf(new FullGenerated(phi.code, normal(key(4), [3, 5])), 3)).toThrow(
      /\[5\] is no matrix/,
    );
    expect(planOf(filters, 3).shapes).toMatchObject({ in: 4, out: 5, rows: 3 });
    expect(() => linear(normal(key(5), [2, 3, 4]), filters)).toThrow(/does not fit w \[2,2,2,1,5\]/);
    expect(() => linear(normal(key(5), [2, 3, 4]), w, null, { strategy: 'lowRank' })).toThrow(
      /a full weight has the plans materialise, fused, reorder, not lowRank/,
    );
  });
});

describe('layers whose filters, biases, scales and shifts are all generated', () => {
  const [T, E] = [3, 4];
  const code = normal(key(0), [T, E]);
  /** Each layer by another kind of weight, vectors among them. */
  const full = (seed: number, ...shape: number[]) =>
    new FullGenerated(code, normal(key(seed), [E, ...shape]));
  const lowRank = (seed: number, i: number, ...shape: number[]) => {
    const [a, b] = [normal(key(seed), [T, i, 1]), normal(key(seed + 1), [T, 1, shape[shape.length - 1]])];
    return new LowRankGenerated(a, b, 1, null, shape);
  };
  const chunked = (seed: number, chunk: number, ...shape: number[]) => {
    const count = Math.ceil(shape.reduce((a, b) => a * b, 1) / chunk);
    return new ChunkedGenerated(normal(key(seed), [T, count, E]), normal(key(seed + 1), [E, chunk]), shape);
  };
  const net = nn.serial(
    nn.conv2d(2, 3),
    nn.batchNorm(),
    nn.lambda(tanh),
    nn.conv2d(4, 2),
    nn.layerNorm(),
    nn.flatten(),
    nn.dense(3),
  );
  const theta = {
    layers: [
      { w: full(10, 3, 3, 1, 2), b: full(11, 2) },
      { scale: full(12, 2), shift: chunked(13, 1, 2) },
      {},
      { w: lowRank(15, 8, 2, 2, 2, 4), b: chunked(17, 3, 4) },
      { scale: full(19, 4), shift: full(20, 4) },
      {},
      { w: chunked(21, 3, 64, 3), b: full(23, 3) },
    ],
  };
  const x = normal(key(3), [T, 2, 4, 4, 1]);

  it('give what plain tensors give, each weight by the first plan it has of those asked for', () => {
    const want = net.apply(materialise(theta), x);
    for (const strategy of [
      undefined,
      'materialise',
      ['fused', 'lowRank'],
      ['reorder', 'lowRank'],
      ['lowRank'],
    ] as const)
      expectSameTree(net.apply(theta, x, { strategy }), want, 1e-10);
    expect(plansFor(theta.layers[0].w as Generated)).toEqual(['materialise', 'fused', 'reorder']);
    expect(plansFor(theta.layers[3].w as Generated)).toEqual(['materialise', 'lowRank']);
    expect(plansFor(theta.layers[6].w as Generated)).toEqual(['materialise', 'fused', 'reorder']);
  });

  it('say why a plan does not exist where it alone is asked for', () => {
    const by = (w: Generated, strategy: Strategy) => () =>
      linear(normal(key(1), [T, 2, 4]), w, null, { strategy });
    expect(by(full(1, 4, 6), 'lowRank')).toThrow(
      /not lowRank: a sum over the code has no factors of low rank/,
    );
    expect(by(lowRank(1, 4, 4, 6), 'fused')).toThrow(/not fused: x · a · b makes no W/);
    expect(by(chunked(1, 3, 4, 6), 'fused')).toThrow(/not fused: one element of x meets each chunk/);
    expect(by(chunked(1, 8, 4, 6), 'reorder')).toThrow(/chunks of 8 and rows of 6 do not end together/);
    expect(() => planOf(full(1, 6), 2)).toThrow(/a vector .* is always materialised/);
  });

  it('make no weights of chunks by reorder, whose operations are planned as counted', () => {
    const plan = planOf(chunked(5, 6, 8, 6), 2);
    const flops = (way: Strategy) => plan.candidates.find(c => c.strategy === way)!.flops;
    // 2T(E·i·o + n·i·o) against 2Tn(E·i + E·o): the codes of a task's chunks meet its rows first.
    expect(flops('materialise')).toBe(2 * T * (E * 48 + 2 * 48));
    expect(flops('reorder')).toBe(2 * T * 2 * (E * 8 + E * 6));
  });
});

describe('the planner', () => {
  const shapes: LinearShapes = { kind: 'full', tasks: 64, rows: 10, in: 256, out: 256, code: 64 };

  it('counts operations as the algebra says', () => {
    const of = (s: LinearShapes, strategy: Strategy) =>
      planLinear(s).candidates.find(c => c.strategy === strategy)!;
    // 2TIO(E+N) against 2TNEIO plus making the outer product (features.md, section 4).
    expect(of(shapes, 'materialise').flops).toBe(2 * 64 * 256 * 256 * (64 + 10));
    expect(of(shapes, 'reorder').flops).toBe(2 * 64 * 10 * 64 * 256 * 256 + 64 * 10 * 64 * 256);
    const low: LinearShapes = { ...shapes, kind: 'lowRank', code: 8 };
    expect(of(low, 'lowRank').flops).toBe(2 * 64 * 10 * 8 * 512);
    expect(of(low, 'materialise').flops).toBe(2 * 64 * 256 * 256 * (8 + 10));
  });

  it('makes no weights for a single row, materialises for many, never materialises a low rank with few rows', () => {
    const choice = (s: Partial<LinearShapes>, machine = 'cpu') =>
      planLinear({ ...shapes, ...s }, { machine }).strategy;
    for (const machine of Object.keys(machines)) {
      expect(choice({ rows: 1 }, machine)).not.toBe('materialise');
      expect(choice({ rows: 100 }, machine)).toBe('materialise');
      expect(choice({ kind: 'lowRank', code: 8, rows: 5 }, machine)).toBe('lowRank');
      expect(choice({ kind: 'lowRank', code: 256, rows: 10_000 }, machine)).toBe('materialise');
      expect(choice({ kind: 'chunked' }, machine)).toBe('materialise');
    }
    expect(choice({ rows: 1, tasks: 10_000, code: 8, in: 64, out: 64 })).not.toBe('materialise');
  });

  it('predicts by the roofline it states', () => {
    const machine = { flops: 1e9, bandwidth: 1e9, launch: 1e-3 };
    for (const { steps, seconds } of planLinear(shapes, { machine }).candidates)
      expect(seconds).toBeCloseTo(
        steps.reduce((t, s) => t + 1e-3 + Math.max(s.flops, s.bytes) / 1e9, 0),
        12,
      );
  });

  it('explains the choice and why the others lose', () => {
    const text = planLinear(shapes).explain();
    expect(text).toContain('full weight [256,256] for 64 tasks of 10 rows, code 64: materialise');
    expect(text).toMatch(/materialise: 621 MFLOP, .* \(W = code · basis; y = x · W\)/);
    expect(text).toMatch(/reorder: 5\.38 GFLOP[\s\S]*loses: [\d.]+x the time, 8\.7x the FLOPs/);
    expect(text).toContain('machine: 120 GFLOP/s, 40.0 GB/s, 2.00 us a kernel');
  });

  it('is overruled by a strategy, and says what that costs', () => {
    const plan = planLinear({ ...shapes, rows: 1 }, { strategy: 'materialise' });
    expect([plan.strategy, plan.forced, plan.candidates[0].strategy]).toEqual([
      'materialise',
      true,
      'reorder',
    ]);
    expect(plan.explain()).toMatch(/materialise \(as asked\)[\s\S]*would win/);
    expect(() => planLinear({ ...shapes, kind: 'chunked' }, { strategy: 'reorder' })).toThrow(
      /a chunked weight has the plans materialise, not reorder/,
    );
    expect(() => planLinear(shapes, { machine: 'abacus' })).toThrow(
      /'abacus' is none of cpu, webgpu, software, ref/,
    );
    expect(() => planLinear({ ...shapes, rows: Number.NaN })).toThrow(/rows must be a size, got NaN/);
  });

  it('counts the copy a window of a projection needs, and the base', () => {
    const [w] = projectFull(normal(key(0), [2, 3]), normal(key(1), [3, 22]), normal(key(2), [22]), [
      [4, 5],
      [2],
    ]);
    const reorder = planOf(w, 1).candidates.find(c => c.strategy === 'reorder')!;
    expect(reorder.steps.map(s => s.what)).toEqual([
      'basis made dense',
      'code ⊗ x',
      'y = (code ⊗ x) · basis',
      'x · base',
      'sum of both',
    ]);
  });

  it('is what linear follows: no W is made for one row', () => {
    const largest = (n: number) => {
      let most = 0;
      const watch: Backend = {
        ...ref,
        run: commands => {
          for (const c of commands) for (const out of c.outs) most = Math.max(most, out.storage.size);
          ref.run(commands);
        },
      };
      withBackend({ ...watch, name: 'cpu' }, () => {
        const w = new FullGenerated(normal(key(0), [32, 4]), normal(key(1), [4, 64, 64]));
        const x = normal(key(2), [32, n, 64]);
        x.dataSync();
        w.code.dataSync();
        w.basis.dataSync();
        most = 0;
        linear(x, w).dataSync();
      });
      return most;
    };
    expect(largest(1)).toBeLessThan(32 * 64 * 64);
    expect(largest(60)).toBe(32 * 64 * 64);
  });
});
