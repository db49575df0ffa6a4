/** Weights cut from a row of chunks that one basis makes. */
import { ShapeError } from '../core/errors.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import type { Strategy } from '../program/plan.js';
import { pad } from './concat.js';
import { add } from './elementwise.js';
import {
  addBase,
  checkBase,
  generateRows,
  type KindSizes,
  type Part,
  spreadToRows,
  WindowGenerated,
} from './generated.js';
import { matmul } from './matmul.js';
import { raggedMatmul } from './ragged.js';
import { expand, reshape, slice, transpose } from './views.js';

/**
 * A window of a row of chunks, each the product of a code and one shared basis: code `[T,C,E]` (one row per chunk),
 * basis `[E, chunk]`; the weight is elements `start .. start + size - 1` of the C·chunk generated ones, plus base
 * `[...shape]`. Throws ShapeError where the parts do not fit.
 *
 * von Oswald, Henning, Sacramento, Grewe, "Continual learning with hypernetworks", ICLR 2020.
 */
export class ChunkedGenerated extends WindowGenerated {
  readonly kind = 'chunked';
  constructor(
    code: Tensor,
    readonly basis: Tensor,
    weightShape: Shape,
    base: Part = null,
    start = 0,
  ) {
    super(code, weightShape, base, start);
    if (code.rank !== 3 || basis.rank !== 2 || basis.shape[0] !== code.shape[2])
      throw new ShapeError(
        `chunked: code ${show(code.shape)} and basis ${show(basis.shape)} must be [T,C,E] and [E,chunk]`,
      );
    const generated = code.shape[1] * basis.shape[1];
    if (!Number.isInteger(start) || start < 0 || start + sizeOf(weightShape) > generated)
      throw new ShapeError(
        `chunked: ${show(weightShape)} from element ${start} does not fit ${code.shape[1]} chunks of ${basis.shape[1]}`,
      );
    checkBase('chunked', base, weightShape);
  }
  protected get stored(): Tensor {
    return this.basis;
  }
  protected from(code: Tensor, basis: Tensor, base: Part, shape: Shape): ChunkedGenerated {
    return new ChunkedGenerated(code, basis, shape, base, this.start);
  }
  materialise(): Tensor {
    const [T, C, E] = this.code.shape;
    const chunk = this.basis.shape[1];
    const all = reshape(matmul(reshape(this.code, [T * C, E]), this.basis), [T, C * chunk]);
    const woven = reshape(slice(all, 1, this.start, this.start + sizeOf(this.weightShape)), this.shape);
    return this.base ? add(woven, this.base) : woven;
  }
  sizes(): KindSizes {
    const [, chunks, code] = this.code.shape;
    const { start } = this;
    return { kind: 'chunked', code, chunks, chunk: this.basis.shape[1], start, base: this.base !== null };
  }
  /** Chunks that the weight has a part in, whole rows of it in each or several to a row. */
  unwoven(x: Tensor, strategy: Strategy, rows: Tensor | undefined): Tensor {
    const [i, o] = this.weightShape;
    const chunk = this.basis.shape[1];
    const first = Math.floor(this.start / chunk);
    const code = slice(this.code, 1, first, Math.ceil((this.start + i * o) / chunk));
    const [T, C, E] = code.shape;
    if (chunk < o) {
      // [i, chunks of a row] of codes are a weight each, whose outputs are codes of chunks of y.
      const codes = reshape(code, [T, i, (C / i) * E]);
      const z = rows ? raggedMatmul(x, codes, rows) : matmul(x, codes);
      const lead = x.shape.slice(0, -1);
      return addBase(
        reshape(matmul(reshape(z, [...lead, C / i, E]), this.basis), [...lead, o]),
        x,
        this.base,
      );
    }
    const high = chunk / o;
    const before = this.start / o - first * high;
    const basis = reshape(this.basis, [E, high, o]);
    const y =
      strategy === 'fused'
        ? byChunk(code, basis, x, rows, before)
        : byCode(code, basis, pad(x, x.rank - 1, before, C * high - before - i), rows);
    return addBase(y, x, this.base);
  }
}

/** Σ over chunks of (its rows of x) · W, W made tile by tile: `before` rows of the first are none of the weight's. */
function byChunk(code: Tensor, basis: Tensor, x: Tensor, rows: Tensor | undefined, before: number): Tensor {
  const high = basis.shape[1];
  const i = x.shape[x.rank - 1];
  let y: Tensor | null = null;
  for (let c = 0; c < code.shape[1]; c++) {
    const row = c * high - before;
    const [from, to] = [Math.max(row, 0), Math.min(row + high, i)];
    const its = generateRows(
      reshape(slice(code, 1, c, c + 1), [code.shape[0], code.shape[2]]),
      slice(basis, 1, from - row, to - row),
      slice(x, -1, from, to),
      rows,
    );
    y = y ? add(y, its) : its;
  }
  return y!;
}

/** Σ over chunks of code ⊗ (its rows of x), which is as large for many chunks as for one, times the basis. */
function byCode(code: Tensor, basis: Tensor, x: Tensor, rows: Tensor | undefined): Tensor {
  const [T, C, E] = code.shape;
  const [, high, o] = basis.shape;
  const lead = x.shape.slice(0, -1);
  const codes = rows
    ? reshape(spreadToRows(reshape(code, [T, C * E]), rows, lead[0]), [lead[0], C, E])
    : expand(code, 1);
  const z = matmul(transpose(codes), reshape(x, [...lead, C, high]));
  return matmul(reshape(z, [...lead, E * high]), reshape(basis, [E * high, o]));
}
