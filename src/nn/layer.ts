/** What a layer is: a description of its parameters and a pure function of parameters and input. */
import { ShapeError } from '../core/errors.js';
import { type Shape, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { add, full, mul, normal, type Preference, type Rows, split } from '../ops/index.js';
import { weave } from '../ops/linear.js';
import { machineOf } from '../program/rates.js';

/** How many values feed one output (`in`), how many outputs one value feeds (`out`), and the gain of the layer. */
export interface Fan {
  readonly in: number;
  readonly out: number;
  /** Output variance over input second moment: 2 before a relu (He et al. 2015), 1 elsewhere. */
  readonly gain: number;
}

/** Which side of a weight keeps its variance: the forward pass, the backward pass, or a mean of both (Glorot). */
export type FanMode = 'in' | 'out' | 'average';

/**
 * One parameter of a layer before it exists: its shape and the distribution it starts from. Weights start normal with
 * the variance of their fan, biases at 0, scales at 1. A hypernetwork reads what it has to generate from here.
 */
export class ParamSpec {
  constructor(
    readonly shape: Shape,
    readonly role: 'weight' | 'bias' | 'scale',
    readonly fan: Fan,
    readonly mode: FanMode = 'in',
  ) {}

  get size(): number {
    return sizeOf(this.shape);
  }
  /** Mean at the start. */
  get mean(): number {
    return this.role === 'scale' ? 1 : 0;
  }
  /** Variance at the start, by this spec's own mode or another one. */
  variance(mode: FanMode = this.mode): number {
    if (this.role !== 'weight') return 0;
    const { in: fanIn, out: fanOut, gain } = this.fan;
    if (mode === 'average') return (2 * gain) / (fanIn + fanOut);
    return gain / (mode === 'in' ? fanIn : fanOut);
  }
}

export interface ApplyOptions {
  /** Random key of layers that draw (dropout), u32 [2]. */
  readonly key?: Tensor;
  /** True while training: dropout drops. */
  readonly train?: boolean;
  /** Offsets [T+1] where `x` is `[N,...]` with rows of tasks in unequal numbers. */
  readonly rows?: Rows;
  /** Which of the networks of `variants` each task has. */
  readonly variant?: ArrayLike<number>;
  /** How generated weights are applied; the planner decides unless given. */
  readonly strategy?: Preference;
}

/**
 * Shapes leave out leading axes: a layer on rows of 3 features has `inShape` [3] and takes `[n,3]`, `[T,n,3]`, or
 * `[N,3]` with rows. Any parameter may have a leading task axis or be a generated weight.
 */
export interface Layer<P = any> {
  /** The tree of parameters to be, before any exists. */
  params(inShape: Shape): any;
  /** Fresh parameters: a tree of tensors on the backend in use. */
  init(key: Tensor, inShape: Shape): P;
  /** Throws ShapeError for an input the layer does not take. */
  outShape(inShape: Shape): Shape;
  apply(params: P, x: Tensor, options?: ApplyOptions): Tensor;
  /** True if `apply` draws random numbers, so that it needs a key of its own. */
  readonly random?: boolean;
}

/** A layer from its parameters, output shape and function; `init` follows from the parameters. */
export const defineLayer = <P>(layer: Omit<Layer<P>, 'init'>): Layer<P> => ({
  ...layer,
  init: (key, inShape) => initParams(layer.params(inShape), key),
});

/** A function of a tensor as a layer without parameters that keeps shapes (activations). */
export const lambda = (f: (x: Tensor) => Tensor): Layer =>
  defineLayer({ params: () => ({}), outShape: shape => shape, apply: (_, x) => f(x) });

/** Draws a tree of `ParamSpec`s: one key per leaf, in order, so equal keys give equal parameters. */
export function initParams(specs: unknown, key: Tensor): any {
  const list = tree.leaves<ParamSpec>(specs);
  const keys = split(key, Math.max(list.length, 1));
  return tree.rebuild(
    specs,
    list.map((spec, i) => drawParam(spec, keys[i])),
  );
}

/** One parameter's starting values; `share` scales its variance. */
export function drawParam(spec: ParamSpec, key: Tensor, variance = spec.variance()): Tensor {
  if (variance === 0) return full(spec.shape, spec.mean);
  const drawn = mul(normal(key, spec.shape), Math.sqrt(variance));
  return spec.mean === 0 ? drawn : add(drawn, spec.mean);
}

/** A shape error of a layer; `path` grows on its way out of the layers around it: `layers.2.w`. */
export class LayerError extends ShapeError {
  constructor(
    readonly path: string,
    readonly detail: string,
    options?: ErrorOptions,
  ) {
    super(`${path}: ${detail}`, options);
  }
}

/** Runs `f`, putting `path` before the path of a shape error that leaves it. */
export function within<R>(path: string, f: () => R): R {
  try {
    return f();
  } catch (error) {
    if (error instanceof LayerError)
      throw new LayerError(`${path}.${error.path}`, error.detail, { cause: error });
    if (error instanceof ShapeError) throw new LayerError(path, error.message, { cause: error });
    throw error;
  }
}

/** Throws LayerError unless the weight has the shape, with or without a leading task axis. */
export function expectShape(path: string, given: { readonly shape: Shape } | undefined, shape: Shape): void {
  const got = given?.shape;
  const lead = got ? got.length - shape.length : -1;
  if (!got || lead < 0 || lead > 1 || shape.some((n, i) => n !== got[lead + i]))
    throw new LayerError(
      path,
      `expected [${shape}] or [tasks,${shape}], got ${got ? `[${got}]` : 'nothing'}`,
    );
}

/** Materialises what is cheapest so before layers apply it one by one (see `weave`). */
export function weaveFor<P>(params: P, x: Tensor, { rows, strategy }: ApplyOptions): P {
  const offsets = rows && (ArrayBuffer.isView(rows) ? rows.length : rows.shape[0]);
  const perTask = offsets ? x.shape[0] / Math.max(offsets - 1, 1) : (x.shape[1] ?? 1);
  return weave(params, perTask, { strategy, machine: machineOf(x.backend) });
}
