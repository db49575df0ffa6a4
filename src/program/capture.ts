/**
 * Recording one call of a step. Capture is abstract: arguments are placeholders, commands are kept and none is run.
 * Afterwards only the commands, the storages they name and the shape of the result are left.
 */
import type { Backend, Command, Storage, TypedArray, View } from '../core/backend.js';
import { ProgramError } from '../core/errors.js';
import { suspend } from '../core/grad.js';
import { type Capture, queueOf, runtime } from '../core/queue.js';
import { isDense, show, sizeOf } from '../core/shape.js';
import { denseView, newStorage, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { build, type Template } from './arguments.js';

export interface Recording {
  readonly commands: Command[];
  /** One placeholder per tensor leaf, in argument order. */
  readonly inputs: readonly Storage[];
  /** All number leaves, packed; null where there are none. */
  readonly numbers: Storage | null;
  /** Tensors the step closes over, with the generation they had. */
  readonly closures: readonly { readonly storage: Storage; readonly generation: number }[];
  /** Values the step made from host data. */
  readonly constants: ReadonlyMap<Storage, TypedArray>;
  /** Storages of the result's tensor leaves; every one is dense and written by this program alone. */
  readonly outputs: readonly Storage[];
  /** The result with a `Tensor` of the capture at each tensor leaf. */
  readonly result: unknown;
}

/** Calls `step` on placeholders shaped like the template and returns what it did. Throws ProgramError, and what it throws. */
export function capture(step: (...args: any[]) => unknown, args: Template, backend: Backend): Recording {
  const commands: Command[] = [];
  const made: Storage[] = [];
  const constants = new Map<Storage, TypedArray>();
  const session: Capture = {
    commands,
    made,
    refuse: what => {
      throw new ProgramError(
        `${what} is not possible inside a compiled step: nothing has run yet; return the tensor instead`,
      );
    },
    constant: (values, shape, dtype) => {
      const storage = outside(() => newStorage(backend, dtype, sizeOf(shape)));
      queueOf(backend).write(storage, values);
      constants.set(storage, values.slice());
      return new Tensor(denseView(storage, shape));
    },
  };
  runtime.capture = session;
  try {
    const inputs: Storage[] = [];
    const numbers = newStorage(backend, 'f32', countNumbers(args));
    let nextNumber = 0;
    const placeholders = build(args, leaf => {
      if (leaf.kind === 'static') return leaf.value;
      if (leaf.kind === 'number') return new Tensor({ ...denseView(numbers, []), offset: nextNumber++ });
      const storage = newStorage(backend, leaf.dtype, sizeOf(leaf.shape));
      inputs.push(storage);
      return new Tensor(denseView(storage, leaf.shape));
    }) as unknown[];
    const external = new Set<Storage>([...inputs, numbers]);
    const result = suspend(() => step(...placeholders));
    if (typeof (result as { then?: unknown } | null)?.then === 'function')
      throw new ProgramError('a compiled step is synchronous, this one returned a promise');
    const own = new Set(made);
    const outputs: Storage[] = [];
    const owned = tree.map(leaf => {
      if (!(leaf instanceof Tensor)) return leaf;
      const { storage, shape, strides } = leaf.view;
      const whole = isDense(shape, strides) && sizeOf(shape) === storage.size;
      const out =
        own.has(storage) && !external.has(storage) && whole && !outputs.includes(storage)
          ? leaf
          : copied(leaf, commands);
      outputs.push(out.view.storage);
      return out;
    }, result);
    const closures = new Map<Storage, number>();
    for (const command of commands)
      for (const view of command.ins)
        if (!own.has(view.storage) && !made.includes(view.storage))
          closures.set(view.storage, view.generation);
    return {
      commands,
      inputs,
      numbers: numbers.size > 0 ? numbers : null,
      closures: [...closures].map(([storage, generation]) => ({ storage, generation })),
      constants,
      outputs,
      result: owned,
    };
  } finally {
    runtime.capture = null;
    for (const storage of made)
      storage.dead = 'it belongs to the capture of a compiled step, which has ended';
  }
}

const countNumbers = (template: Template): number =>
  template.kind === 'branch'
    ? template.children.reduce((n, child) => n + countNumbers(child), 0)
    : template.kind === 'number'
      ? 1
      : 0;

/** Runs `f` as if in no capture and no scope, for memory that outlives them. */
export function outside<T>(f: () => T): T {
  const { capture: session, scope } = runtime;
  runtime.capture = null;
  runtime.scope = null;
  try {
    return f();
  } finally {
    runtime.capture = session;
    runtime.scope = scope;
  }
}

function copied(x: Tensor, commands: Command[]): Tensor {
  const storage = newStorage(x.backend, x.dtype, x.size);
  const out = new Tensor(denseView(storage, x.shape));
  commands.push({ kernel: 'copy', op: 'copy', outs: [out.view], ins: [x.view], attrs: {} });
  return out;
}

/** Where two recordings of one step differ, in words, or null: the check that a step is a function of its arguments. */
export function difference(a: Recording, b: Recording): string | null {
  if (a.commands.length !== b.commands.length)
    return `it made ${a.commands.length} commands, then ${b.commands.length}`;
  const twin = new Map<Storage, Storage>();
  const pair = (x: Storage, y: Storage) => {
    if (!twin.has(x)) twin.set(x, y);
    return twin.get(x) === y;
  };
  for (const [i, s] of a.inputs.entries()) twin.set(s, b.inputs[i]);
  const known = new Set(a.closures.map(c => c.storage));
  const equalValues = (x?: TypedArray, y?: TypedArray) =>
    x !== undefined && y !== undefined && x.length === y.length && x.every((v, i) => Object.is(v, y[i]));
  const sameView = (x: View, y: View) =>
    show(x.shape) === show(y.shape) &&
    show(x.strides) === show(y.strides) &&
    x.offset === y.offset &&
    (known.has(x.storage)
      ? x.storage === y.storage || equalValues(a.constants.get(x.storage), b.constants.get(y.storage))
      : pair(x.storage, y.storage));
  for (let i = 0; i < a.commands.length; i++) {
    const x = a.commands[i];
    const y = b.commands[i];
    const at = `command ${i} (${x.op})`;
    if (x.op !== y.op || x.kernel !== y.kernel) return `command ${i} was ${x.op}, then ${y.op}`;
    if (fingerprint(x.attrs) !== fingerprint(y.attrs))
      return `${at} has other literals: ${fingerprint(x.attrs)}, then ${fingerprint(y.attrs)}`;
    if (x.ins.length !== y.ins.length || !x.ins.every((v, k) => sameView(v, y.ins[k])))
      return `${at} reads other tensors (one closed over has changed, or a constant)`;
    if (!x.outs.every((v, k) => sameView(v, y.outs[k]))) return `${at} writes other tensors`;
  }
  return null;
}

const fingerprint = (attrs: unknown): string =>
  JSON.stringify(attrs, (_key, value) =>
    typeof value === 'number' && !Number.isFinite(value)
      ? String(value)
      : typeof value === 'function'
        ? undefined
        : value,
  );
