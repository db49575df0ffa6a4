/** Weights that are a product of two generated factors. */
import { ShapeError } from '../core/errors.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import type { Strategy } from '../program/plan.js';
import { add, mul } from './elementwise.js';
import {
  addBase,
  checkBase,
  Generated,
  type GeneratedParts,
  type KindSizes,
  type Part,
  windowOf,
} from './generated.js';
import { matmul } from './matmul.js';
import { raggedMatmul } from './ragged.js';
import { reshape, slice } from './views.js';

/**
 * W[t] = base + scale · a[t] · b[t]: a `[T,i,r]`, b `[T,r,o]`, for a weight `[i,o]` or one whose leading axes multiply
 * to i (convolution filters). base is `[...shape]`. Throws ShapeError where the parts do not fit.
 *
 * Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022.
 */
export class LowRankGenerated extends Generated {
  readonly kind = 'lowRank';
  readonly weightShape: Shape;
  constructor(
    readonly a: Tensor,
    readonly b: Tensor,
    readonly scale = 1,
    readonly base: Part = null,
    weightShape?: Shape,
  ) {
    super();
    const [T, i, r] = a.shape;
    if (a.rank !== 3 || b.rank !== 3 || b.shape[0] !== T || b.shape[1] !== r)
      throw new ShapeError(`lowRank: a ${show(a.shape)} and b ${show(b.shape)} must be [T,i,r] and [T,r,o]`);
    this.weightShape = weightShape ?? [i, b.shape[2]];
    if (sizeOf(this.weightShape.slice(0, -1)) !== i || this.weightShape.at(-1) !== b.shape[2])
      throw new ShapeError(`lowRank: [${i},${b.shape[2]}] does not fit the weight ${show(this.weightShape)}`);
    checkBase('lowRank', base, this.weightShape);
  }
  get tasks(): number {
    return this.a.shape[0];
  }
  materialise(): Tensor {
    const product = reshape(matmul(this.a, this.b), this.shape);
    const woven = this.scale === 1 ? product : mul(product, this.scale);
    return this.base ? add(woven, this.base) : woven;
  }
  reshaped(shape: Shape): LowRankGenerated {
    return new LowRankGenerated(this.a, this.b, this.scale, this.base && reshape(this.base, shape), shape);
  }
  override window(shape: Shape, gain: number): LowRankGenerated {
    const [T, , r] = this.a.shape;
    const lead = shape.slice(0, -1);
    const a = windowOf(reshape(this.a, [T, ...this.weightShape.slice(0, -1), r]), [...lead, r]);
    const b = slice(this.b, 2, 0, shape[shape.length - 1]);
    const base = this.base && windowOf(this.base, shape);
    return new LowRankGenerated(
      ...([reshape(a, [T, sizeOf(lead), r]), b, gain * this.scale] as const),
      base && gain !== 1 ? mul(base, gain) : base,
      shape,
    );
  }
  parts(): GeneratedParts {
    return {
      own: [this.a, this.b],
      shared: this.base ? [this.base] : [],
      make: ([a, b], [base = null]) => new LowRankGenerated(a, b, this.scale, base, this.weightShape),
    };
  }
  sizes(): KindSizes {
    return { kind: 'lowRank', code: this.a.shape[2], base: this.base !== null };
  }
  unwoven(x: Tensor, _strategy: Strategy, rows: Tensor | undefined): Tensor {
    const times = (v: Tensor, m: Tensor) => (rows ? raggedMatmul(v, m, rows) : matmul(v, m));
    const y = times(times(x, this.a), this.b);
    return addBase(this.scale === 1 ? y : mul(y, this.scale), x, this.base);
  }
}
