import { ArgumentError, DataError } from '../core/errors.js';
import { type Bitmap, readBitmap, readZip } from './archive.js';
import { type ClassPools, episodes } from './episodes.js';
import { Stream } from './stream.js';
import type { ClassificationFamily } from './task.js';

/** Side of the pictures handed out. */
export const OMNIGLOT_SIDE = 28;
/** Drawings of each character. */
export const OMNIGLOT_DRAWINGS = 20;
const SOURCE_SIDE = 105;
const PIXELS = OMNIGLOT_SIDE * OMNIGLOT_SIDE;

/** 105 pixels of 4 quarters each become 28 of 15: pixel i gives `share` quarters to `to` and the rest to `to + 1`. */
const QUARTERS = Array.from({ length: SOURCE_SIDE }, (_, i) => {
  const to = Math.floor((4 * i) / 15);
  return { to, share: Math.min(4, 15 * (to + 1) - 4 * i) };
});

/**
 * Shrinks a 105 x 105 bitmap to 28 x 28 by exact area averaging: a target pixel is the share of its square, 3.75
 * source pixels wide, that is ink, scaled to 0 (paper) .. 255 (ink) and rounded.
 *
 * @param source the bitmap's name, for messages.
 * @throws DataError if the bitmap has another size.
 */
export function shrink({ width, height, ink }: Bitmap, source: string): Uint8Array {
  if (width !== SOURCE_SIDE || height !== SOURCE_SIDE)
    throw new DataError(
      `${source}: expected ${SOURCE_SIDE} x ${SOURCE_SIDE} pixels, got ${width} x ${height}`,
    );
  const area = new Uint8Array(PIXELS);
  const row = new Uint8Array(OMNIGLOT_SIDE);
  for (let y = 0; y < SOURCE_SIDE; y++) {
    row.fill(0);
    for (let x = 0; x < SOURCE_SIDE; x++) {
      if (!ink[y * SOURCE_SIDE + x]) continue;
      const { to, share } = QUARTERS[x];
      row[to] += share;
      if (share < 4) row[to + 1] += 4 - share;
    }
    const { to, share } = QUARTERS[y];
    for (let x = 0; x < OMNIGLOT_SIDE; x++) {
      area[to * OMNIGLOT_SIDE + x] += share * row[x];
      if (share < 4) area[(to + 1) * OMNIGLOT_SIDE + x] += (4 - share) * row[x];
    }
  }
  return area.map(quarters => Math.round((quarters * 255) / 225));
}

/**
 * The characters of Omniglot (Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic
 * program induction", Science 2015). A character is named `Alphabet/characterNN`; its drawings are decoded when they
 * are first asked for and then kept, 15,680 bytes a character.
 */
export class Omniglot {
  /** Names of the characters of the 30 background alphabets, sorted. */
  readonly background: readonly string[];
  /** Names of the characters of the 20 evaluation alphabets, sorted. */
  readonly evaluation: readonly string[];
  private readonly files = new Map<string, [path: string, png: Uint8Array][]>();
  private readonly decoded = new Map<string, Uint8Array>();

  /**
   * @param background content of images_background.zip, or of one of the small sets.
   * @param evaluation content of images_evaluation.zip.
   * @throws DataError if an archive is damaged or its files are not 20 drawings of each character.
   */
  constructor(background: Uint8Array, evaluation: Uint8Array) {
    this.background = this.index(background, 'images_background.zip');
    this.evaluation = this.index(evaluation, 'images_evaluation.zip');
  }

  /** The characters of each background alphabet, by its name. */
  alphabets(): Map<string, string[]> {
    const found = new Map<string, string[]>();
    for (const name of this.background) {
      const alphabet = name.slice(0, name.indexOf('/'));
      found.set(alphabet, [...(found.get(alphabet) ?? []), name]);
    }
    return found;
  }

  private index(zip: Uint8Array, source: string): string[] {
    const names = new Set<string>();
    for (const [path, png] of readZip(zip, source)) {
      const name = /^[^/]+\/([^/]+\/character\d+)\/[^/]+\.png$/.exec(path)?.[1];
      if (name === undefined) throw new DataError(`${source}: unexpected file ${path}`);
      if (this.files.has(name) && !names.has(name))
        throw new DataError(`${source}: ${name} is in the background set too`);
      const files = this.files.get(name);
      if (files) files.push([path, png]);
      else this.files.set(name, [[path, png]]);
      names.add(name);
    }
    if (names.size === 0) throw new DataError(`${source} is empty`);
    for (const name of names) {
      const files = this.files.get(name)!;
      if (files.length !== OMNIGLOT_DRAWINGS)
        throw new DataError(`${source}: ${name} has ${files.length} drawings, expected ${OMNIGLOT_DRAWINGS}`);
      files.sort(([a], [b]) => (a < b ? -1 : 1));
    }
    return [...names].sort();
  }

  /**
   * The drawings of one character, [20, 28, 28], 255 ink and 0 paper (see `shrink`). Do not write to it.
   *
   * @throws DataError if there is no such character or one of its pictures is damaged.
   */
  drawings(character: string): Uint8Array {
    const known = this.decoded.get(character);
    if (known) return known;
    const files = this.files.get(character);
    if (!files) throw new DataError(`Omniglot has no character ${character}`);
    const pixels = new Uint8Array(OMNIGLOT_DRAWINGS * PIXELS);
    files.forEach(([path, png], i) => {
      pixels.set(shrink(readBitmap(png, path), path), i * PIXELS);
    });
    this.decoded.set(character, pixels);
    this.files.delete(character);
    return pixels;
  }

  /** Decodes every drawing now, so that a damaged picture is found before a training run and not in it. */
  preload(): void {
    for (const character of [...this.background, ...this.evaluation]) this.drawings(character);
  }
}

/** How characters are divided; see `omniglotClasses`. */
export interface OmniglotSplit {
  /**
   * `vinyals`: 1200 characters for training and the other 423 for testing, all alphabets mixed by a fixed shuffle
   * of the sorted names (after Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016; their list
   * was not published with the paper). `lake`: background against evaluation alphabets. Default `vinyals`.
   */
  readonly split?: 'vinyals' | 'lake';
  /** Characters held out of the training part for validation. Default 0. */
  readonly validation?: number;
  /** Whether rotations by 90, 180 and 270 degrees are classes of their own. Default true. */
  readonly rotations?: boolean;
}

/** Characters of the `vinyals` split in all, and those trained on. */
const VINYALS_ALL = 1623;
const VINYALS_TRAIN = 1200;
/** Never change it: class lists, and so published results and checkpoints, depend on it. */
const SPLIT_SEED = 1623;

/**
 * The class ids of each part, `Alphabet/characterNN@degrees` (clockwise): disjoint by character, so that no rotation
 * of a test character is ever trained on. The lists depend on the options alone; checkpoints may store them.
 *
 * @throws ArgumentError if `validation` is not an integer that leaves a character to train on.
 * @throws DataError if the `vinyals` split is asked of anything but the 1623 characters.
 */
export function omniglotClasses(
  data: Omniglot,
  { split = 'vinyals', validation = 0, rotations = true }: OmniglotSplit = {},
): ClassPools {
  const mixed = split === 'vinyals';
  const pool = new Stream(SPLIT_SEED).shuffle(
    mixed ? [...data.background, ...data.evaluation].sort() : [...data.background],
  );
  if (mixed && pool.length !== VINYALS_ALL)
    throw new DataError(`the vinyals split needs all ${VINYALS_ALL} characters, there are ${pool.length}`);
  const training = mixed ? pool.slice(0, VINYALS_TRAIN) : pool;
  const test = mixed ? pool.slice(VINYALS_TRAIN) : [...data.evaluation];
  if (!Number.isInteger(validation) || validation < 0 || validation >= training.length)
    throw new ArgumentError(
      `omniglotClasses: validation must be an integer in [0, ${training.length}), got ${validation}`,
    );
  const first = training.length - validation;
  const ids = (characters: string[]): string[] =>
    characters.flatMap(name => (rotations ? [0, 90, 180, 270] : [0]).map(degrees => `${name}@${degrees}`));
  return { train: ids(training.slice(0, first)), validation: ids(training.slice(first)), test: ids(test) };
}

/** 0..255 as 0..1. */
const LEVELS = Float32Array.from({ length: 256 }, (_, level) => level / 255);

/** Where a picture turned clockwise takes its pixel (0, 0) from, and the steps to the next row and column. */
const TURNS = new Map([
  ['0', { start: 0, down: OMNIGLOT_SIDE, right: 1 }],
  ['90', { start: PIXELS - OMNIGLOT_SIDE, down: 1, right: -OMNIGLOT_SIDE }],
  ['180', { start: PIXELS - 1, down: -OMNIGLOT_SIDE, right: -1 }],
  ['270', { start: OMNIGLOT_SIDE - 1, down: -1, right: OMNIGLOT_SIDE }],
]);

/**
 * Writes one drawing of a class (`Alphabet/characterNN@degrees`) to `out` [28, 28], ink 1 and paper 0.
 *
 * @param drawing 0 to 19.
 * @throws DataError if there is no such class or one of its pictures is damaged.
 */
export function writeDrawing(data: Omniglot, id: string, drawing: number, out: Float32Array): void {
  const at = id.lastIndexOf('@');
  const turn = TURNS.get(id.slice(at + 1));
  if (!turn) throw new DataError(`Omniglot class ids end in @0, @90, @180 or @270, got ${id}`);
  const pixels = data.drawings(id.slice(0, at));
  const start = drawing * PIXELS + turn.start;
  for (let y = 0, i = 0; y < OMNIGLOT_SIDE; y++)
    for (let x = 0; x < OMNIGLOT_SIDE; x++, i++)
      out[i] = LEVELS[pixels[start + y * turn.down + x * turn.right]];
}

/** `ways`-way episodes of Omniglot: x [28, 28, 1] in [0, 1], ink 1. See `episodes` for how they are drawn. */
export function omniglotEpisodes(
  data: Omniglot,
  options: OmniglotSplit & { readonly ways: number },
): ClassificationFamily {
  return episodes({
    name: 'omniglot',
    inShape: [OMNIGLOT_SIDE, OMNIGLOT_SIDE, 1],
    ways: options.ways,
    pools: omniglotClasses(data, options),
    examples: () => OMNIGLOT_DRAWINGS,
    write: (id, drawing, out) => writeDrawing(data, id, drawing, out),
  });
}

/**
 * Tasks like the official one-shot runs (Lake et al. 2015): `ways` characters of one background alphabet, all support
 * drawings of a row number by one person and all query drawings of a row number by another one, for drawing `i` of every
 * character of an alphabet is by the same person. In training a whole task is turned by 0, 90, 180 or 270 degrees, and
 * every drawing moved by a small affine map; validation and test tasks are of the same alphabets, upright and as drawn.
 *
 * @throws DataError if no alphabet has `ways` characters.
 */
export function withinAlphabets(data: Omniglot, ways: number): ClassificationFamily {
  const alphabets = [...data.alphabets().values()].filter(characters => characters.length >= ways);
  if (alphabets.length === 0) throw new DataError(`no background alphabet has ${ways} characters`);
  return {
    name: 'omniglot',
    kind: 'classification',
    inShape: [OMNIGLOT_SIDE, OMNIGLOT_SIDE, 1],
    outSize: ways,
    draw({ support, query }, stream, split) {
      const characters = alphabets[stream.below(alphabets.length)];
      const degrees = split === 'train' ? 90 * stream.below(4) : 0;
      const shots = support.n / ways;
      const queries = query.n / ways;
      const people = stream.sample(OMNIGLOT_DRAWINGS, shots + queries);
      stream.sample(characters.length, ways).forEach((chosen, label) => {
        people.forEach((person, i) => {
          const [rows, row] = i < shots ? [support, label * shots + i] : [query, label * queries + i - shots];
          const out = rows.x.subarray(row * PIXELS, (row + 1) * PIXELS);
          writeDrawing(data, `${characters[chosen]}@${degrees}`, person, out);
          if (split === 'train') moveDrawing(out, stream);
          rows.y[row] = label;
        });
      });
    },
  };
}

/** Moves a drawing [28, 28] in place by a random affine map about its middle: up to 14 degrees, 15 %, 2 pixels. */
function moveDrawing(drawing: Float32Array, stream: Stream): void {
  const within = (size: number) => size * (2 * stream.uniform() - 1);
  const angle = within(0.25);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const [wide, high, shear, right, down] = [
    1 + within(0.15),
    1 + within(0.15),
    within(0.2),
    within(2),
    within(2),
  ];
  const from = drawing.slice();
  const middle = (OMNIGLOT_SIDE - 1) / 2;
  const ink = (y: number, x: number) =>
    x >= 0 && x < OMNIGLOT_SIDE && y >= 0 && y < OMNIGLOT_SIDE ? from[y * OMNIGLOT_SIDE + x] : 0;
  for (let y = 0, i = 0; y < OMNIGLOT_SIDE; y++)
    for (let x = 0; x < OMNIGLOT_SIDE; x++, i++) {
      const [u, v] = [(x - middle - right) * wide, (y - middle - down) * high];
      const sourceX = cos * u - sin * v + shear * v + middle;
      const sourceY = sin * u + cos * v + middle;
      const [left, top] = [Math.floor(sourceX), Math.floor(sourceY)];
      const [a, b] = [sourceX - left, sourceY - top];
      drawing[i] =
        (1 - b) * ((1 - a) * ink(top, left) + a * ink(top, left + 1)) +
        b * ((1 - a) * ink(top + 1, left) + a * ink(top + 1, left + 1));
    }
}
