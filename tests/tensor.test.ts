import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { createRef } from '../src/backends/ref.js';
import type { Backend } from '../src/core/backend.js';
import { grad } from '../src/core/grad.js';
import { defineOp } from '../src/core/op.js';
import { sync } from '../src/core/queue.js';
import { memory, scope, type Tensor, use, withBackend } from '../src/core/tensor.js';
import * as tree from '../src/core/tree.js';
import * as op from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';

const { add, exp, mul, sin, sum, tensor } = op;
const backends: Record<string, Backend> = { ref: createRef() };
beforeAll(async () => {
  backends.cpu = await open('cpu');
});
afterAll(() => backends.cpu.dispose());

const values = (x: Tensor): number[] => [...x.dataSync()];
function thrown(f: () => unknown): { code: string; message: string } {
  try {
    f();
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('nothing was thrown');
}
const codeOf = (f: () => unknown): string => thrown(f).code;

/** Fails on the negative number it meets, as a kernel can that looks at its data. */
const strictSqrt = defineOp({
  name: 'strictSqrt',
  outputs: ([x]) => ({ shape: x.shape }),
  ref: ([out], [x]) => {
    x.data.forEach((v, i) => {
      if (v < 0) throw new RangeError(`no root of ${v}`);
      out.data[i] = Math.sqrt(v);
    });
  },
});

class Sealed extends tree.Opaque {
  readonly choices = 'open it first';
  constructor(readonly part: Tensor) {
    super();
  }
  mapParts(f: (part: Tensor) => Tensor): Sealed {
    return new Sealed(f(this.part));
  }
}

describe.each(['ref', 'cpu'])('tensors on %s', name => {
  beforeEach(() => use(backends[name]));

  it('copy host values at the call', async () => {
    const host = Float32Array.of(1, 2, 3);
    const x = tensor(host);
    const before = x.data();
    const double = mul(x, 2);
    host.fill(9);
    expect(values(x)).toEqual([1, 2, 3]);
    expect(values(double)).toEqual([2, 4, 6]);
    const read = await before;
    read.fill(7);
    x.dataSync().fill(8);
    expect(values(x)).toEqual([1, 2, 3]);
  });

  it('take numbers, nested lists and typed arrays', () => {
    expect(tensor(2.5)).toMatchObject({ shape: [], dtype: 'f32', size: 1, rank: 0 });
    expect(
      tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
    ).toMatchObject({ shape: [3, 2], dtype: 'f32' });
    expect(tensor([])).toMatchObject({ shape: [0], size: 0 });
    expect(tensor(Int32Array.of(1, -2))).toMatchObject({ shape: [2], dtype: 'i32' });
    expect(values(tensor(Uint32Array.of(4e9)))).toEqual([4e9]);
    expect(values(tensor([1.9, -1.9], [2], 'i32'))).toEqual([1, -1]);
    expect(String(tensor([[1]]))).toBe(`Tensor f32 [1,1] on ${name}`);
    expect(codeOf(() => tensor([1, 2, 3], [2, 2]))).toBe('ERR_SHAPE');
    expect(codeOf(() => tensor([[1], [2, 3]]))).toBe('ERR_SHAPE');
    expect(codeOf(() => tensor([1, [2]]))).toBe('ERR_SHAPE');
  });

  it('give one value by item, and only one', async () => {
    expect(await tensor([[4]]).item()).toBe(4);
    await expect(tensor([1, 2]).item()).rejects.toMatchObject({ code: 'ERR_SHAPE' });
  });

  it('cannot pass for numbers', () => {
    const x = tensor(3) as unknown as number;
    expect(codeOf(() => x > 0)).toBe('ERR_DTYPE');
    expect(codeOf(() => x * 2)).toBe('ERR_DTYPE');
    expect(codeOf(() => +x)).toBe('ERR_DTYPE');
    expect(`${x}`).toBe(`Tensor f32 [] on ${name}`);
  });

  it('are read as of the call, whatever happens to their memory afterwards', async () => {
    const step = compile((w: Tensor) => [add(w, 1)], { donate: [0] });
    const w = tensor([1, 2]);
    const early = w.data();
    const [next] = step(w);
    const late = next.data();
    const [last] = step(next);
    expect([...(await early)]).toEqual([1, 2]);
    expect([...(await late)]).toEqual([2, 3]);
    expect(values(last)).toEqual([3, 4]);
    expect(codeOf(() => values(next))).toBe('ERR_DISPOSED');
    step.dispose();
  });

  it('resolve reads in a macrotask, so that finalizers may run', async () => {
    let macrotask = false;
    setImmediate(() => {
      macrotask = true;
    });
    await tensor([1]).data();
    expect(macrotask).toBe(true);
  });

  it('say why they cannot be used after dispose, and their views with them', async () => {
    const x = tensor([1, 2, 3]);
    const view = op.slice(x, 0, 1);
    const made = mul(x, 2);
    x.dispose();
    x.dispose();
    for (const dead of [x, view]) {
      expect(thrown(() => add(dead, 1))).toMatchObject({ code: 'ERR_DISPOSED', message: /^add: .*disposed/ });
      expect(codeOf(() => dead.dataSync())).toBe('ERR_DISPOSED');
      await expect(dead.data()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    }
    expect(values(made)).toEqual([2, 4, 6]);
    const other = tensor([1]);
    other[Symbol.dispose]();
    expect(codeOf(() => other.dataSync())).toBe('ERR_DISPOSED');
  });

  it('run more commands than the queue holds, in order', () => {
    let x = tensor([0]);
    for (let i = 0; i < 3000; i++) x = add(x, 1);
    expect(values(x)).toEqual([3000]);
  });

  it('fail alone: a kernel that throws takes only its dependants with it', async () => {
    const [bad, nine, one] = [tensor([-1, 4]), tensor([9]), tensor([1])];
    const root = strictSqrt([bad]);
    const child = add(root, 1);
    const both = op.concat([child, one]);
    const sibling = mul(bad, 2);
    const good = strictSqrt([nine]);
    expect(values(sibling)).toEqual([-2, 8]);
    expect(values(good)).toEqual([3]);
    for (const lost of [root, child, both])
      expect(thrown(() => lost.dataSync())).toMatchObject({
        code: 'ERR_KERNEL',
        message: /strictSqrt failed: no root of -1/,
      });
    await expect(child.data()).rejects.toMatchObject({ code: 'ERR_KERNEL' });
    expect(codeOf(() => mul(root, 2))).toBe('ERR_KERNEL');
    await sync();
    expect(values(add(bad, 1))).toEqual([0, 5]);
  });
});

describe.each(['ref', 'cpu'])('scopes on %s', name => {
  beforeEach(() => use(backends[name]));

  it('keep what is returned, anywhere in a tree, and give back the rest', () => {
    const before = memory();
    const outside = tensor([5]);
    let inner = outside;
    const { kept, sealed } = scope(() => {
      inner = mul(outside, 2);
      return { kept: [add(inner, 1)], sealed: new Sealed(exp(outside)), note: 'x' };
    });
    expect(values(kept[0])).toEqual([11]);
    expect(sealed.part.dataSync()[0]).toBeCloseTo(Math.exp(5), 3);
    expect(values(outside)).toEqual([5]);
    expect(thrown(() => inner.dataSync())).toMatchObject({ code: 'ERR_DISPOSED', message: /scope/ });
    expect(memory()).toEqual(before);
  });

  it('keep the memory of a returned view', () => {
    expect(
      values(
        scope(() =>
          op.transpose(
            tensor([
              [1, 2],
              [3, 4],
            ]),
          ),
        ),
      ),
    ).toEqual([1, 3, 2, 4]);
  });

  it('hand what they keep to the scope around them', () => {
    let middle = tensor([0]);
    scope(() => {
      middle = scope(() => add(tensor([1]), 1));
      expect(values(middle)).toEqual([2]);
      const live = memory().tensors;
      scope(() => void tensor([1]));
      expect(memory().tensors).toBe(live);
    });
    expect(codeOf(() => middle.dataSync())).toBe('ERR_DISPOSED');
  });

  it('give back everything when the function throws', () => {
    const before = memory();
    let made = tensor([0]);
    const broken = () =>
      scope(() => {
        made = tensor([1]);
        throw new RangeError('mine');
      });
    expect(broken).toThrow('mine');
    expect(codeOf(() => made.dataSync())).toBe('ERR_DISPOSED');
    expect(memory()).toEqual(before);
  });

  it('are synchronous', () => {
    expect(codeOf(() => scope(async () => tensor([1])))).toBe('ERR_SCOPE');
    const x = scope(() => tensor([1]));
    expect(values(x)).toEqual([1]);
  });

  it('free nothing that a gradient around them still needs', () => {
    const slope = grad((x: Tensor) => {
      const y = scope(() => mul(sin(x), exp(x)));
      return scope(() => sum(mul(y, y)));
    })(tensor([0.5]));
    const [s, c, e] = [Math.sin(0.5), Math.cos(0.5), Math.exp(0.5)];
    expect(values(slope)[0]).toBeCloseTo(2 * s * e * (c * e + s * e), 4);
  });

  it('count as many live tensors after a thousand steps as after one', () => {
    const step = grad((w: Tensor, x: Tensor) => sum(mul(sin(mul(w, x)), x)));
    const loop = (n: number) =>
      scope(() => {
        let w = tensor([0.1, 0.2]);
        for (let i = 0; i < n; i++) {
          const next = scope(() => add(w, mul(-0.01, step(w, tensor([1, 2])))));
          w.dispose();
          w = next;
        }
        return memory().tensors;
      });
    expect(loop(1000)).toBe(loop(1));
  });

  it('count memory back that a failed kernel held', () => {
    const before = memory();
    scope(() => {
      const lost = add(strictSqrt([tensor([-1])]), 1);
      expect(codeOf(() => lost.dataSync())).toBe('ERR_KERNEL');
    });
    expect(memory()).toEqual(before);
  });
});

describe('operands', () => {
  beforeEach(() => use(backends.ref));

  it('of two backends do not meet', () => {
    const here = tensor([1]);
    const there = withBackend(backends.cpu, () => tensor([1]));
    expect(there.backend.name).toBe('cpu');
    expect(thrown(() => add(here, there))).toMatchObject({
      code: 'ERR_BACKEND',
      message: 'add: operands live on ref and cpu',
    });
    expect(values(add(there, there))).toEqual([2]);
  });

  it('need a backend', () => {
    use(null as unknown as Backend);
    expect(thrown(() => tensor([1]))).toMatchObject({ code: 'ERR_BACKEND', message: /await init\(\)/ });
    use(backends.ref);
    expect(codeOf(() => withBackend(backends.cpu, () => add(tensor([1]), [2] as unknown as number)))).toBe(
      'ERR_ARGUMENT',
    );
  });

  it('have one dtype: nothing is promoted', () => {
    const floats = tensor([1, 2]);
    const whole = tensor(Int32Array.of(0, 1));
    const wrong: (() => unknown)[] = [
      () => add(floats, whole),
      () => op.oneHot(floats, 2),
      () => op.take(floats, floats),
      () => op.uniform(whole, [2]),
      () => op.concat([floats, whole]),
      () => op.matmul(op.expand(floats, 0), op.expand(whole, 1)),
      () => op.where(whole, floats, floats),
    ];
    for (const f of wrong) expect(thrown(f)).toMatchObject({ code: 'ERR_DTYPE', message: /^\w+: / });
    expect(thrown(wrong[0]).message).toMatch(/input 1 must be f32, got i32/);
  });

  const x = (...shape: number[]) => op.zeros(shape);
  const i = (...shape: number[]) => op.cast(op.zeros(shape), 'i32');
  it.each<[string, () => unknown, RegExp]>([
    ['add', () => add(x(2, 3), x(2)), /^add: \[2,3\] and \[2\] .*axis 1 has 3 and 2/],
    ['where', () => op.where(x(2), x(3), 0), /^where: \[2\] and \[3\]/],
    ['matmul', () => op.matmul(x(2, 3), x(2, 3)), /^matmul: inner sizes differ, \[2,3\] x \[2,3\]/],
    ['matmul', () => op.matmul(x(3), x(3, 2)), /^matmul: .*\[3\] x \[3,2\].*two axes/],
    ['matmul', () => op.matmul(x(2, 3, 4), x(5, 4, 2)), /^matmul: \[2\] and \[5\]/],
    ['reshape', () => op.reshape(x(2, 3), [4, -1]), /^reshape: \[2,3\] does not fit \[4,-1\]/],
    ['permute', () => op.permute(x(2, 3), [0, 0]), /^permute: \[0,0\] is no order of the axes of \[2,3\]/],
    ['transpose', () => op.transpose(x(3)), /^transpose: axis -2 is not an axis of \[3\]/],
    ['broadcastTo', () => op.broadcastTo(x(2), [2, 3]), /^broadcastTo: \[2\] does not broadcast to \[2,3\]/],
    ['slice', () => op.slice(x(2, 3), 1, 1, 5), /^slice: 1\.\.5 .*axis 1 of \[2,3\]/],
    ['squeeze', () => op.squeeze(x(2, 1), 0), /^squeeze: axis 0 of \[2,1\]/],
    ['concat', () => op.concat([x(2, 3), x(3, 2)]), /^concat: \[2,3\] and \[3,2\] differ beside axis 0/],
    ['concat', () => op.concat([]), /^concat: no tensors/],
    ['pad', () => op.pad(x(2), 0, -1, 1), /^pad: -1 before/],
    ['unpack', () => op.unpack(x(5), [2, 2]), /^unpack: sizes \[2,2\] .*axis 0 of \[5\]/],
    ['sum', () => sum(x(2, 3), 2), /^sum: axis 2 is not an axis of \[2,3\]/],
    ['maxOver', () => op.maxOver(x(2, 0), 1), /^maxOver: \[2,0\] has no elements/],
    ['argmax', () => op.argmax(x(2, 3), -3), /^argmax: axis -3 is not an axis of \[2,3\]/],
    ['take', () => op.take(x(2), i(1), 1), /^take: axis 1 is not an axis of \[2\]/],
    [
      'scatterAdd',
      () => op.scatterAdd(x(2), i(3), 0, [4]),
      /^scatterAdd: values \[2\] should be \[3\] to fill \[4\]/,
    ],
    ['softmax', () => op.softmax(x()), /^softmax: a scalar has no last axis/],
    ['crossEntropy', () => op.crossEntropy(x(2, 3), i(3)), /^crossEntropy: logits \[2,3\] and labels \[3\]/],
    ['crossEntropy', () => op.crossEntropy(x(2, 0), i(2)), /^crossEntropy: logits \[2,0\] have no classes/],
    ['batchNorm', () => op.batchNorm(x(3)), /^batchNorm: \[3\] leaves no axis/],
    [
      'conv2d',
      () => op.conv2d(x(1, 4, 4, 2), x(3, 3, 3, 1)),
      /^conv2d: images \[.*4,4,2\] and filters \[.*3,3,3,1\]/,
    ],
    [
      'conv2d',
      () => op.conv2d(x(1, 2, 2, 1), x(3, 3, 1, 1)),
      /^conv2d: a \[3,3\] window .* no place on \[2,2\]/,
    ],
    ['maxPool', () => op.maxPool(x(2, 2), 2), /^maxPool: \[2,2\] is no image/],
    [
      'raggedMatmul',
      () => op.raggedMatmul(x(4, 3), x(2, 5, 1), i(3)),
      /^raggedMatmul: inner sizes differ, \[4,3\] x \[2,5,1\]/,
    ],
    [
      'raggedOuter',
      () => op.raggedOuter(x(4, 3), x(5, 2), i(3)),
      /^raggedOuter: row counts differ, \[4,3\] and \[5,2\]/,
    ],
    ['einsum', () => op.einsum('ij,jk->ik', x(2, 3), x(4, 2)), /^einsum: axis 'j' has sizes 3 and 4/],
    ['linear', () => op.linear(x(2, 3), x(4, 5)), /^linear: x \[2,3\] does not fit w \[4,5\]/],
  ])('of %s that do not fit are named', (_name, f, text) => {
    const { code, message } = thrown(f);
    expect(message).toMatch(text);
    expect(code).toBe('ERR_SHAPE');
  });

  it('are refused when they are generated weights, with what one can do instead', () => {
    const sealed = new Sealed(tensor([1])) as unknown as Tensor;
    expect(thrown(() => op.copy(sealed))).toMatchObject({ code: 'ERR_GRAPH', message: /open it first$/ });
    expect(thrown(() => grad((p: { w: Tensor }) => sum(p.w))({ w: sealed }))).toMatchObject({
      code: 'ERR_GRAPH',
      message: /^a gradient with respect to it .*open it first$/,
    });
    const visited: unknown[] = [];
    tree.map(leaf => visited.push(leaf), { w: sealed });
    expect(visited).toEqual([sealed]);
  });

  it('of an op are checked when it is defined and applied, not later', () => {
    expect(thrown(() => defineOp({ name: 'add' }))).toMatchObject({
      code: 'ERR_ARGUMENT',
      message: /'add' exists/,
    });
    const noKernel = defineOp({ name: 'nowhere', outputs: ([x]) => ({ shape: x.shape }) });
    expect(thrown(() => noKernel([tensor([1])]))).toMatchObject({
      code: 'ERR_KERNEL',
      message: "nowhere: the ref backend has no kernel 'nowhere'",
    });
  });
});

describe.each(['ref', 'cpu'])('random numbers on %s', name => {
  beforeEach(() => use(backends[name]));
  const moments = (x: ArrayLike<number>) => {
    const list = Array.from(x);
    const mean = list.reduce((a, b) => a + b, 0) / list.length;
    return { mean, variance: list.reduce((a, b) => a + (b - mean) ** 2, 0) / list.length };
  };

  it('are the known answers of threefry2x32-20', () => {
    expect(values(op.split(op.key(0), 1)[0])).toEqual([0x6b200159, 0x99ba4efe]);
    expect(values(op.key(2 ** 32 + 5))).toEqual([5, 1]);
    for (const seed of [-1, 0.5, 2 ** 53]) expect(codeOf(() => op.key(seed))).toBe('ERR_ARGUMENT');
  });

  it('come from keys that are all different, by split or by foldIn', () => {
    const parts = op.split(op.key(7), 50).map(values);
    expect(new Set(parts.map(String)).size).toBe(50);
    for (const i of [0, 1, 49]) expect(values(op.foldIn(op.key(7), i))).toEqual(parts[i]);
    const [a, b] = op.split(op.key(7));
    expect(values(op.uniform(a, [4]))).not.toEqual(values(op.uniform(b, [4])));
    expect(values(op.uniform(a, [4]))).toEqual(values(op.uniform(a, [2, 2])));
  });

  it('are uniform', () => {
    const n = 100_000;
    const u = op.uniform(op.key(1), [n], -1, 3).dataSync();
    const { mean, variance } = moments(u);
    // Standard errors of 1e5 values on [-1, 3): 3.7e-3 and 3.8e-3; bounds are 4 of them.
    expect(Math.abs(mean - 1)).toBeLessThan(0.015);
    expect(Math.abs(variance - 16 / 12)).toBeLessThan(0.015);
    expect(u.every(v => v >= -1 && v < 3)).toBe(true);
    const low = u.filter(v => v < 0).length;
    expect(Math.abs(low - n / 4)).toBeLessThan(4 * Math.sqrt((n * 3) / 16));
  });

  it('are normal', () => {
    const n = 100_000;
    const z = op.normal(op.key(2), [n]).dataSync();
    const { mean, variance } = moments(z);
    expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
    const beyond = z.filter(v => Math.abs(v) > 2).length / n;
    expect(Math.abs(beyond - 0.0455)).toBeLessThan(4 * Math.sqrt((0.0455 * 0.9545) / n));
    const lag = Array.from(z).reduce((s, v, i) => s + v * z[(i + 1) % n], 0) / n;
    expect(Math.abs(lag)).toBeLessThan(4 / Math.sqrt(n));
  });
});
