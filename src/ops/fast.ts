/** Weights after steps of gradient descent, kept as what the steps were made of. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { type Shape, sameShape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { mul, sub, type Value } from './elementwise.js';
import { Generated, plain, type Weight } from './generated.js';
import { applyWeight, byTask, type Preference } from './linear.js';
import { matmul } from './matmul.js';
import { broadcastTo, transpose } from './views.js';

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
  reshaped(): never {
    throw new ArgumentError('an adapted weight has the shape of what it was adapted from; materialise it');
  }
  parts(): never {
    throw new ArgumentError('planOf: an adapted weight is applied by the plan of its start, and its steps');
  }
  sizes(): never {
    return this.parts();
  }
  unwoven(): never {
    return this.parts();
  }
  /** x · start - Σ rate · (x · xₖᵀ) · δₖ: of K steps on S rows, K·S columns stand for a W per task. */
  override applyItself(
    x: Tensor,
    { rows, strategy }: { readonly rows?: Tensor; readonly strategy?: Preference },
  ): Tensor {
    if (rows)
      throw new ArgumentError(
        'linear: an adapted weight knows which task a row belongs to by its place; give every task as many rows, or materialise it',
      );
    return byTask(x, merged => {
      if (strategy === 'materialise') return matmul(merged, this.materialise());
      const y = this.steps.reduce(
        (y, { x: read, delta, rate }) => sub(y, mul(matmul(matmul(merged, transpose(read)), delta), rate)),
        applyWeight(merged, this.start, undefined, strategy),
      );
      return this.watch ? this.watch(merged, y) : y;
    });
  }
  override mapParts(f: (part: any) => any): FastGenerated {
    const start = this.start instanceof Generated ? this.start.mapParts(f) : f(this.start);
    const steps = this.steps.map(({ x, delta, rate }) => ({
      ...{ x: f(x), delta: f(delta), rate: typeof rate === 'number' ? rate : f(rate) },
    }));
    return new FastGenerated(start, this.tasks, steps, this.watch);
  }
}
