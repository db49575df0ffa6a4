import { DataError } from '../core/errors.js';
import { type Bitmap, readBitmap, readZip } from './archive.js';
import { OMNIGLOT_SIDE, shrink } from './omniglot.js';
import type { TaskBatch } from './task.js';

/** One of the official runs: each test drawing shows one of the characters of the training drawings. */
export interface OneShotRun {
  /** `run01` .. `run20`. */
  readonly name: string;
  /** One drawing of each of the 20 characters. */
  readonly training: readonly Bitmap[];
  /** 20 drawings by another person, in the order of class_labels.txt. */
  readonly test: readonly Bitmap[];
  /** [20]: index into `training` of the character that `test[i]` shows. */
  readonly labels: Int32Array;
}

/**
 * Reads the 20 official runs of 20-way one-shot classification within an alphabet (Lake et al. 2015).
 *
 * @param zip content of all_runs.zip.
 * @param source its name, for messages.
 * @throws DataError if the archive or a picture is damaged or a label file names a picture that is not there.
 */
export function readOneShotRuns(zip: Uint8Array, source = 'all_runs.zip'): OneShotRun[] {
  const files = readZip(zip, source);
  const bitmap = (path: string): Bitmap => {
    const png = files.get(path);
    if (!png) throw new DataError(`${source} has no file ${path}`);
    return readBitmap(png, `${source}/${path}`);
  };
  const names = [...files.keys()]
    .filter(path => path.endsWith('/class_labels.txt'))
    .map(path => path.slice(0, -'/class_labels.txt'.length))
    .sort();
  if (names.length === 0) throw new DataError(`${source} has no runNN/class_labels.txt`);
  return names.map(name => {
    const classes = [...files.keys()].filter(path => path.startsWith(`${name}/training/`)).sort();
    const lines = new TextDecoder()
      .decode(files.get(`${name}/class_labels.txt`))
      .trim()
      .split(/\r?\n/);
    const pairs = lines.map(line => {
      const [test, training, ...rest] = line.trim().split(/\s+/);
      const label = classes.indexOf(training);
      if (label < 0 || rest.length)
        throw new DataError(
          `${source}/${name}/class_labels.txt: expected "test file, training file", got "${line}"`,
        );
      return { test, label };
    });
    return {
      name,
      training: classes.map(bitmap),
      test: pairs.map(({ test }) => bitmap(test)),
      labels: Int32Array.from(pairs, ({ label }) => label),
    };
  });
}

/**
 * The runs as a batch of 20-way 1-shot tasks with one query a class, for a trained model: x [28, 28, 1], ink 1
 * (see `shrink`), the query rows in the order of their labels.
 *
 * @throws DataError if a run does not have exactly one test drawing of each character, or runs differ in size.
 */
export function oneShotBatch(runs: readonly OneShotRun[]): TaskBatch<Int32Array> {
  const ways = runs[0]?.training.length ?? 0;
  const size = OMNIGLOT_SIDE * OMNIGLOT_SIDE;
  const rows = () => ({
    n: ways,
    x: new Float32Array(runs.length * ways * size),
    y: new Int32Array(runs.length * ways),
  });
  const support = rows();
  const query = rows();
  runs.forEach(({ name, training, test, labels }, t) => {
    if (training.length !== ways || test.length !== ways || new Set(labels).size !== ways)
      throw new DataError(`${name}: expected one test drawing of each of ${ways} characters`);
    const put = (rows: { x: Float32Array; y: Int32Array }, picture: Bitmap, label: number) => {
      const row = t * ways + label;
      rows.x.set(
        Float32Array.from(shrink(picture, name), v => v / 255),
        row * size,
      );
      rows.y[row] = label;
    };
    training.forEach((picture, label) => {
      put(support, picture, label);
    });
    test.forEach((picture, i) => {
      put(query, picture, labels[i]);
    });
  });
  return {
    tasks: runs.length,
    shots: 1,
    queries: 1,
    inShape: [OMNIGLOT_SIDE, OMNIGLOT_SIDE, 1],
    outSize: ways,
    support,
    query,
    latent: new Float32Array(0),
  };
}

/** Coordinates (row, column) of the ink relative to their mean, pair by pair, sorted by row. */
function inkPoints({ width, ink }: Bitmap): Float64Array {
  const points: number[] = [];
  let rows = 0;
  let columns = 0;
  ink.forEach((on, i) => {
    if (!on) return;
    const row = Math.floor(i / width);
    points.push(row, i % width);
    rows += row;
    columns += i % width;
  });
  const n = points.length / 2;
  return Float64Array.from(points, (value, i) => value - (i % 2 ? columns : rows) / n);
}

/** Mean over `a` of the distance to the nearest point of `b`; rows too far away to matter are not visited. */
function meanNearest(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  let split = 0;
  for (let i = 0; i < a.length; i += 2) {
    const row = a[i];
    while (split < b.length && b[split] < row) split += 2;
    let best = Number.POSITIVE_INFINITY;
    for (let j = split; j < b.length && (b[j] - row) ** 2 < best; j += 2)
      best = Math.min(best, (b[j] - row) ** 2 + (b[j + 1] - a[i + 1]) ** 2);
    for (let j = split - 2; j >= 0 && (b[j] - row) ** 2 < best; j -= 2)
      best = Math.min(best, (b[j] - row) ** 2 + (b[j + 1] - a[i + 1]) ** 2);
    sum += Math.sqrt(best);
  }
  return sum / (a.length / 2);
}

/**
 * The modified Hausdorff distance of two point sets (Dubuisson and Jain, "A modified Hausdorff distance for object
 * matching", ICPR 1994): the larger of the two mean distances from a point to the nearest point of the other set.
 * Points are consecutive pairs of numbers, sorted by the first; neither set may be empty.
 */
export function modifiedHausdorff(a: Float64Array, b: Float64Array): number {
  return Math.max(meanNearest(a, b), meanNearest(b, a));
}

/**
 * The baseline published with the runs: a test drawing belongs to the training drawing at the smallest modified
 * Hausdorff distance, ink centred on its mean, the first one winning ties. It errs on 38.75 % of the 400 test
 * drawings, which makes it an exact check of everything that reads the data.
 *
 * @returns the number of errors in each run.
 */
export function hausdorffErrors(runs: readonly OneShotRun[]): number[] {
  return runs.map(({ training, test, labels }) => {
    const classes = training.map(inkPoints);
    return test.filter((picture, i) => {
      const points = inkPoints(picture);
      const costs = classes.map(other => modifiedHausdorff(points, other));
      return costs.indexOf(Math.min(...costs)) !== labels[i];
    }).length;
  });
}
