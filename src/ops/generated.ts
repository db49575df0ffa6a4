/**
 * Generated weights: one set of weights per task, kept as what they are generated from. A generated weight is an
 * opaque leaf of a parameter tree. `linear` applies it by whichever plan is cheapest; `materialise` turns it into a
 * plain tensor with a leading task axis. Its parts carry gradients like any tensor.
 */
import { ShapeError } from '../core/errors.js';
import { type Shape, sameShape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { add, mul, sub, type Value } from './elementwise.js';
import { matmul } from './matmul.js';
import { unpack } from './unpack.js';
import { broadcastTo, reshape, slice, transpose } from './views.js';

type Part = Tensor | null;

/** What may stand where a weight is needed. */
export type Weight = Tensor | Generated;

/**
 * A weight per task that is not there yet. Arithmetic on it and gradients with respect to it throw GraphError.
 * Every part is a direct property, which is how a scope finds the memory to keep.
 */
export abstract class Generated extends tree.Opaque {
  abstract readonly kind: 'full' | 'chunked' | 'lowRank' | 'fast';
  override readonly choices =
    'use materialise(theta) for plain tensors, or differentiate with respect to phi or the code';

  /** Number of tasks T. */
  abstract get tasks(): number;
  /** Shape of one task's weight. */
  abstract get weightShape(): Shape;
  /** The weights as a tensor `[T, ...weightShape]`. */
  abstract materialise(): Tensor;
  abstract override mapParts(f: (part: any) => any): Generated;

  /** `[T, ...weightShape]`. */
  get shape(): Shape {
    return [this.tasks, ...this.weightShape];
  }
  // Ops read these before `apply` sees the operand; without them they would fail with a message about shapes.
  get rank(): never {
    return this.refuse('arithmetic');
  }
  get view(): never {
    return this.refuse('arithmetic');
  }
  get dtype(): never {
    return this.refuse('arithmetic');
  }
  override toString(): string {
    return `generated weight (${this.kind}) ${show(this.shape)}`;
  }
}

/** The projection a full weight is one piece of. */
export interface Projection {
  /** [E, P], P the sum of the sizes. */
  readonly basis: Tensor;
  /** [P]. */
  readonly base: Part;
  /** Elements of each piece, in order. */
  readonly sizes: readonly number[];
  /** Which piece this is. */
  readonly index: number;
}

/**
 * W[t] = Σ_e code[t,e] · basis[e] + base: code `[T,E]`, basis `[E, ...shape]`, base `[...shape]`. Pieces of one
 * projection (made by `projectFull`) remember it, so that all of them together cost one product when materialised.
 * Throws ShapeError where the parts do not fit.
 */
export class FullGenerated extends Generated {
  readonly kind = 'full';
  constructor(
    readonly code: Tensor,
    readonly basis: Tensor,
    readonly base: Part = null,
    readonly projection: Projection | null = null,
  ) {
    super();
    if (code.rank !== 2 || basis.rank < 2 || basis.shape[0] !== code.shape[1])
      throw new ShapeError(
        `full: code ${show(code.shape)} and basis ${show(basis.shape)} must be [T,E] and [E,...shape]`,
      );
    checkBase('full', base, basis.shape.slice(1));
  }
  get tasks(): number {
    return this.code.shape[0];
  }
  get weightShape(): Shape {
    return this.basis.shape.slice(1);
  }
  materialise(): Tensor {
    const [E, ...shape] = this.basis.shape;
    const woven = reshape(matmul(this.code, reshape(this.basis, [E, sizeOf(shape)])), this.shape);
    return this.base ? add(woven, this.base) : woven;
  }
  override mapParts(f: (part: any) => any): FullGenerated {
    const { projection: p } = this;
    return new FullGenerated(
      f(this.code),
      f(this.basis),
      this.base && f(this.base),
      p && { ...p, basis: f(p.basis), base: p.base && f(p.base) },
    );
  }
}

/**
 * A window of a row of chunks, each the product of a code and one shared basis: code `[T,C,E]` (one row per chunk),
 * basis `[E, chunk]`; the weight is elements `start .. start + size - 1` of the C·chunk generated ones, plus base
 * `[...shape]`. Throws ShapeError where the parts do not fit.
 *
 * von Oswald, Henning, Sacramento, Grewe, "Continual learning with hypernetworks", ICLR 2020.
 */
export class ChunkedGenerated extends Generated {
  readonly kind = 'chunked';
  constructor(
    readonly code: Tensor,
    readonly basis: Tensor,
    readonly weightShape: Shape,
    readonly base: Part = null,
    readonly start = 0,
  ) {
    super();
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
  get tasks(): number {
    return this.code.shape[0];
  }
  materialise(): Tensor {
    const [T, C, E] = this.code.shape;
    const chunk = this.basis.shape[1];
    const all = reshape(matmul(reshape(this.code, [T * C, E]), this.basis), [T, C * chunk]);
    const woven = reshape(slice(all, 1, this.start, this.start + sizeOf(this.weightShape)), this.shape);
    return this.base ? add(woven, this.base) : woven;
  }
  override mapParts(f: (part: any) => any): ChunkedGenerated {
    return new ChunkedGenerated(
      f(this.code),
      f(this.basis),
      this.weightShape,
      this.base && f(this.base),
      this.start,
    );
  }
}

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
  override mapParts(f: (part: any) => any): LowRankGenerated {
    return new LowRankGenerated(
      f(this.a),
      f(this.b),
      this.scale,
      this.base && f(this.base),
      this.weightShape,
    );
  }
}

/** What one step of gradient descent on a weight came to: W becomes W - rate · xᵀ · delta. */
export interface FastStep {
  /** What the layer read, `[T,S,i]`. */
  readonly x: Tensor;
  /** The gradient of its output, `[T,S,o]`. */
  readonly delta: Tensor;
  readonly rate: Value;
}

/**
 * W[t] = start - Σ rate · x[t]ᵀ · delta[t]: a weight after steps of gradient descent, start being a weight per task,
 * generated or not, or one `[i,o]` for all. `linear` applies it without making it: of K steps on S rows the difference
 * has rank K·S. `innerSgd` makes them. Throws ShapeError where the parts do not fit.
 */
export class FastGenerated extends Generated {
  readonly kind = 'fast';
  readonly weightShape: Shape;
  constructor(
    readonly start: Weight,
    readonly tasks: number,
    readonly steps: readonly FastStep[],
    /** Called with what each layer reads and yields while a step is taken; returns what the layer shall yield. */
    readonly watch: ((x: Tensor, y: Tensor) => Tensor) | null = null,
  ) {
    super();
    const { shape } = start;
    this.weightShape = shape.slice(-2);
    const [i, o] = this.weightShape;
    if (shape.length < 2 || shape.length > 3 || (shape.length === 3 && shape[0] !== tasks))
      throw new ShapeError(`fast: the start must be [i,o] or [${tasks},i,o], got ${show(shape)}`);
    for (const { x, delta } of steps)
      if (
        x.rank !== 3 ||
        x.shape[0] !== tasks ||
        x.shape[2] !== i ||
        !sameShape(delta.shape, [tasks, x.shape[1], o])
      )
        throw new ShapeError(
          `fast: x ${show(x.shape)} and delta ${show(delta.shape)} must be [${tasks},S,${i}] and [${tasks},S,${o}]`,
        );
    const parts = steps.flatMap(step => [step.x, step.delta, step.rate]);
    if (start instanceof Generated) parts.push(...Object.values(start));
    Object.assign(this, parts); // a scope looks for direct properties
  }
  materialise(): Tensor {
    return this.steps.reduce(
      (w, { x, delta, rate }) => sub(w, mul(matmul(transpose(x), delta), rate)),
      broadcastTo(plain(this.start), this.shape),
    );
  }
  override mapParts(f: (part: any) => any): FastGenerated {
    const start = this.start instanceof Generated ? this.start.mapParts(f) : f(this.start);
    const steps = this.steps.map(({ x, delta, rate }) => ({
      ...{ x: f(x), delta: f(delta), rate: typeof rate === 'number' ? rate : f(rate) },
    }));
    return new FastGenerated(start, this.tasks, steps, this.watch);
  }
}

function checkBase(kind: string, base: Part, shape: Shape): void {
  if (base && !sameShape(base.shape, shape))
    throw new ShapeError(`${kind}: the base must be ${show(shape)}, got ${show(base.shape)}`);
}

/**
 * Full weights of the given shapes from one code `[T,E]` and one flat projection: basis `[E,P]` and base `[P]`, P being
 * the sum of the shapes' sizes. Each weight can be applied on its own, or all of them materialised by one product.
 * Throws ShapeError.
 */
export function projectFull(
  code: Tensor,
  basis: Tensor,
  base: Part,
  shapes: readonly Shape[],
): FullGenerated[] {
  const sizes = shapes.map(sizeOf);
  const bases = base ? unpack(base, sizes) : null;
  return unpack(basis, sizes).map((piece, index) => {
    const shape = shapes[index];
    return new FullGenerated(
      code,
      reshape(piece, [basis.shape[0], ...shape]),
      bases && reshape(bases[index], shape),
      { basis, base, sizes, index },
    );
  });
}

/** A tree with tensors where it has generated weights. */
export type Materialised<T> = T extends Generated
  ? Tensor
  : T extends Tensor
    ? T
    : T extends object
      ? { [K in keyof T]: Materialised<T[K]> }
      : T;

/**
 * Plain tensors `[T, ...shape]` in place of the generated weights of a tree; other leaves stay. The pieces of one
 * projection, where the tree holds all of them, cost one product and are views of its result.
 */
export function materialise<T>(theta: T): Materialised<T> {
  const woven = new Map<unknown, Tensor>(projections(theta).flatMap(weaveProjection));
  return tree.map(leaf => woven.get(leaf) ?? (leaf instanceof Generated ? leaf.materialise() : leaf), theta);
}

/** Each piece of one projection with its `[T, ...shape]`, from one product. */
export function weaveProjection(pieces: readonly FullGenerated[]): [FullGenerated, Tensor][] {
  const { code } = pieces[0];
  const { basis, base, sizes } = pieces[0].projection!;
  const product = matmul(code, basis);
  return unpack(base ? add(product, base) : product, sizes).map((w, i) => [
    pieces[i],
    reshape(w, pieces[i].shape),
  ]);
}

/** The projections a tree holds all pieces of, pieces in order. */
export function projections(theta: unknown): FullGenerated[][] {
  const groups: FullGenerated[][] = [];
  for (const leaf of tree.leaves(theta)) {
    if (!(leaf instanceof FullGenerated) || !leaf.projection) continue;
    let group = groups.find(pieces => sameProjection(pieces.find(Boolean)!, leaf));
    if (!group) groups.push((group = []));
    group[leaf.projection.index] = leaf;
  }
  return groups.filter(pieces => pieces.find(Boolean)!.projection!.sizes.every((_, i) => pieces[i]));
}

/** Identity of the memory and of the derivative, not of the object: `stopGradient` makes new objects of one tensor. */
const same = (x: Part, y: Part): boolean =>
  x === y ||
  (x !== null &&
    y !== null &&
    x.node === y.node &&
    x.deps === y.deps &&
    x.view.storage === y.view.storage &&
    x.view.offset === y.view.offset &&
    sameShape(x.shape, y.shape) &&
    sameShape(x.view.strides, y.view.strides));
const sameProjection = (x: FullGenerated, y: FullGenerated): boolean =>
  same(x.code, y.code) &&
  same(x.projection!.basis, y.projection!.basis) &&
  same(x.projection!.base, y.projection!.base);

/** The weight as a tensor, whatever it is: `[T, ...shape]` if it was generated. */
export const plain = (w: Weight): Tensor => (w instanceof Generated ? w.materialise() : w);
