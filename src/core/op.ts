/**
 * What an op is, and how it is applied. An op's file is its specification: shape rule, reference loop, derivative.
 * Backends hold accelerations of the reference loop under the op's kernel name.
 */
import type { Attrs, Command, DType, View } from './backend.js';
import { ArgumentError, BackendError, DTypeError, KernelError } from './errors.js';
import { record } from './grad.js';
import { enqueue, runtime } from './queue.js';
import { type Shape, sizeOf } from './shape.js';
import { checkUsable, denseView, newStorage, Tensor } from './tensor.js';
import { Opaque } from './tree.js';

/** A dense operand of a reference loop. f32 storages may be Float64Array on the oracle. */
export interface Dense {
  readonly data: Float32Array | Float64Array | Int32Array | Uint32Array;
  readonly shape: Shape;
}

export interface Out {
  readonly shape: Shape;
  /** f32 where it is missing. */
  readonly dtype?: DType;
}

/** Gradient thunks, one per input and called only where needed; null where there is no derivative. */
export type Pullback = ((() => Tensor) | null)[];

export interface OpSpec<A = Attrs> {
  /** The one word: file, kernel, shader, case row and bench line. */
  readonly name: string;
  /** The kernel backends know, where it is not the name. */
  readonly kernel?: string;
  /** Dtypes the inputs must have; f32 where it is missing. null takes any. */
  readonly dtypes?: readonly (DType | null)[];
  /** Checks the inputs and tells the outputs. Throws ShapeError naming op, operands, shapes and axis. */
  readonly outputs?: (ins: readonly Tensor[], attrs: A) => Out | readonly Out[];
  /** For ops that only look at memory in another way: the view, or one per output. Such an op has no kernel. */
  readonly view?: (x: View, attrs: A) => View | readonly View[];
  /** The views the kernel is given, where they are not the inputs' own (broadcast, permuted). */
  readonly operands?: (ins: readonly Tensor[], attrs: A, outs: readonly Out[]) => View[];
  /** For ops made of several kernel calls (each may write a window of the output). Replaces `operands`. */
  readonly lower?: (ins: readonly Tensor[], outs: readonly Tensor[], attrs: A) => Command[];
  /** What the kernel is told, where it is not the attributes. */
  readonly kernelAttrs?: (attrs: A, ins: readonly Tensor[]) => Attrs;
  /** The meaning: slow, obvious loops over dense operands; accumulates in float64. */
  readonly ref?: (outs: readonly Dense[], ins: readonly Dense[], attrs: any) => void;
  /** Thunks that turn output cotangents into input cotangents, written with public ops only. */
  readonly vjp?: (g: Tensor, ins: readonly Tensor[], out: Tensor, attrs: A, all: VjpContext) => Pullback;
}

/** For ops with several outputs: every output and its cotangent (undefined where none arrived). */
export interface VjpContext {
  readonly outs: readonly Tensor[];
  readonly gs: readonly (Tensor | undefined)[];
}

const table = new Map<string, OpSpec<any>>();

/** The op of that name; kernels are found by it too. Throws KernelError. */
export function opNamed(name: string): OpSpec<any> {
  const op = table.get(name);
  if (!op) throw new KernelError(`no op named '${name}'`);
  return op;
}

/** True if an op of that name exists. */
export const hasOp = (name: string): boolean => table.has(name);

/** Every op defined so far, in order. */
export const allOps = (): OpSpec<any>[] => [...table.values()];

/**
 * Defines an op and returns the function that applies it to tensors. A user's op needs no kernel to run on `ref` and
 * `cpu`; it gets gradients, parity checks and bench lines from its one definition. Throws ArgumentError if the name
 * is taken.
 */
export function defineOp<A = Attrs>(spec: OpSpec<A>): (ins: readonly Tensor[], attrs?: A) => Tensor {
  if (table.has(spec.name)) throw new ArgumentError(`defineOp: an op named '${spec.name}' exists`);
  table.set(spec.name, spec);
  return (ins, attrs) => apply(spec, ins, attrs as A)[0];
}

/** Checks inputs at once, names the outputs, queues the command and records it while a gradient is open. */
export function apply<A>(op: OpSpec<A>, ins: readonly Tensor[], attrs: A): Tensor[] {
  let deps = 0;
  const backend = ins.length > 0 ? checkInput(op, ins, 0).backend : runtime.backend;
  for (let i = 0; i < ins.length; i++) {
    const x = i === 0 ? ins[0] : checkInput(op, ins, i);
    if (x.view.storage.backend !== backend)
      throw new BackendError(`${op.name}: operands live on ${ins[0].backend.name} and ${x.backend.name}`);
    deps |= x.deps;
  }
  if (!backend) throw new BackendError(`${op.name}: no backend is in use: await init() first`);
  let outs: Tensor[];
  if (op.view) {
    const seen = op.view(ins[0].view, attrs);
    outs = (Array.isArray(seen) ? seen : [seen]).map(view => new Tensor(view));
  } else {
    const told = op.outputs!(ins, attrs);
    const specs: readonly Out[] = Array.isArray(told) ? told : [told as Out];
    outs = specs.map(
      o => new Tensor(denseView(newStorage(backend, o.dtype ?? 'f32', sizeOf(o.shape)), o.shape)),
    );
    for (const command of op.lower ? op.lower(ins, outs, attrs) : [commandOf(op, ins, outs, specs, attrs)]) {
      if (!backend.has(command.kernel))
        throw new KernelError(`${op.name}: the ${backend.name} backend has no kernel '${command.kernel}'`);
      enqueue(command);
    }
  }
  deps &= runtime.openGradients;
  if (deps !== 0) record(op, ins, outs, attrs, deps);
  return outs;
}

function commandOf<A>(
  op: OpSpec<A>,
  ins: readonly Tensor[],
  outs: readonly Tensor[],
  specs: readonly Out[],
  attrs: A,
): Command {
  return {
    kernel: op.kernel ?? op.name,
    op: op.name,
    outs: outs.map(o => o.view),
    ins: op.operands ? op.operands(ins, attrs, specs) : ins.map(x => x.view),
    attrs: op.kernelAttrs ? op.kernelAttrs(attrs, ins) : ((attrs ?? noAttrs) as Attrs),
  };
}

const noAttrs: Attrs = Object.freeze({});

function checkInput<A>(op: OpSpec<A>, ins: readonly unknown[], i: number): Tensor {
  const x = ins[i];
  if (x instanceof Opaque) x.refuse(op.name);
  if (!(x instanceof Tensor))
    throw new ArgumentError(`${op.name}: input ${i} must be a tensor, got ${typeof x}`);
  checkUsable(x, op.name);
  const want = op.dtypes ? op.dtypes[Math.min(i, op.dtypes.length - 1)] : 'f32';
  if (want && x.view.storage.dtype !== want)
    throw new DTypeError(
      `${op.name}: input ${i} must be ${want}, got ${x.dtype} (there is no promotion; use cast)`,
    );
  return x;
}
