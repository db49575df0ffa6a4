import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ArgumentError, DataError } from '../src/core/errors.js';
import { readGzip } from '../src/data/archive.js';
import { cholesky } from '../src/data/cholesky.js';
import { gpOracle, gpTasks } from '../src/data/gp.js';
import { linearOracle, linearTasks } from '../src/data/linear.js';
import { loadMnist, loadOmniglot, loadOneShotRuns } from '../src/data/load.js';
import { permutedMnist, readMnist, splitMnist, takeImages } from '../src/data/mnist.js';
import { twoModes } from '../src/data/modes.js';
import { dataFolder } from '../src/data/path.js';
import { sinusoid } from '../src/data/sinusoid.js';
import { asTaskFamily, type BatchRequest, drawBatch } from '../src/data/task.js';

const request = (more: Partial<BatchRequest> = {}): BatchRequest => ({
  split: 'test',
  seed: 1,
  first: 0,
  tasks: 4,
  shots: 10,
  queries: 10,
  ...more,
});
const mean = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0) / values.length;
const mse = (a: ArrayLike<number>, b: ArrayLike<number>) => mean(Array.from(a, (v, i) => (v - b[i]) ** 2));
const joined = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap(part => [...part]));
const ascii = (text: string) => Uint8Array.from(text, c => c.charCodeAt(0));

describe('drawBatch', () => {
  it('gives a task the same numbers in whatever batch it is drawn', () => {
    for (const family of [sinusoid, linearTasks(), gpTasks()]) {
      const whole = drawBatch(family, request({ tasks: 6 }));
      expect(drawBatch(family, request({ tasks: 6 }))).toEqual(whole);
      const part = drawBatch(family, request({ first: 4, tasks: 2 }));
      const size = whole.support.x.length / 6;
      expect(part.support.x).toEqual(whole.support.x.subarray(4 * size));
      expect(part.query.y).toEqual(whole.query.y.subarray(4 * whole.query.n));
      const others = [request({ split: 'train' }), request({ seed: 2 }), request({ first: 1 })];
      for (const other of others)
        expect(drawBatch(family, other).support.x).not.toEqual(drawBatch(family, request()).support.x);
    }
  });

  it('lays out [tasks, rows, size]', () => {
    const batch = drawBatch(linearTasks(), request({ tasks: 3, shots: 5, queries: 7 }));
    expect([batch.support.n, batch.query.n]).toEqual([5, 7]);
    expect([batch.support.x.length, batch.query.x.length]).toEqual([3 * 5 * 8, 3 * 7 * 8]);
    expect([batch.support.y.length, batch.latent.length]).toEqual([15, 9]);
    expect(drawBatch(sinusoid, request({ queries: 0 })).query.x.length).toBe(0);
  });

  it('refuses counts that make no batch, and labels that are no class', () => {
    for (const wrong of [{ tasks: 0 }, { shots: 1.5 }, { queries: -1 }, { first: -1 }, { seed: -3 }])
      expect(() => drawBatch(sinusoid, request(wrong))).toThrow(ArgumentError);
    const family = asTaskFamily(
      {
        name: 'bad',
        kind: 'classification',
        inShape: [1],
        outSize: 2,
        draw: ({ query }: { query: { y: Int32Array } }) => query.y.fill(2),
      },
      'x.mjs',
    );
    expect(() => drawBatch(family, request())).toThrow(/task family bad: label 2 is outside \[0, 2\)/);
  });
});

describe('asTaskFamily', () => {
  const good = { name: 'a', kind: 'regression', inShape: [2], outSize: 1, draw: () => {} };
  it('lets a family through unchanged', () => {
    expect(asTaskFamily(good, 'x.mjs')).toBe(good);
  });
  it.each<[unknown, RegExp]>([
    [undefined, /x\.mjs: a task family needs to be an object/],
    [{ ...good, name: '' }, /needs name/],
    [{ ...good, kind: 'ranking' }, /needs kind: 'regression' or/],
    [{ ...good, inShape: [0] }, /needs inShape/],
    [{ ...good, inShape: 3 }, /needs inShape/],
    [{ ...good, outSize: undefined }, /needs outSize/],
    [{ ...good, latentSize: -1 }, /needs latentSize/],
    [{ ...good, draw: null }, /needs draw/],
  ])('refuses %o', (value, reason) => {
    expect(() => asTaskFamily(value, 'x.mjs')).toThrow(ArgumentError);
    expect(() => asTaskFamily(value, 'x.mjs')).toThrow(reason);
  });
});

describe('sinusoid', () => {
  it('draws amplitude, phase and x from the published ranges', () => {
    const { query, latent } = drawBatch(sinusoid, request({ tasks: 2000 }));
    query.y.forEach((y, i) => {
      const task = Math.floor(i / query.n);
      expect(y).toBeCloseTo(latent[2 * task] * Math.sin(query.x[i] - latent[2 * task + 1]), 5);
    });
    const range = (values: Float32Array) => [Math.min(...values), mean(values), Math.max(...values)];
    const near = (values: Float32Array, low: number, high: number) => {
      const [least, middle, most] = range(values);
      const width = high - low;
      expect(least).toBeGreaterThanOrEqual(Math.fround(low));
      expect(least).toBeLessThan(low + 0.01 * width);
      expect(most).toBeLessThanOrEqual(Math.fround(high));
      expect(most).toBeGreaterThan(high - 0.01 * width);
      expect(Math.abs(middle - (low + high) / 2)).toBeLessThan((4 * width) / Math.sqrt(12 * values.length));
    };
    near(
      latent.filter((_, i) => i % 2 === 0),
      0.1,
      5,
    );
    near(
      latent.filter((_, i) => i % 2 === 1),
      0,
      Math.PI,
    );
    near(query.x, -5, 5);
  });

  it('has an error of 4.252 where zero is predicted', () => {
    const { query } = drawBatch(sinusoid, request({ tasks: 4000 }));
    const perTask = Array.from({ length: 4000 }, (_, t) =>
      mean(query.y.subarray(10 * t, 10 * t + 10).map(y => y * y)),
    );
    const average = mean(perTask);
    const error = Math.sqrt(mean(perTask.map(v => (v - average) ** 2)) / 4000);
    expect(Math.abs(average - 4.252)).toBeLessThan(4 * error);
    expect(error).toBeLessThan(0.08);
  });
});

describe('linear', () => {
  it('has weights in the span of its basis', () => {
    const family = linearTasks({ noise: 0 });
    const { query, latent } = drawBatch(family, request());
    query.y.forEach((y, row) => {
      const task = Math.floor(row / query.n);
      let expected = 0;
      for (let d = 0; d < 8; d++)
        for (let e = 0; e < 3; e++)
          expected += query.x[row * 8 + d] * family.basis[d * 3 + e] * latent[task * 3 + e];
      expect(y).toBeCloseTo(expected, 4);
    });
    expect(linearTasks({ basisSeed: 1 }).basis).not.toEqual(family.basis);
  });

  it('has the closed-form ridge solution as oracle where everything is scalar', () => {
    const family = linearTasks({ inSize: 1, codeSize: 1, noise: 0.5 });
    const [a] = family.basis;
    const batch = drawBatch(family, request({ tasks: 3, shots: 4, queries: 2 }));
    const predicted = linearOracle(family, batch);
    for (let t = 0; t < 3; t++) {
      let xy = 0;
      let xx = 0;
      for (let i = 4 * t; i < 4 * t + 4; i++) {
        xy += batch.support.x[i] * batch.support.y[i];
        xx += batch.support.x[i] ** 2;
      }
      const weight = (a * a * xy) / (a * a * xx + 0.25);
      for (let q = 2 * t; q < 2 * t + 2; q++) expect(predicted[q]).toBeCloseTo(weight * batch.query.x[q], 5);
    }
  });

  it('has an oracle that comes down to the noise', () => {
    const family = linearTasks();
    const error = (shots: number) => {
      const batch = drawBatch(family, request({ tasks: 400, shots }));
      return mse(linearOracle(family, batch), batch.query.y);
    };
    // With n rows about 3/n of the noise variance 0.01 is added; 4000 squared normals have a standard error of 2.2 %.
    expect(Math.abs(error(100) / (0.01 * 1.03) - 1)).toBeLessThan(0.09);
    expect(error(2)).toBeGreaterThan(0.05);
  });
});

describe('gp', () => {
  it('has the posterior of one observation in closed form', () => {
    const family = gpTasks({ lengthScale: 0.7, scale: 1.5, noise: 0.3 });
    const batch = drawBatch(family, request({ shots: 1, queries: 3 }));
    const { mean: m, variance, logLikelihood } = gpOracle(family, batch);
    for (let t = 0; t < 4; t++) {
      let expected = 0;
      for (let row = 3 * t; row < 3 * t + 3; row++) {
        const cross = 2.25 * Math.exp(-((batch.query.x[row] - batch.support.x[t]) ** 2) / (2 * 0.49));
        const middle = (cross / 2.34) * batch.support.y[t];
        const spread = 2.34 - cross ** 2 / 2.34;
        expect(m[row]).toBeCloseTo(middle, 10);
        expect(variance[row]).toBeCloseTo(spread, 10);
        expected -=
          (0.5 * (Math.log(2 * Math.PI * spread) + (batch.query.y[row] - middle) ** 2 / spread)) / 3;
      }
      expect(logLikelihood[t]).toBeCloseTo(expected, 10);
    }
  });

  it('is calibrated: draws come from the posterior the oracle states', () => {
    const family = gpTasks();
    const batch = drawBatch(family, request({ tasks: 3000, shots: 8, queries: 1 }));
    const { mean: m, variance, logLikelihood } = gpOracle(family, batch);
    const z = Array.from(batch.query.y, (y, i) => (y - m[i]) / Math.sqrt(variance[i]));
    // 3000 independent tasks: standard errors 0.0085 of the coverage, 0.018 of the mean, 0.026 of the variance.
    expect(Math.abs(mean(z.map(v => (Math.abs(v) < 1 ? 1 : 0))) - 0.6827)).toBeLessThan(0.034);
    expect(Math.abs(mean(z))).toBeLessThan(0.073);
    expect(Math.abs(mean(z.map(v => v * v)) - 1)).toBeLessThan(0.104);
    const entropy = mean(variance.map(v => 0.5 * Math.log(2 * Math.PI * Math.E * v)));
    expect(Math.abs(mean(logLikelihood) + entropy)).toBeLessThan(0.052);
  });

  it('says what is wrong when a matrix cannot be factored', () => {
    expect(() => cholesky(Float64Array.of(1, 2, 2, 1), 2)).toThrow(/pivot 1 of 2 is -3/);
    expect(() => drawBatch(gpTasks({ noise: 0 }), request({ shots: 50, queries: 50 }))).toThrow(DataError);
  });
});

/** An IDX file of unsigned bytes. */
function idx(sizes: number[], values: Uint8Array, magic = 0x0800 + sizes.length): Uint8Array {
  const head = new DataView(new ArrayBuffer(4 + 4 * sizes.length));
  head.setUint32(0, magic);
  sizes.forEach((size, i) => {
    head.setUint32(4 + 4 * i, size);
  });
  return gzipSync(joined(new Uint8Array(head.buffer), values));
}

describe('readMnist', () => {
  const images = idx([2, 1, 3], Uint8Array.of(1, 2, 3, 4, 5, 255));
  const labels = idx([2], Uint8Array.of(9, 0));

  it('reads IDX files', () => {
    const data = readMnist(images, labels, 'a');
    expect(data).toEqual({
      count: 2,
      height: 1,
      width: 3,
      images: Uint8Array.of(1, 2, 3, 4, 5, 255),
      labels: Int32Array.of(9, 0),
    });
    expect(takeImages(data, [1, 1, 0])).toEqual({
      x: Float32Array.of(4 / 255, 5 / 255, 1, 4 / 255, 5 / 255, 1, 1 / 255, 2 / 255, 3 / 255),
      y: Int32Array.of(0, 0, 9),
    });
  });

  it.each<[string, Uint8Array, Uint8Array, RegExp]>([
    [
      'labels for images',
      idx([10], new Uint8Array(10)),
      labels,
      /a-images: expected the IDX magic 0x00000803 .*, got 0x00000801/,
    ],
    ['images for labels', images, images, /a-labels: expected the IDX magic 0x00000801/],
    ['floats', idx([2, 1, 3], new Uint8Array(6), 0x0d03), labels, /got 0x00000d03/],
    [
      'missing pixels',
      idx([2, 1, 3], new Uint8Array(5)),
      labels,
      /sizes \[2,1,3\] need 6 bytes .*, there are 5/,
    ],
    ['pixels left over', idx([2, 1, 3], new Uint8Array(7)), labels, /need 6 bytes/],
    ['no header', gzipSync(Uint8Array.of(0, 0, 8)), labels, /3 bytes cannot hold an IDX header/],
    ['other counts', images, idx([3], new Uint8Array(3)), /a: 2 images but 3 labels/],
    ['a label of 10', images, idx([2], Uint8Array.of(10, 0)), /10 is not a digit/],
    ['no gzip', ascii('plain text, nothing else'), labels, /a-images is not a whole gzip file/],
    ['a cut file', images.subarray(0, 20), labels, /a-images is not a whole gzip file/],
    ['an empty file', new Uint8Array(0), labels, /a-images is not a whole gzip file/],
  ])('refuses %s', (_, first, second, reason) => {
    expect(() => readMnist(first, second, 'a')).toThrow(DataError);
    expect(() => readMnist(first, second, 'a')).toThrow(reason);
  });

  it('finds every flipped bit of the packed content, and every truncation', () => {
    const content = Uint8Array.from({ length: 300 }, (_, i) => (i * i) % 251);
    const packed = gzipSync(content);
    expect(readGzip(packed, 'a')).toEqual(content);
    for (let at = 10; at < packed.length; at++) {
      const damaged = packed.slice();
      damaged[at] ^= 1;
      expect(() => readGzip(damaged, 'a')).toThrow(DataError);
      expect(() => readGzip(packed.subarray(0, at), 'a')).toThrow(DataError);
    }
  });
});

describe('MNIST', () => {
  let mnist: ReturnType<typeof loadMnist>;
  beforeAll(() => {
    mnist = loadMnist();
  });

  it('has 10,000 pictures in each part, the test labels in their known order', () => {
    expect([mnist.train.count, mnist.test.count, mnist.test.height, mnist.test.width]).toEqual([
      10000, 10000, 28, 28,
    ]);
    expect([...mnist.test.labels.subarray(0, 10)]).toEqual([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    // The published mean pixel of the test set is 0.1325, of the training set 0.1307.
    expect(mean(mnist.test.images) / 255).toBeCloseTo(0.1325, 4);
    expect(mean(mnist.train.images) / 255).toBeCloseTo(0.1307, 2);
  });

  it('is split into five tasks of two digits', () => {
    const tasks = splitMnist(mnist.test);
    expect(tasks.map(task => task.count)).toEqual([2115, 2042, 1874, 1986, 1983]);
    tasks.forEach((task, t) => {
      const rows = [...mnist.test.labels.keys()].filter(i => mnist.test.labels[i] >> 1 === t);
      expect([...task.labels]).toEqual(rows.map(i => mnist.test.labels[i] - 2 * t));
      const last = rows.at(-1)!;
      expect(task.images.subarray(-784)).toEqual(mnist.test.images.subarray(last * 784, (last + 1) * 784));
      expect(task.images.length).toBe(task.count * 784);
    });
  });

  it('is permuted by one bijection a task, the same for both parts', () => {
    // Two pictures whose pixels count their own places show the permutation itself.
    const places = (pad: number, task: number, seed = 0) => {
      const image = (digit: (i: number) => number) => Uint8Array.from({ length: 784 }, (_, i) => digit(i));
      const images = joined(
        image(i => i & 255),
        image(i => i >> 8),
      );
      const ramp = { count: 2, height: 28, width: 28, images, labels: new Int32Array(2) };
      const result = permutedMnist(ramp, seed, task, pad);
      const size = (28 + 2 * pad) ** 2;
      expect([result.height, result.width, result.images.length]).toEqual([
        28 + 2 * pad,
        28 + 2 * pad,
        2 * size,
      ]);
      return Array.from({ length: size }, (_, i) => result.images[i] + 256 * result.images[size + i]);
    };
    const identity = Array.from({ length: 784 }, (_, i) => i);
    const first = places(0, 0);
    expect([...first].sort((a, b) => a - b)).toEqual(identity);
    expect(first).not.toEqual(identity);
    expect(places(0, 1)).not.toEqual(first);
    expect(places(0, 0, 1)).not.toEqual(first);
    expect(
      places(2, 0)
        .filter(place => place > 0)
        .sort((a, b) => a - b),
    ).toEqual(identity.slice(1));
    const permuted = permutedMnist(mnist.test, 0, 0);
    for (const row of [0, 9999]) {
      const before = mnist.test.images.subarray(row * 784, (row + 1) * 784);
      expect([...permuted.images.subarray(row * 784, (row + 1) * 784)]).toEqual(
        first.map(place => before[place]),
      );
    }
    expect(permuted.labels).toEqual(mnist.test.labels);
    expect(() => permutedMnist(mnist.test, 0, 0, -1)).toThrow(ArgumentError);
  });
});

describe('dataFolder', () => {
  const variable = process.env.WEIGHTLOOM_DATA;
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weightloom-data-'));
    mkdirSync(join(folder, 'option/mnist'), { recursive: true });
    mkdirSync(join(folder, 'variable/mnist'), { recursive: true });
  });
  afterEach(() => {
    if (variable === undefined) delete process.env.WEIGHTLOOM_DATA;
    else process.env.WEIGHTLOOM_DATA = variable;
    rmSync(folder, { recursive: true });
  });

  it('prefers the option to the variable and the variable to the default', () => {
    process.env.WEIGHTLOOM_DATA = join(folder, 'variable');
    expect(dataFolder('mnist', join(folder, 'option'))).toBe(join(folder, 'option/mnist'));
    expect(dataFolder('mnist')).toBe(join(folder, 'variable/mnist'));
    expect(() => dataFolder('omniglot')).toThrow(`no folder ${join(folder, 'variable/omniglot')}`);
    expect(() => dataFolder('omniglot')).toThrow(/root is WEIGHTLOOM_DATA/);
    delete process.env.WEIGHTLOOM_DATA;
    const shared = resolve(import.meta.dirname, '../../shared/data');
    expect(() => dataFolder('no-such-set')).toThrow(`no folder ${join(shared, 'no-such-set')}`);
    expect(() => dataFolder('no-such-set')).toThrow(DataError);
  });

  it('is named when a file in it is missing or damaged', () => {
    const option = join(folder, 'option');
    expect(() => loadMnist(option)).toThrow(
      /cannot read the data file .*train10k-images-idx3-ubyte\.gz: ENOENT/,
    );
    expect(() => loadMnist(option)).toThrow(DataError);
    expect(() => loadOmniglot(option)).toThrow(`no folder ${join(option, 'omniglot')}`);
    mkdirSync(join(option, 'omniglot'));
    writeFileSync(join(option, 'omniglot/images_background.zip'), 'cut');
    copyFileSync(
      join(option, 'omniglot/images_background.zip'),
      join(option, 'omniglot/images_evaluation.zip'),
    );
    expect(() => loadOmniglot(option)).toThrow(/images_background\.zip is not a whole zip archive/);
    expect(() => loadOneShotRuns(option)).toThrow(/cannot read the data file .*all_runs\.zip/);
  });
});

describe('twoModes', () => {
  it('answers with x or -x, either half of the time', () => {
    const batch = drawBatch(twoModes, {
      split: 'train',
      seed: 0,
      first: 0,
      tasks: 400,
      shots: 3,
      queries: 2,
    });
    batch.support.y.forEach((y, i) => {
      expect(y).toBe(Math.fround(batch.latent[Math.floor(i / 3)] * batch.support.x[i]));
    });
    const ups = batch.latent.filter(sign => sign === 1).length;
    expect(batch.latent.filter(sign => sign === -1).length).toBe(400 - ups);
    // Five standard deviations of 400 fair coins.
    expect(Math.abs(ups - 200)).toBeLessThanOrEqual(50);
  });
});
