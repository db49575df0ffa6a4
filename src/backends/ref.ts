/**
 * The oracle: every command runs its op's reference loop, at once, in ordinary JavaScript memory. Slow, complete by
 * construction, and able to store float64, where derivatives can be checked to many digits.
 */
import type {
  Backend,
  Command,
  DType,
  Executable,
  Plan,
  Storage,
  TypedArray,
  View,
} from '../core/backend.js';
import { KernelFailure } from '../core/backend.js';
import { type Dense, hasOp, opNamed } from '../core/op.js';
import { isDense, sizeOf } from '../core/shape.js';

/** Flat positions of a view's elements in row-major order. */
function eachPosition({ shape, strides, offset }: View, visit: (at: number, i: number) => void): void {
  const n = sizeOf(shape);
  const index = new Array<number>(shape.length).fill(0);
  let at = offset;
  for (let i = 0; i < n; i++) {
    visit(at, i);
    for (let k = shape.length - 1; k >= 0; k--) {
      at += strides[k];
      if (++index[k] < shape[k]) break;
      at -= strides[k] * shape[k];
      index[k] = 0;
    }
  }
}

const arrayLike = (like: TypedArray, n: number): TypedArray =>
  new (like.constructor as new (n: number) => TypedArray)(n);

/** The elements of a view as a dense array, without a copy where they are dense already. */
function gather(view: View, memory: TypedArray): TypedArray {
  const n = sizeOf(view.shape);
  if (isDense(view.shape, view.strides)) return memory.subarray(view.offset, view.offset + n);
  const out = arrayLike(memory, n);
  eachPosition(view, (at, i) => {
    out[i] = memory[at];
  });
  return out;
}

/** Whether `runReference` can run this kernel. */
export const hasReference = (kernel: string): boolean => hasOp(kernel) && opNamed(kernel).ref !== undefined;

/** Runs one command by its op's reference loop on memory found through `array`. */
export function runReference(command: Command, array: (storage: Storage) => TypedArray): void {
  const ins: Dense[] = command.ins.map(v => ({ data: gather(v, array(v.storage)), shape: v.shape }));
  const direct = command.outs.map(
    out => isDense(out.shape, out.strides) && command.ins.every(v => v.storage !== out.storage),
  );
  const outs: Dense[] = command.outs.map((v, i) => {
    const memory = array(v.storage);
    const n = sizeOf(v.shape);
    return {
      data: direct[i] ? memory.subarray(v.offset, v.offset + n) : arrayLike(memory, n),
      shape: v.shape,
    };
  });
  opNamed(command.kernel).ref!(outs, ins, command.attrs);
  command.outs.forEach((v, k) => {
    if (direct[k]) return;
    const memory = array(v.storage);
    eachPosition(v, (at, i) => {
      memory[at] = outs[k].data[i];
    });
  });
}

export interface RefOptions {
  /** Bits of an f32 storage: 64 keeps double precision everywhere (the oracle of derivative checks). */
  readonly float?: 32 | 64;
}

/** Makes a reference backend. */
export function createRef({ float = 32 }: RefOptions = {}): Backend {
  const allocate = (dtype: DType, n: number): TypedArray =>
    dtype === 'i32'
      ? new Int32Array(n)
      : dtype === 'u32'
        ? new Uint32Array(n)
        : float === 64
          ? new Float64Array(n)
          : new Float32Array(n);
  const array = (s: Storage) => (s.memory ??= allocate(s.dtype, s.size)) as TypedArray;
  const run = (commands: readonly Command[]) =>
    commands.forEach((command, i) => {
      try {
        runReference(command, array);
      } catch (error) {
        throw new KernelFailure(i, error);
      }
    });
  const readSync = (view: View) => gather(view, array(view.storage)).slice();
  return {
    name: 'ref',
    limits: { maxBindings: Infinity, packing: 'buffers', epilogue: new Set(), prologue: new Set() },
    has: hasReference,
    run,
    prepare: (plan: Plan): Executable => prepare(plan, run),
    write: (storage, values) => array(storage).set(values),
    read: view => {
      const values = readSync(view);
      return new Promise(resolve => setTimeout(resolve, 0, values));
    },
    readSync,
    free: storage => {
      storage.memory = null;
    },
    sync: async () => {},
    describe: () => ({ float }),
    dispose: () => {},
  };
}

/** Replays commands with the plan's externals standing for the storages bound at each run; scratch is made anew. */
function prepare(plan: Plan, run: (commands: readonly Command[]) => void): Executable {
  return {
    run: externals => {
      const bound = new Map(plan.externals.map((s, i) => [s, externals[i]]));
      const bind = (v: View): View => (bound.has(v.storage) ? { ...v, storage: bound.get(v.storage)! } : v);
      run(plan.commands.map(c => ({ ...c, ins: c.ins.map(bind), outs: c.outs.map(bind) })));
      for (const storage of plan.places.keys()) storage.memory = null;
    },
    dispose: () => {},
  };
}
