import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { createRef } from '../src/backends/ref.js';
import {
  againstDifferences,
  checkOp,
  compiledAgainstEager,
  errorOf,
  oracle,
  passed,
  within,
} from '../src/cli/check.js';
import type { Backend } from '../src/core/backend.js';
import { grad, stopGradient } from '../src/core/grad.js';
import { allOps, defineOp } from '../src/core/op.js';
import { type Tensor, withBackend } from '../src/core/tensor.js';
import { Stream } from '../src/data/stream.js';
import * as ops from '../src/ops/index.js';
import { cases } from './cases.js';
import { undocumented } from './structure.js';

const names = Object.keys(cases);
const defined = allOps();
let cpu: Backend;
beforeAll(async () => {
  cpu = await open('cpu');
});
afterAll(() => cpu.dispose());

describe('derivatives in float64 against finite differences', () => {
  it.each(names)('%s', async name => {
    for (const [index, row] of cases[name].entries())
      for (const [kind, measured] of Object.entries(await againstDifferences(name, index, row)))
        expect(within(measured), `${name} row ${index}: ${kind} is off by ${measured.error}`).toBe(true);
  });

  it('see a wrong derivative, and a wrong derivative of a right one', async () => {
    const cube = (name: string, slope: (x: Tensor) => Tensor) =>
      defineOp({
        name,
        outputs: ([x]) => ({ shape: x.shape }),
        ref: ([out], [x]) => out.data.set(x.data.map(v => v ** 3)),
        vjp: (g, [x]) => [() => ops.mul(g, slope(x))],
      });
    const right = ops.square;
    const rows = {
      right: cube('rightCube', x => ops.mul(3, right(x))),
      wrong: cube('wrongCube', x => ops.mul(3.001, right(x))),
      cut: cube('cutCube', x => ops.mul(3, right(stopGradient(x)))),
    };
    const [row] = cases.square;
    const found: Record<string, boolean[]> = {};
    for (const [name, call] of Object.entries(rows)) {
      const { gradient, second } = await againstDifferences(name, 0, { ...row, call: x => call([x]) });
      found[name] = [within(gradient!), within(second!)];
    }
    expect(found).toEqual({ right: [true, true], wrong: [false, false], cut: [true, false] });
  });
});

describe.each(['ref', 'cpu'] as const)('%s against float64', name => {
  it.each(names)('%s', async op => {
    const report = await checkOp(op, name === 'ref' ? createRef() : cpu);
    expect(passed(report), JSON.stringify(report)).toBe(true);
  });
});

describe.each(['ref', 'cpu'] as const)(
  'compiled, every op and its derivatives give the same bits on %s',
  name => {
    it.each(names)('%s', async op => {
      const backend = name === 'ref' ? createRef() : cpu;
      for (const [index, row] of cases[op].entries())
        expect(await compiledAgainstEager(op, index, row, backend), `row ${index}`).toBe(0);
    });
  },
);

describe.each(['ref', 'cpu'] as const)('special values on %s', name => {
  const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
  const at = (f: (...xs: ops.Value[]) => Tensor, ...columns: number[][]) =>
    withBackend(name === 'ref' ? createRef() : cpu, () => [
      ...f(...columns.map(values => ops.tensor(values))).dataSync(),
    ]);

  it('follow IEEE and C', () => {
    expect(at(ops.relu, [nan, -inf, inf])).toEqual([nan, 0, inf]);
    expect(at(ops.max, [nan, 1, inf], [1, nan, 2])).toEqual([nan, nan, inf]);
    expect(at(ops.min, [nan, 1, -inf], [1, nan, 2])).toEqual([nan, nan, -inf]);
    expect(at(ops.exp, [-inf, inf, 100, -200])).toEqual([0, inf, inf, 0]);
    expect(at(ops.log, [0, -1, inf])).toEqual([-inf, nan, inf]);
    expect(at(ops.sqrt, [-1, inf, 0])).toEqual([nan, inf, 0]);
    expect(at(ops.div, [1, -1, 0], [0, 0, 0])).toEqual([inf, -inf, nan]);
    expect(at(ops.pow, [-2, -2, 0, 0, -8, 2], [3, 2, 0, -1, 0.5, inf])).toEqual([-8, 4, 1, inf, nan, inf]);
    expect(at(ops.tanh, [-inf, inf, nan])).toEqual([-1, 1, nan]);
    expect(at(ops.sigmoid, [-inf, inf, nan])).toEqual([0, 1, nan]);
    expect(at(ops.where as typeof ops.add, [nan, 0, 1], [1, 2, 3], [4, 5, 6])).toEqual([1, 5, 3]);
    expect(at(x => ops.maxOver(x as Tensor), [1, nan, 3])).toEqual([nan]);
    expect(at(x => ops.softmax(x as Tensor), [-inf, 0])).toEqual([0, 1]);
  });

  it('share the gradient among equal extremes', () => {
    const slope = (f: (x: Tensor) => Tensor, values: number[]) =>
      at(x => grad((p: Tensor) => ops.sum(f(p)))(x as Tensor), values);
    expect(slope(x => ops.maxOver(x), [1, 4, 4, 2])).toEqual([0, 0.5, 0.5, 0]);
    expect(slope(x => ops.max(x, 1), [0, 1, 2])).toEqual([0, 0.5, 1]);
    expect(slope(ops.abs, [-2, 0, 2])).toEqual([-1, 0, 1]);
    expect(slope(ops.relu, [-2, 0, 2])).toEqual([0, 0, 1]);
    expect(slope(x => ops.clamp(x, 0, 1), [-1, 0, 0.5, 1, 2])).toEqual([0, 1, 1, 1, 0]);
    expect(slope(x => ops.maxPool(ops.reshape(x, [1, 2, 2, 1]), 2), [3, 3, 1, 3])).toEqual([1, 0, 0, 0]);
  });
});

/** A strided operand: each axis plain, a window of a longer one, or broadcast; in any order of memory. */
interface Drawn {
  readonly axes: readonly { readonly size: number; readonly extra: number; readonly broadcast: boolean }[];
  readonly order: readonly number[];
  readonly seed: number;
}
const axisOf = (size: fc.Arbitrary<number>) => fc.record({ size, extra: fc.nat(2), broadcast: fc.boolean() });
const small = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 5 }) },
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: 6, max: 40 }) },
);
const drawn = (rank: { min: number; max: number }, size = small): fc.Arbitrary<Drawn> =>
  fc.array(axisOf(size), { minLength: rank.min, maxLength: rank.max }).chain(axes =>
    fc.record({
      axes: fc.constant(axes),
      order: fc.shuffledSubarray([...axes.keys()], { minLength: axes.length }),
      seed: fc.nat(1000),
    }),
  );
const shapeOf = ({ axes }: Drawn) => axes.map(({ size }) => size);
/** The same axes with other sizes. */
const resized = (x: Drawn, shape: readonly number[]): Drawn => ({
  ...x,
  axes: x.axes.map((axis, i) => ({ ...axis, size: shape[i] })),
});

function viewOf({ axes, order, seed }: Drawn): Tensor {
  const stored = order.map(i => (axes[i].broadcast ? 1 : axes[i].size + axes[i].extra));
  const stream = new Stream(seed, 1);
  const n = stored.reduce((a, b) => a * b, 1);
  const memory = ops.tensor(
    Float32Array.from({ length: n }, () => 4 * stream.uniform() - 2),
    stored,
  );
  let x = ops.permute(
    memory,
    axes.map((_, i) => order.indexOf(i)),
  );
  axes.forEach(({ size, extra, broadcast }, i) => {
    if (!broadcast) x = ops.slice(x, i, extra > 0 ? 1 : 0, (extra > 0 ? 1 : 0) + size);
  });
  return ops.broadcastTo(x, shapeOf({ axes, order, seed }));
}

/** Runs `f` on cpu and in float64 and compares. */
async function agree(f: () => Tensor, bound: number): Promise<void> {
  const [got, want] = [cpu, oracle].map(backend => withBackend(backend, f));
  expect(got.shape).toEqual(want.shape);
  const error = errorOf([await got.data()], [await want.data()]);
  expect(error, `shape [${got.shape}]`).not.toBeNull();
  expect(error).toBeLessThanOrEqual(bound);
}

describe('any shapes and strides on cpu', () => {
  const runs = { numRuns: 120, seed: 20261121 };

  it('elementwise', async () => {
    const masks = fc.array(fc.boolean(), { minLength: 4, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(drawn({ min: 0, max: 4 }), masks, fc.nat(4), async (x, ones, dropped) => {
        const shape = shapeOf(x).map((n, i) => (ones[i] ? 1 : n));
        const y = resized({ ...x, seed: x.seed + 1 }, shape);
        await agree(() => {
          const right = viewOf(y);
          const lead = Math.min(
            dropped,
            shape.findIndex(n => n !== 1) < 0 ? shape.length : shape.findIndex(n => n !== 1),
          );
          return ops.tanh(ops.sub(viewOf(x), ops.reshape(right, shape.slice(lead))));
        }, 2e-6);
      }),
      runs,
    );
  });

  it('reductions', async () => {
    const folds = fc.constantFrom(ops.sum, ops.maxOver, ops.minOver, ops.mean);
    await fc.assert(
      fc.asyncProperty(
        drawn({ min: 1, max: 4 }),
        fc.nat(15),
        folds,
        fc.boolean(),
        async (x, bits, fold, keepDims) => {
          const axes = shapeOf(x).flatMap((_, i) => (bits & (1 << i) ? [i] : []));
          fc.pre(fold === ops.sum || axes.every(i => shapeOf(x)[i] > 0));
          await agree(() => fold(viewOf(x), axes, { keepDims }), 5e-6);
        },
      ),
      runs,
    );
  });

  it('matmul', async () => {
    const operands = fc.tuple(drawn({ min: 2, max: 4 }), drawn({ min: 2, max: 4 }), fc.boolean());
    await fc.assert(
      fc.asyncProperty(operands, async ([a, b, collapse]) => {
        const left = shapeOf(a);
        const right = shapeOf(b);
        right[right.length - 2] = left[left.length - 1];
        for (let i = 3; i <= Math.min(left.length, right.length); i++)
          right[right.length - i] = collapse ? 1 : left[left.length - i];
        await agree(() => ops.matmul(viewOf(a), viewOf(resized(b, right))), 1e-5);
      }),
      runs,
    );
  });

  it('concat', async () => {
    const sizes = fc.array(fc.nat(4), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(drawn({ min: 1, max: 3 }), fc.nat(2), sizes, async (x, at, lengths) => {
        const axis = at % x.axes.length;
        const part = (n: number, i: number) => {
          const shape = shapeOf(x);
          shape[axis] = n;
          return viewOf(resized({ ...x, seed: x.seed + i }, shape));
        };
        await agree(() => ops.concat(lengths.map(part), axis), 0);
      }),
      runs,
    );
  });

  it('take and scatterAdd', async () => {
    const index = fc.array(fc.integer({ min: -1, max: 6 }), { maxLength: 7 });
    await fc.assert(
      fc.asyncProperty(drawn({ min: 1, max: 3 }), fc.nat(2), index, async (x, at, idx) => {
        const axis = at % x.axes.length;
        const positions = () => ops.tensor(Int32Array.from(idx));
        await agree(() => ops.take(viewOf(x), positions(), axis), 0);
        const taken = shapeOf(x);
        taken[axis] = idx.length;
        const values = resized(x, taken);
        await agree(() => ops.scatterAdd(viewOf(values), positions(), axis, shapeOf(x)), 2e-6);
      }),
      runs,
    );
  });
});

describe('coverage', () => {
  /** Functions of the ops that are no ops: they choose, name or convert. */
  const helpers = [
    ...[
      'broadcastView',
      'narrow',
      'planOf',
      'plansFor',
      'scalarNamed',
      'threefry2x32',
      'toTensor',
      'windowOver',
    ],
  ];
  const isOp = (value: unknown) => typeof value === 'function' && !/^class\b/.test(String(value));

  it('has at least 55 ops, and a row for every one', () => {
    const exported = Object.entries(ops).flatMap(([name, value]) => (isOp(value) ? [name] : []));
    expect(exported.filter(name => !names.includes(name) && !helpers.includes(name))).toEqual([]);
    expect(names.filter(name => cases[name].length === 0)).toEqual([]);
    expect(names.length).toBeGreaterThanOrEqual(55);
  });

  it('has a doc comment on every op', () => {
    const folder = join(import.meta.dirname, '../src/ops');
    const texts = readdirSync(folder).map(file => [file, readFileSync(join(folder, file), 'utf8')] as const);
    expect(texts.flatMap(([file, text]) => undocumented(file, text))).toEqual([]);
  });

  it('runs every defined op and kernel', async () => {
    const seen = new Set(names);
    const ref = createRef();
    const spy: Backend = {
      ...ref,
      run: commands => {
        for (const { op, kernel } of commands) seen.add(op).add(kernel);
        ref.run(commands);
      },
    };
    for (const name of names) await checkOp(name, spy);
    expect(defined.map(op => op.name).filter(name => !seen.has(name))).toEqual([]);
  });

  it('has a native kernel for every op', async () => {
    const fallbacks = () => Number(cpu.describe().fallbacks);
    const fellBack: string[] = [];
    for (const name of names) {
      const before = fallbacks();
      await checkOp(name, cpu);
      if (fallbacks() > before) fellBack.push(name);
    }
    expect(fellBack).toEqual([]);
  });
});
