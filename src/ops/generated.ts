/**
 * Generated weights: one set of weights per task, kept as what they are generated from. A generated weight is an
 * opaque leaf of a parameter tree. `linear` applies it by whichever plan is cheapest; `materialise` turns it into a
 * plain tensor with a leading task axis. Its parts carry gradients like any tensor.
 */
import { ShapeError } from '../core/errors.js';
import { type Shape, sameShape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import type { LinearShapes, Strategy } from '../program/plan.js';
import { full } from './create.js';
import { add, mul } from './elementwise.js';
import { generateApply } from './generate.js';
import type { Preference } from './linear.js';
import { matmul } from './matmul.js';
import { raggedMatmul } from './ragged.js';
import { unpack } from './unpack.js';
import { expand, reshape, slice } from './views.js';

/** A part a weight may lack. */
export type Part = Tensor | null;

/** What may stand where a weight is needed. */
export type Weight = Tensor | Generated;

/** What a generated weight is made of: what each task has its own of, and what all share. */
export interface GeneratedParts {
  /** With a leading task axis. */
  readonly own: readonly Tensor[];
  readonly shared: readonly Tensor[];
  /** The weight of other parts in the same places. */
  make(own: readonly Tensor[], shared: readonly Tensor[]): Generated;
}

/** Sizes a kind of weight has of its own (see `LinearShapes`). */
export type KindSizes = Pick<
  LinearShapes,
  'kind' | 'code' | 'chunks' | 'chunk' | 'start' | 'base' | 'windowed'
>;

/**
 * A weight per task that is not there yet. Arithmetic on it and gradients with respect to it throw GraphError.
 * Every part is a direct property, which is how a scope finds the memory to keep.
 */
export abstract class Generated extends tree.Opaque {
  abstract readonly kind: 'full' | 'chunked' | 'lowRank' | 'fast' | 'half';
  override readonly choices =
    'use materialise(theta) for plain tensors, or differentiate with respect to phi or the code';

  /** Number of tasks T. */
  abstract get tasks(): number;
  /** Shape of one task's weight. */
  abstract get weightShape(): Shape;
  /** The weights as a tensor `[T, ...weightShape]`. */
  abstract materialise(): Tensor;
  /** The same elements in rows of another shape for each task. */
  abstract reshaped(shape: Shape): Generated;
  /** The first elements of each axis, times `gain`: as a plain tensor where this kind has no window of its own. */
  window(shape: Shape, gain: number): Weight {
    const windowed = windowOf(this.materialise(), shape);
    return gain === 1 ? windowed : mul(windowed, gain);
  }
  abstract parts(): GeneratedParts;
  /** What the planner reads beside tasks, rows and shape. Throws ArgumentError where there is nothing to plan. */
  abstract sizes(): KindSizes;
  /** x · W by a plan that makes no whole W, for x `[T,n,i]`, or `[N,i]` with rows. */
  abstract unwoven(x: Tensor, strategy: Strategy, rows: Tensor | undefined): Tensor;
  /** Of kinds whose rows meet something else than one W: x · W for any x that `linear` takes. */
  applyItself?(x: Tensor, options: { readonly rows?: Tensor; readonly strategy?: Preference }): Tensor;
  override mapParts(f: (part: any) => any): Generated {
    const { own, shared, make } = this.parts();
    const of = (parts: readonly Tensor[]) => parts.map(part => f(part));
    return make(of(own), of(shared));
  }

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
  reshaped(shape: Shape): FullGenerated {
    const { code, basis, base } = this;
    return new FullGenerated(code, reshape(basis, [basis.shape[0], ...shape]), base && reshape(base, shape));
  }
  override window(shape: Shape, gain: number): FullGenerated {
    const times = (x: Tensor) => (gain === 1 ? x : mul(x, gain));
    const { code, basis, base } = this;
    return new FullGenerated(times(code), windowOf(basis, shape), base && times(windowOf(base, shape)));
  }
  parts(): GeneratedParts {
    return {
      own: [this.code],
      shared: this.base ? [this.basis, this.base] : [this.basis],
      make: ([code], [basis, base = null]) => new FullGenerated(code, basis, base),
    };
  }
  sizes(): KindSizes {
    return {
      ...{ kind: 'full', code: this.code.shape[1], base: this.base !== null },
      windowed: this.projection !== null,
    };
  }
  unwoven(x: Tensor, strategy: Strategy, rows: Tensor | undefined): Tensor {
    const { code, basis, base } = this;
    if (strategy === 'fused') return generateRows(code, basis, x, rows, base);
    const [E, i, o] = basis.shape;
    const perRow = rows ? spreadToRows(code, rows, x.shape[0]) : expand(code, 1);
    const outer = mul(expand(perRow, -1), expand(x, -2));
    return addBase(
      matmul(reshape(outer, [...x.shape.slice(0, -1), E * i]), reshape(basis, [E * i, o])),
      x,
      base,
    );
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
 * A kind whose weight is a window of a row of generated elements: `start .. start + size - 1`, in rows of `weightShape`,
 * plus base `[...shape]`.
 */
export abstract class WindowGenerated extends Generated {
  constructor(
    /** With a leading task axis. */
    readonly code: Tensor,
    readonly weightShape: Shape,
    readonly base: Part,
    readonly start: number,
  ) {
    super();
  }
  /** What all tasks share beside the base. */
  protected abstract get stored(): Tensor;
  /** The window of the same place in what other parts make. */
  protected abstract from(code: Tensor, stored: Tensor, base: Part, shape: Shape): Generated;

  get tasks(): number {
    return this.code.shape[0];
  }
  reshaped(shape: Shape): Generated {
    return this.from(this.code, this.stored, this.base && reshape(this.base, shape), shape);
  }
  parts(): GeneratedParts {
    const { code, stored, base } = this;
    return {
      own: [code],
      shared: base ? [stored, base] : [stored],
      make: ([code], [stored, base = null]) => this.from(code, stored, base, this.weightShape),
    };
  }
}

/** Throws ShapeError unless the base, if there is one, has the shape. */
export function checkBase(kind: string, base: Part, shape: Shape): void {
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

/** The first elements of each of the last axes. */
export const windowOf = (x: Tensor, shape: Shape): Tensor =>
  shape.reduce((y, n, k) => slice(y, k - shape.length, 0, n), x);

/** Values per task `[T,c]` repeated for each of the task's rows: `[N,c]`. */
export const spreadToRows = (perTask: Tensor, rows: Tensor, count: number): Tensor =>
  raggedMatmul(full([count, 1], 1, perTask.backend), expand(perTask, 1), rows);

/** y + x · base, where there is a base. */
export const addBase = (y: Tensor, x: Tensor, base: Part): Tensor => (base ? add(y, matmul(x, base)) : y);

/** `generateApply` on rows `[T,n,i]`, or on `[N,i]` with offsets. */
export function generateRows(
  code: Tensor,
  basis: Tensor,
  x: Tensor,
  offsets: Tensor | undefined,
  base: Part = null,
): Tensor {
  const merged = x.rank === 2 ? x : reshape(x, [x.shape[0] * x.shape[1], x.shape[2]]);
  const y = generateApply({ code, basis, base, x: merged, offsets });
  return x.rank === 2 ? y : reshape(y, [...x.shape.slice(0, -1), y.shape[1]]);
}

/** The weight as a tensor, whatever it is: `[T, ...shape]` if it was generated. */
export const plain = (w: Weight): Tensor => (w instanceof Generated ? w.materialise() : w);
