/** The words in which kernels are lowered: a command becomes passes, a pass becomes one dispatch. */
import type { Attrs } from '../../core/backend.js';
import { KernelError } from '../../core/errors.js';
import type { Product } from './matmul.js';
import type { Access, Element, Operand, Source } from './source.js';
import type { Tuning } from './tiling.js';

/** A command with its buffers numbered, as lowering sees it. */
export interface Call {
  readonly kernel: string;
  readonly outs: readonly Operand[];
  readonly ins: readonly Operand[];
  readonly attrs: Attrs;
  /** True on adapters that run on the CPU. */
  readonly software: boolean;
  /** True if operands of several types may be in one buffer. */
  readonly mixed: boolean;
  /** Threads of a subgroup; 0 where there are none, or of several sizes. */
  readonly subgroup: number;
  /** What tuning found. */
  readonly tuning?: Tuning;
  /** How `precision` has products computed; null, or undefined, where plain f32 does it. */
  readonly multiply?: (call: Call, p: Product) => Pass[] | null;
  /** Scratch memory that lives as long as the command, dense. */
  temporary(shape: readonly number[], dtype?: Element): Operand;
}

/** One dispatch: constants, accessors and generated text in front of shader bodies from shaders/. */
export interface Pass {
  readonly bodies: readonly string[];
  /** Text behind the bodies, of modules that bring their own shaders. */
  readonly shader?: string;
  /** What the text enables of the language, and such. */
  readonly directives?: readonly string[];
  /** Baked into the text: tile sizes, and what loops are unrolled or indices divided by. In capitals. */
  readonly constants?: Readonly<Record<string, number>>;
  /** Sizes that bodies read as `params.<name>`. */
  readonly params?: Readonly<Record<string, number>>;
  readonly access: readonly Access[];
  /** Adds generated functions. */
  readonly generate?: (source: Source) => void;
  /** Workgroups, in one line; they are folded into two dimensions where there are many. */
  readonly workgroups: number;
}

export type Lowering = (call: Call) => Pass[];

/** Threads of a workgroup of the kernels that have one thread per element. */
export const WIDTH = 64;

/** The product of all sizes; 1 if there is none. */
export const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
/** How many elements an operand has. */
export const size = (operand: Operand): number => product(operand.shape);

/** True if the elements lie one after the other in row-major order. */
export const isDense = ({ shape, strides }: Pick<Operand, 'shape' | 'strides'>): boolean =>
  denseStrides(shape).every((stride, axis) => shape[axis] === 1 || strides[axis] === stride);

/** Row-major strides. */
export function denseStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

/** An accessor with a single group: one flat index over all axes. */
export const flat = (name: string, operand: Operand, store?: Access['store']): Access => ({
  name,
  operand,
  groups: [operand.shape.length],
  store,
});

/** An accessor with one index per axis. */
export const byAxis = (name: string, operand: Operand, store?: Access['store']): Access => ({
  name,
  operand,
  groups: operand.shape.map(() => 1),
  store,
});

/** How elements are shared out: to workgroups of `width` threads that take `perThread` each. */
export interface Sharing {
  readonly perThread: number;
  readonly width: number;
}

/**
 * For kernels that only stream memory: several elements per thread where enough threads are left. On software adapters
 * a workgroup is one vector register: what precedes the loop is dear there, and is run for every 8 threads.
 */
export function streaming(count: number, software: boolean): Sharing {
  if (software) return { perThread: count >= 16384 ? 64 : 16, width: 8 };
  return { perThread: count >= 1 << 18 ? 4 : 1, width: WIDTH };
}

/** One thread per element of `count`: the body defines `evaluate(i)`. */
export function perElement(
  count: number,
  pass: Pick<Pass, 'access' | 'generate' | 'constants' | 'params'> & { bodies?: readonly string[] },
  { perThread, width }: Sharing = { perThread: 1, width: WIDTH },
): Pass {
  return {
    bodies: [...(pass.bodies ?? []), 'elementwise'],
    constants: { ...pass.constants, WIDTH: width, PER_THREAD: perThread },
    params: { ...pass.params, count },
    access: pass.access,
    generate: pass.generate,
    workgroups: Math.ceil(count / (width * perThread)),
  };
}

/** Reads a list of integers from the attributes. Throws KernelError naming what was found. */
export function integers(call: Call, name: string, length: number): readonly number[] {
  const value = call.attrs[name];
  if (!Array.isArray(value) || value.length !== length || !value.every(Number.isInteger))
    throw new KernelError(
      `${call.kernel}: attribute '${name}' must be ${length} integers, got ${String(value)}`,
    );
  return value;
}

/** Reads an integer from the attributes. Throws KernelError naming what was found. */
export function integer(call: Call, name: string): number {
  const value = call.attrs[name];
  if (!Number.isInteger(value))
    throw new KernelError(`${call.kernel}: attribute '${name}' must be an integer, got ${String(value)}`);
  return value as number;
}
