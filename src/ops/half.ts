/** Numbers of half precision (IEEE 754 binary16), stored as pairs in u32 words, the first in the lower bits. */
import { ArgumentError, DTypeError, ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import { scope, type Tensor } from '../core/tensor.js';
import { concat } from './concat.js';
import { tensor } from './create.js';
import { checkpoint } from './custom.js';
import { abs, add, mul } from './elementwise.js';
import { checkBase, FullGenerated, type Part, WindowGenerated } from './generated.js';
import { applyWeight, type Preference } from './linear.js';
import { matmul } from './matmul.js';
import { maxOver, sum } from './reduce.js';
import { reshape, slice } from './views.js';

const spec: OpSpec<undefined> = {
  name: 'widen',
  dtypes: ['u32'],
  outputs: ([x]) => {
    if (x.rank === 0) throw new ShapeError('widen: a scalar has no last axis');
    return { shape: [...x.shape.slice(0, -1), 2 * x.shape[x.rank - 1]] };
  },
  ref: ([y]: readonly Dense[], [x]: readonly Dense[]) => {
    for (let i = 0; i < y.data.length; i++) {
      const half = (x.data[i >> 1] >>> (16 * (i & 1))) & 0xffff;
      const exponent = (half >> 10) & 31;
      const fraction = half & 1023;
      const size =
        exponent === 31
          ? fraction > 0
            ? Number.NaN
            : Infinity
          : exponent === 0
            ? fraction * 2 ** -24
            : (1024 + fraction) * 2 ** (exponent - 25);
      y.data[i] = half & 0x8000 ? -size : size;
    }
  },
  vjp: () => [null],
};
defineOp(spec);

/** Halves as f32: u32 `[...,n] -> [...,2n]`. No derivative. Throws ShapeError for a scalar. */
export const widen = (words: Tensor): Tensor => apply(spec, [words], undefined)[0];

/**
 * Rows of numbers, each rounded to the nearest half (ties to even), as words `[rows, ceil(n/2)]` on the values' backend:
 * within 2^-11 of the number, or 2^-25 below 2^-14. Resolves when they were read. Throws ArgumentError where a number is
 * none or its half would be infinite.
 */
export async function narrow(values: Tensor): Promise<Tensor> {
  if (values.rank !== 2 || values.dtype !== 'f32')
    throw new DTypeError(`narrow: expected f32 rows, got ${values}`);
  const [rows, n] = values.shape;
  const wide = await values.data();
  const halves = new Uint16Array(rows * 2 * Math.ceil(n / 2));
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < n; i++) halves[(r * halves.length) / rows + i] = halfOf(wide[r * n + i]);
  const words = Uint32Array.from(
    { length: halves.length / 2 },
    (_, k) => halves[2 * k] | (halves[2 * k + 1] << 16),
  );
  return tensor(words, [rows, Math.ceil(n / 2)]);
}

/** The bits of the nearest half. */
function halfOf(value: number): number {
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  // The unit of a number's last place: 2^-24 below 2^-14. A fraction that rounds up to 2048 units carries over by itself.
  const exponent = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size));
  const units = toEven(size * 2 ** (10 - exponent));
  const bits = (exponent + 14) * 1024 + units;
  if (!(bits < 0x7c00)) throw new ArgumentError(`narrow: ${value} has no half, the largest is 65504`);
  return sign | bits;
}
const toEven = (x: number): number => {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
};

/** Floats of a basis that exist at once beside its halves. */
const BLOCK = 2 ** 18;

/**
 * A full weight whose basis is stored as halves: code `[T,E]`, words u32 `[E,…]`, of which the weight is elements
 * `start .. start + size - 1`, base `[...shape]` in f32. Sums are f32. `linear` widens some rows of the weight at a time
 * and applies them by any plan of a full weight. Code, base and x have derivatives of every order; the basis is a
 * constant. Throws ShapeError where the parts do not fit.
 */
export class HalfGenerated extends WindowGenerated {
  readonly kind = 'half';
  constructor(
    code: Tensor,
    readonly words: Tensor,
    weightShape: Shape,
    base: Part = null,
    start = 0,
  ) {
    super(code, weightShape, base, start);
    if (code.rank !== 2 || words.rank !== 2 || words.dtype !== 'u32' || words.shape[0] !== code.shape[1])
      throw new ShapeError(
        `half: code ${show(code.shape)} and words ${words} must be [T,E] and u32 [E,words]`,
      );
    if (start < 0 || start + sizeOf(weightShape) > 2 * words.shape[1])
      throw new ShapeError(
        `half: ${show(weightShape)} from element ${start} does not fit ${words.shape[1]} words`,
      );
    checkBase('half', base, weightShape);
  }
  protected get stored(): Tensor {
    return this.words;
  }
  protected from(code: Tensor, words: Tensor, base: Part, shape: Shape): HalfGenerated {
    return new HalfGenerated(code, words, shape, base, this.start);
  }
  materialise(): Tensor {
    const woven = reshape(
      this.byColumns(this.code, x => x),
      this.shape,
    );
    return this.base ? add(woven, this.base) : woven;
  }
  /**
   * The most by which each weight may differ from what the basis made before it was rounded, `[T, ...shape]`:
   * Σ_e |code[t,e]| · (2^-11 |basis[e]| + 2^-25).
   */
  errorBound(): Tensor {
    const size = abs(this.code);
    const rounding = reshape(mul(this.byColumns(size, abs), 2 ** -11), this.shape);
    return add(
      rounding,
      mul(reshape(sum(size, 1), [this.tasks, ...this.weightShape.map(() => 1)]), 2 ** -25),
    );
  }
  /** What storing halves saves, and the most it changes. Resolves when the values were read. */
  async explain(): Promise<string> {
    const [E] = this.words.shape;
    const size = E * sizeOf(this.weightShape);
    const [most, largest] = await Promise.all(
      [this.errorBound(), abs(this.materialise())].map(x => maxOver(x).item()),
    );
    return (
      `${this}: basis of ${size} numbers in f16, ${2 * size} bytes instead of ${4 * size}; ` +
      `a weight changes by at most ${most.toPrecision(3)}, the largest is ${largest.toPrecision(3)}`
    );
  }
  sizes(): never {
    throw new ArgumentError(
      'planOf: a weight of a basis in f16 is applied in blocks, each by the plan of a full one',
    );
  }
  unwoven(): never {
    return this.sizes();
  }
  override applyItself(
    x: Tensor,
    { rows, strategy }: { readonly rows?: Tensor; readonly strategy?: Preference },
  ): Tensor {
    const [i, o] = this.weightShape;
    const { code, base } = this;
    const [E] = this.words.shape;
    const high = Math.max(1, Math.floor(BLOCK / Math.max(1, E * o)));
    let y: Tensor | null = null;
    for (let from = 0; from < i || !y; from += high) {
      const to = Math.min(i, from + high);
      const run = checkpoint((x: Tensor, code: Tensor, base: Tensor[]) =>
        scope(() => {
          const basis = reshape(this.widened(from * o, to * o), [E, to - from, o]);
          return applyWeight(x, new FullGenerated(code, basis, base[0] ?? null), rows, strategy);
        }),
      );
      const its = run(slice(x, -1, from, to), code, base ? [slice(base, 0, from, to)] : []);
      y = y ? add(y, its) : its;
    }
    return y;
  }
  /** Elements `[from, to)` of the weight's basis. */
  private widened(from: number, to: number): Tensor {
    const [first, end] = [this.start + from, this.start + to];
    const word = Math.floor(first / 2);
    const wide = widen(slice(this.words, 1, word, Math.ceil(end / 2)));
    return slice(wide, 1, first - 2 * word, end - 2 * word);
  }
  /** code · f(basis) `[T, size]`, some columns after the others. */
  private byColumns(code: Tensor, f: (x: Tensor) => Tensor): Tensor {
    const size = sizeOf(this.weightShape);
    const most = Math.max(1, Math.floor(BLOCK / Math.max(1, this.words.shape[0])));
    const pieces: Tensor[] = [];
    for (let from = 0; from < size || pieces.length === 0; from += most) {
      const to = Math.min(size, from + most);
      const run = checkpoint((code: Tensor) => scope(() => matmul(code, f(this.widened(from, to)))));
      pieces.push(run(code));
    }
    return concat(pieces, 1);
  }
}
