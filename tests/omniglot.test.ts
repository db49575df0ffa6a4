import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { zipSync } from 'fflate';
import { beforeAll, describe, expect, it } from 'vitest';
import { ArgumentError, DataError } from '../src/core/errors.js';
import { type Bitmap, readBitmap, readZip } from '../src/data/archive.js';
import { loadOmniglot, loadOneShotRuns } from '../src/data/load.js';
import {
  OMNIGLOT_DRAWINGS,
  Omniglot,
  omniglotClasses,
  omniglotEpisodes,
  shrink,
  writeDrawing,
} from '../src/data/omniglot.js';
import { hausdorffErrors, modifiedHausdorff, oneShotBatch, readOneShotRuns } from '../src/data/one-shot.js';
import { dataFolder } from '../src/data/path.js';
import { type BatchRequest, drawBatch, type TaskBatch } from '../src/data/task.js';

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
const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);
const joined = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap(part => [...part]));
const ascii = (text: string) => Uint8Array.from(text, c => c.charCodeAt(0));

/** A 1-bit grey PNG; row y is filtered with `filters[y % filters.length]`. */
function png({ width, height, ink }: Bitmap, filters = [0], depth = 1): Uint8Array {
  const stride = Math.ceil(width / 8);
  const packed = Array.from({ length: height }, (_, y) => {
    const row = new Uint8Array(stride);
    for (let x = 0; x < width; x++) if (!ink[y * width + x]) row[x >> 3] |= 0x80 >> (x & 7);
    return row;
  });
  const paeth = (a: number, b: number, c: number) => {
    const [pa, pb, pc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
  };
  const rows = packed.map((row, y) => {
    const filter = filters[y % filters.length];
    const filtered = row.map((value, i) => {
      const [left, up, corner] = [row[i - 1] ?? 0, packed[y - 1]?.[i] ?? 0, packed[y - 1]?.[i - 1] ?? 0];
      return value - [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
    });
    return joined(Uint8Array.of(filter), filtered);
  });
  const chunk = (type: string, data: Uint8Array) => {
    const body = joined(ascii(type), data);
    const frame = new DataView(new ArrayBuffer(8));
    frame.setUint32(0, data.length);
    frame.setUint32(4, crc32(body));
    const bytes = new Uint8Array(frame.buffer);
    return joined(bytes.subarray(0, 4), body, bytes.subarray(4));
  };
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, depth);
  return joined(
    ascii('\x89PNG\r\n\x1a\n'),
    chunk('IHDR', new Uint8Array(head.buffer)),
    chunk('IDAT', deflateSync(joined(...rows))),
    chunk('IEND', new Uint8Array(0)),
  );
}
const drawn = (width: number, height: number, ink: (x: number, y: number) => boolean): Bitmap => ({
  width,
  height,
  ink: Uint8Array.from({ length: width * height }, (_, i) => +ink(i % width, Math.floor(i / width))),
});
const noise = (x: number, y: number) => (x * 73 + y * 151 + x * x * y) % 7 < 3;

describe('readBitmap', () => {
  it('reads every row filter and width', () => {
    for (const width of [1, 7, 8, 9, 105]) {
      const picture = drawn(width, 11, noise);
      for (const filters of [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0]])
        expect(readBitmap(png(picture, filters), 'a.png')).toEqual(picture);
    }
  });

  it('refuses another depth, and damage anywhere', () => {
    expect(() => readBitmap(png(drawn(4, 1, noise), [0], 8), 'a.png')).toThrow(
      /a\.png: expected 1-bit grey pixels/,
    );
    const bytes = png(drawn(105, 105, noise));
    for (let at = 0; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at] ^= 0x10;
      expect(() => readBitmap(damaged, 'a.png')).toThrow(DataError);
      expect(() => readBitmap(bytes.subarray(0, at), 'a.png')).toThrow(/a\.png is not a whole PNG file/);
    }
  });
});

describe('shrink', () => {
  it('averages areas', () => {
    expect(
      new Set(
        shrink(
          drawn(105, 105, () => true),
          'a',
        ),
      ),
    ).toEqual(new Set([255]));
    // Pixel 3 of 105 lies on target pixels 0 (3 quarters) and 1 (1 quarter), 15 quarters each way.
    const corner = shrink(
      drawn(105, 105, (x, y) => x === 3 && y === 3),
      'a',
    );
    expect([corner[0], corner[1], corner[28], corner[29]]).toEqual(
      [9, 3, 3, 1].map(q => Math.round((q * 255) / 225)),
    );
    expect(sum(corner.subarray(30))).toBe(0);
    const half = shrink(
      drawn(105, 105, x => x < 60),
      'a',
    );
    expect([half[15], half[16]]).toEqual([255, 0]);
  });

  it('keeps the amount of ink', () => {
    const picture = drawn(105, 105, noise);
    // 784 roundings of at most half a level.
    expect(Math.abs(sum(shrink(picture, 'a')) / 255 / 784 - mean(picture.ink))).toBeLessThan(0.5 / 255);
  });

  it('refuses another size', () => {
    expect(() => shrink(drawn(28, 28, noise), 'a.png')).toThrow(
      /a\.png: expected 105 x 105 pixels, got 28 x 28/,
    );
  });
});

/** `characters` times 20 equal drawings. */
function smallSet(root: string, characters: string[], files: Record<string, Uint8Array> = {}): Uint8Array {
  const picture = png(drawn(105, 105, noise));
  const all: Record<string, Uint8Array> = {};
  for (const name of characters)
    for (let i = 1; i <= 20; i++) all[`${root}/${name}/0001_${`${i}`.padStart(2, '0')}.png`] = picture;
  return zipSync({ ...all, ...files }, { level: 0 });
}

describe('damaged Omniglot archives', () => {
  const background = smallSet('images_background', ['Ab/character01', 'Ab/character02']);
  const evaluation = smallSet('images_evaluation', ['Cd/character01']);

  it('are the only ones refused', () => {
    const data = new Omniglot(background, evaluation);
    data.preload();
    expect([data.background, data.evaluation]).toEqual([
      ['Ab/character01', 'Ab/character02'],
      ['Cd/character01'],
    ]);
    expect(data.drawings('Cd/character01').length).toBe(20 * 784);
    expect(() => data.drawings('Cd/character02')).toThrow(/no character Cd\/character02/);
  });

  it('name the archive that is cut off', () => {
    for (const length of [0, 10, background.length >> 1, background.length - 1]) {
      const cut = background.subarray(0, length);
      expect(() => new Omniglot(cut, evaluation)).toThrow(DataError);
      expect(() => new Omniglot(cut, evaluation)).toThrow(
        /images_background\.zip is not a whole zip archive/,
      );
    }
  });

  it('name what does not belong', () => {
    const stray = smallSet('images_evaluation', ['Cd/character01'], {
      'images_evaluation/readme': ascii('x'),
    });
    expect(() => new Omniglot(background, stray)).toThrow(/images_evaluation\.zip: unexpected file .*readme/);
    const extra = { 'images_evaluation/Cd/character01/0001_21.png': ascii('x') };
    const many = smallSet('images_evaluation', ['Cd/character01'], extra);
    expect(() => new Omniglot(background, many)).toThrow(/Cd\/character01 has 21 drawings, expected 20/);
    expect(() => new Omniglot(background, background)).toThrow(/is in the background set too/);
    expect(() => new Omniglot(background, zipSync({}))).toThrow(/images_evaluation\.zip is empty/);
  });

  it('name the picture that is damaged, when it is asked for', () => {
    const path = 'images_evaluation/Cd/character01/0001_07.png';
    const damaged = { [path]: png(drawn(105, 105, noise)).fill(0, 60, 80) };
    const data = new Omniglot(background, smallSet('images_evaluation', ['Cd/character01'], damaged));
    expect(() => data.preload()).toThrow(DataError);
    expect(() => data.drawings('Cd/character01')).toThrow(`${path} is not a whole PNG file`);
  });

  it('cannot be split as the whole set is', () => {
    expect(() => omniglotClasses(new Omniglot(background, evaluation))).toThrow(/needs all 1623 characters/);
  });
});

describe('Omniglot', () => {
  let data: Omniglot;
  beforeAll(() => {
    data = loadOmniglot();
  });

  it('has 964 and 659 characters of 20 drawings, all readable', () => {
    expect([data.background.length, data.evaluation.length]).toEqual([964, 659]);
    const alphabets = (names: readonly string[]) => new Set(names.map(name => name.split('/')[0])).size;
    expect([alphabets(data.background), alphabets(data.evaluation)]).toEqual([30, 20]);
    data.preload();
    for (const name of [...data.background, ...data.evaluation])
      expect(data.drawings(name).length).toBe(OMNIGLOT_DRAWINGS * 784);
  });

  it('is split by character, rotations included', () => {
    const character = (id: string) => id.split('@')[0];
    const cases = [
      [{}, [4800, 0, 1692]],
      [{ rotations: false }, [1200, 0, 423]],
      [{ validation: 100 }, [4400, 400, 1692]],
      [{ split: 'lake' }, [3856, 0, 2636]],
      [{ split: 'lake', validation: 64, rotations: false }, [900, 64, 659]],
    ] as const;
    for (const [options, sizes] of cases) {
      const { train, validation, test } = omniglotClasses(data, options);
      expect([train.length, validation.length, test.length]).toEqual(sizes);
      expect(new Set([...train, ...validation, ...test]).size).toBe(sum(sizes));
      const parts = [train, validation, test].map(ids => new Set(ids.map(character)));
      expect(parts[0].size + parts[1].size + parts[2].size).toBe(1623);
      expect(new Set(parts.flatMap(part => [...part])).size).toBe(1623);
    }
    const lake = omniglotClasses(data, { split: 'lake' });
    expect(new Set(lake.test.map(character))).toEqual(new Set(data.evaluation));
    // All alphabets are mixed: 423 of 1623 characters, drawn at random, meet each of the 50.
    expect(new Set(omniglotClasses(data).test.map(id => id.split('/')[0])).size).toBe(50);
    expect(() => omniglotClasses(data, { validation: 1200 })).toThrow(ArgumentError);
  });

  it('keeps the class lists that checkpoints and results refer to', () => {
    const { train, test } = omniglotClasses(data);
    expect([train[0], train[1], test[0], test.at(-1)]).toEqual([
      'Sanskrit/character05@0',
      'Sanskrit/character05@90',
      'Mongolian/character28@0',
      'Korean/character34@270',
    ]);
    const all = [...train, ...test].join('\n');
    expect(crc32(all)).toBe(3366357659);
  });

  it('turns pictures clockwise', () => {
    const zip = readZip(readFileSync(join(dataFolder('omniglot'), 'images_evaluation.zip')), 'zip');
    const [path] = [...zip.keys()]
      .filter(name => name.includes('Angelic/character05/'))
      .sort()
      .slice(3);
    let picture = readBitmap(zip.get(path)!, path);
    for (const degrees of [0, 90, 180, 270]) {
      const out = new Float32Array(784);
      writeDrawing(data, `Angelic/character05@${degrees}`, 3, out);
      expect(out).toEqual(Float32Array.from(shrink(picture, path), level => level / 255));
      const { ink } = picture;
      picture = drawn(105, 105, (x, y) => ink[(104 - x) * 105 + y] === 1);
    }
    expect(() => writeDrawing(data, 'Angelic/character05@45', 0, new Float32Array(784))).toThrow(
      /@180 or @270/,
    );
  });

  it('draws episodes of distinct classes and drawings', () => {
    const family = omniglotEpisodes(data, { ways: 5, validation: 50 });
    for (const split of ['train', 'validation', 'test'] as const) {
      const batch = drawBatch(family, request({ split, tasks: 8, shots: 5, queries: 15 }));
      expect([batch.support.n, batch.query.n, batch.outSize]).toEqual([25, 75, 5]);
      expect(drawBatch(family, request({ split, tasks: 8, shots: 5, queries: 15 }))).toEqual(batch);
      for (let t = 0; t < 8; t++) {
        const rows = [batch.support, batch.query].flatMap(({ n, x, y }) =>
          Array.from({ length: n }, (_, i) => ({
            picture: x.subarray((t * n + i) * 784, (t * n + i + 1) * 784).join(),
            label: y[t * n + i],
          })),
        );
        // Every drawing of the five classes, 20 of each, is there once.
        expect(new Set(rows.map(row => row.picture)).size).toBe(100);
        expect(rows.slice(0, 25).map(row => row.label)).toEqual(
          Array.from({ length: 25 }, (_, i) => Math.floor(i / 5)),
        );
        expect(rows.slice(25).map(row => row.label)).toEqual(
          Array.from({ length: 75 }, (_, i) => Math.floor(i / 15)),
        );
      }
      expect(batch.query.x.reduce((a, b) => Math.max(a, b))).toBe(1);
      expect(mean(batch.query.x)).toBeGreaterThan(0.02);
      expect(mean(batch.query.x)).toBeLessThan(0.2);
    }
    expect(() => drawBatch(family, request({ shots: 6, queries: 15 }))).toThrow(
      /need 21 examples of .*, it has 20/,
    );
    expect(() => drawBatch(omniglotEpisodes(data, { ways: 5 }), request({ split: 'validation' }))).toThrow(
      /5 ways need as many validation classes, there are 0/,
    );
  });
});

describe('the official one-shot runs', () => {
  it('give the published error of the modified Hausdorff distance, 38.75 %', () => {
    const runs = loadOneShotRuns();
    expect(runs.map(({ training, test, labels }) => [training.length, test.length, labels.length])).toEqual(
      new Array(20).fill([20, 20, 20]),
    );
    const errors = hausdorffErrors(runs);
    expect(sum(errors)).toBe(155);
    expect(sum(errors) / 400).toBe(0.3875);
  });

  it('are a batch of 20-way tasks', () => {
    const runs = loadOneShotRuns();
    const batch: TaskBatch<Int32Array> = oneShotBatch(runs);
    expect([batch.tasks, batch.outSize, batch.support.n, batch.query.n]).toEqual([20, 20, 20, 20]);
    const row = (x: Float32Array, i: number) => x.subarray(i * 784, (i + 1) * 784);
    const picture = (bitmap: Bitmap) => Float32Array.from(shrink(bitmap, 'a'), level => level / 255);
    runs.forEach(({ training, test, labels }, t) => {
      expect(row(batch.support.x, 20 * t + 7)).toEqual(picture(training[7]));
      expect(row(batch.query.x, 20 * t + labels[7])).toEqual(picture(test[7]));
    });
    expect(batch.query.y).toEqual(Int32Array.from({ length: 400 }, (_, i) => i % 20));
    expect(batch.support.y).toEqual(batch.query.y);
    expect(() => oneShotBatch([{ ...runs[0], labels: new Int32Array(20) }])).toThrow(
      /run01: expected one test/,
    );
  });

  it('are measured by the modified Hausdorff distance', () => {
    const random = (n: number, seed: number) => {
      const points = Array.from({ length: n }, (_, i) => [
        ((i * 37 + seed) % 23) - 11.3,
        ((i * 91 + seed) % 29) - 7.7,
      ]);
      return Float64Array.from(points.sort((p, q) => p[0] - q[0]).flat());
    };
    const nearest = (a: Float64Array, b: Float64Array) => {
      const at = (p: Float64Array) =>
        Array.from({ length: p.length / 2 }, (_, i) => [p[2 * i], p[2 * i + 1]]);
      return mean(at(a).map(([y, x]) => Math.min(...at(b).map(([v, u]) => Math.hypot(y - v, x - u)))));
    };
    for (const [n, m] of [
      [1, 1],
      [1, 9],
      [20, 13],
      [23, 23],
    ]) {
      const [a, b] = [random(n, 3), random(m, 8)];
      expect(modifiedHausdorff(a, b)).toBeCloseTo(Math.max(nearest(a, b), nearest(b, a)), 12);
      expect(modifiedHausdorff(b, a)).toBe(modifiedHausdorff(a, b));
    }
  });

  it('are refused where a label names no picture', () => {
    const picture = png(drawn(105, 105, noise));
    const zip = (labels: string) =>
      zipSync({
        'run01/training/class01.png': picture,
        'run01/test/item01.png': picture,
        'run01/class_labels.txt': ascii(labels),
      });
    const good = readOneShotRuns(zip('run01/test/item01.png run01/training/class01.png\n'));
    expect(good.map(run => [run.name, ...run.labels])).toEqual([['run01', 0]]);
    expect(() => readOneShotRuns(zip('run01/test/item01.png run01/training/class02.png'))).toThrow(
      /got "run01/,
    );
    expect(() => readOneShotRuns(zip('run01/test/item02.png run01/training/class01.png'))).toThrow(
      /all_runs\.zip has no file run01\/test\/item02\.png/,
    );
    expect(() => readOneShotRuns(zipSync({ 'a.png': picture }))).toThrow(/has no runNN\/class_labels\.txt/);
  });
});
