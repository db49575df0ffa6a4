import { ArgumentError, DataError } from '../core/errors.js';
import { readGzip } from './archive.js';
import { Stream } from './stream.js';

/** Grey pictures with one label each. */
export interface LabelledImages {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /** [count, height, width], 0 (background) .. 255 (ink). */
  readonly images: Uint8Array;
  /** [count]. */
  readonly labels: Int32Array;
}

/** Type code 8 (unsigned byte) of the IDX format, with the number of axes: 0x08nn, big-endian like all sizes. */
function readIdx(gzip: Uint8Array, axes: number, source: string): { sizes: number[]; values: Uint8Array } {
  const bytes = readGzip(gzip, source);
  const head = 4 + 4 * axes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < head)
    throw new DataError(`${source}: ${bytes.length} bytes cannot hold an IDX header of ${head}`);
  const magic = view.getUint32(0);
  const expected = 0x0800 + axes;
  if (magic !== expected)
    throw new DataError(
      `${source}: expected the IDX magic 0x${expected.toString(16).padStart(8, '0')} (unsigned bytes, ${axes} axes), ` +
        `got 0x${magic.toString(16).padStart(8, '0')}`,
    );
  const sizes = Array.from({ length: axes }, (_, i) => view.getUint32(4 + 4 * i));
  const count = sizes.reduce((a, b) => a * b, 1);
  if (bytes.length - head !== count)
    throw new DataError(
      `${source}: sizes [${sizes}] need ${count} bytes after the header, there are ${bytes.length - head}`,
    );
  return { sizes, values: bytes.subarray(head) };
}

/**
 * Reads one part of MNIST (LeCun, Cortes, Burges) from its two gzipped IDX files.
 *
 * @param source the name the two files share, for messages.
 * @throws DataError if a file is damaged or of another format, the counts differ or a label is above 9.
 */
export function readMnist(images: Uint8Array, labels: Uint8Array, source: string): LabelledImages {
  const pictures = readIdx(images, 3, `${source}-images`);
  const digits = readIdx(labels, 1, `${source}-labels`);
  const [count, height, width] = pictures.sizes;
  if (digits.sizes[0] !== count)
    throw new DataError(`${source}: ${count} images but ${digits.sizes[0]} labels`);
  const wrong = digits.values.find(label => label > 9);
  if (wrong !== undefined) throw new DataError(`${source}-labels: ${wrong} is not a digit`);
  return { count, height, width, images: pictures.values, labels: Int32Array.from(digits.values) };
}

/** The rows `indices` as a minibatch: x [n, height * width] scaled to [0, 1], y [n]. */
export function takeImages(
  data: LabelledImages,
  indices: ArrayLike<number>,
): { x: Float32Array; y: Int32Array } {
  const size = data.height * data.width;
  const x = new Float32Array(indices.length * size);
  const y = new Int32Array(indices.length);
  for (let i = 0; i < indices.length; i++) {
    y[i] = data.labels[indices[i]];
    const from = indices[i] * size;
    for (let p = 0; p < size; p++) x[i * size + p] = data.images[from + p] / 255;
  }
  return { x, y };
}

/**
 * Split MNIST (Zenke, Poole, Ganguli, "Continual learning through synaptic intelligence", ICML 2017): five tasks of
 * two digits each, (0, 1), (2, 3), .. (8, 9), in that order. Labels are 0 and 1 within a task; the digit is
 * `2 * task + label`.
 */
export function splitMnist(data: LabelledImages): LabelledImages[] {
  const size = data.height * data.width;
  return Array.from({ length: 5 }, (_, task) => {
    const rows: number[] = [];
    data.labels.forEach((label, i) => {
      if (label >> 1 === task) rows.push(i);
    });
    const images = new Uint8Array(rows.length * size);
    rows.forEach((row, i) => {
      images.set(data.images.subarray(row * size, (row + 1) * size), i * size);
    });
    return {
      ...data,
      count: rows.length,
      images,
      labels: Int32Array.from(rows, row => data.labels[row] & 1),
    };
  });
}

/**
 * One task of permuted MNIST (Goodfellow et al., "An empirical investigation of catastrophic forgetting", 2013): all
 * ten digits, the pixels of every picture in one random order that depends on (seed, task) alone, so that training
 * and test data of a task match. Every task is permuted, task 0 too.
 *
 * @param pad background pixels added on each side first; 2 gives the 32 x 32 of van de Ven and Tolias, 2019.
 * @throws ArgumentError if `pad` is not an integer >= 0.
 */
export function permutedMnist(data: LabelledImages, seed: number, task: number, pad = 0): LabelledImages {
  if (!Number.isSafeInteger(pad) || pad < 0)
    throw new ArgumentError(`permutedMnist: pad must be an integer >= 0, got ${pad}`);
  const height = data.height + 2 * pad;
  const width = data.width + 2 * pad;
  const size = height * width;
  const place = new Stream(seed, task).shuffle(Int32Array.from({ length: size }, (_, i) => i));
  const images = new Uint8Array(data.count * size);
  for (let i = 0, from = 0; i < data.count; i++)
    for (let y = 0; y < data.height; y++)
      for (let x = 0; x < data.width; x++, from++)
        images[i * size + place[(y + pad) * width + x + pad]] = data.images[from];
  return { ...data, height, width, images };
}
