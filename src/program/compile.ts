/**
 * `compile(step)`: trace a step once per set of argument shapes, fuse it, plan its memory and replay it. A later call
 * with the same shapes runs no JavaScript of the step: one native call, or one submit.
 */
import type { Backend, Executable, Storage, TypedArray } from '../core/backend.js';
import { DisposedError, ProgramError } from '../core/errors.js';
import { enqueue, queueOf, runtime } from '../core/queue.js';
import { isDense, sameShape, sizeOf } from '../core/shape.js';
import { checkUsable, current, denseView, newStorage, release, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { capture, difference, type Leaf, type Recording } from './capture.js';
import { fuse } from './fuse.js';
import { type Donation, type Layout, layOut } from './memory.js';

export interface CompileOptions {
  /**
   * Positions of arguments whose memory the step may take over: the k-th element of the result replaces the k-th
   * donated argument (same tree, shapes, dtypes) and is updated in place where that harms no read. The argument's
   * tensors are dead afterwards.
   */
  readonly donate?: readonly number[];
  /** How many results back a small undonated output (a loss, say) stays readable; 64 unless given. */
  readonly keep?: number;
  /** Programs of other argument shapes kept ready; 16 unless given. */
  readonly programs?: number;
}

/** What one program came to, for tests, `costReport` and curious people. */
export interface ProgramStats {
  /** Commands as recorded, and after fusion. */
  readonly recorded: number;
  readonly commands: readonly { readonly op: string; readonly kernel: string }[];
  readonly scratchBytes: number;
  /** Donated leaves updated without a copy, of how many. */
  readonly inPlace: number;
  readonly donated: number;
}

export type Compiled<A extends unknown[], R> = ((...args: A) => R) & {
  /** The programs made so far, the most recently used last. */
  stats(): ProgramStats[];
  /** Gives back scratch memory and results kept. */
  dispose(): void;
};

const smallOutput = 4096;

/** One set of argument shapes, made ready. */
class Program {
  private readonly executable: Executable;
  private readonly outputs: { storage: Storage; donated: number; ring: Storage[]; next: number }[];
  readonly stats: ProgramStats;
  checked = false;

  constructor(
    readonly recording: Recording,
    private readonly backend: Backend,
    donations: readonly Donation[],
    private readonly keep: number,
  ) {
    const { inputs, numbers, closures, outputs } = recording;
    const taken = new Map(donations.map(d => [d.output, inputs.indexOf(d.input)]));
    const free = outputs.filter(s => !taken.has(s));
    const externals = [...inputs, ...(numbers ? [numbers] : []), ...closures.map(c => c.storage), ...free];
    const commands = fuse(recording.commands, new Set(outputs), backend.limits);
    const layout: Layout = layOut(commands, donations, new Set(externals), backend.limits);
    this.executable = backend.prepare({ ...layout, externals });
    this.outputs = outputs.map(storage => ({
      storage,
      donated: taken.get(storage) ?? -1,
      ring: [],
      next: 0,
    }));
    this.stats = {
      recorded: recording.commands.length,
      commands: layout.commands.map(({ op, kernel }) => ({ op, kernel })),
      scratchBytes: layout.buffers.reduce((a, b) => a + b, 0),
      inPlace: layout.inPlace,
      donated: donations.length,
    };
  }

  /** Queues one run on these inputs; `donated` are the arguments whose storages change hands. */
  run(inputs: readonly Storage[], numbers: Float64Array | null): unknown {
    const bound: Storage[] = [...inputs];
    const queue = queueOf(this.backend);
    let packed: Storage | null = null;
    if (numbers) {
      packed = newStorage(this.backend, 'f32', numbers.length);
      queue.write(packed, numbers);
      bound.push(packed);
    }
    for (const { storage, generation } of this.recording.closures) {
      if (storage.dead || storage.generation !== generation)
        throw new DisposedError(
          `a compiled step closes over a tensor that cannot be used: ${storage.dead ?? 'it was donated'}`,
        );
      bound.push(storage);
    }
    const results = this.outputs.map(out => (out.donated >= 0 ? inputs[out.donated] : this.fresh(out)));
    this.outputs.forEach((out, i) => {
      if (out.donated < 0) bound.push(results[i]);
    });
    queue.flush();
    try {
      this.executable.run(bound);
    } catch (error) {
      for (const out of this.outputs)
        if (out.donated >= 0) inputs[out.donated].dead = 'a compiled step that was updating it failed';
      throw error;
    }
    if (packed) release(packed, 'the compiled step that it was made for has run');
    for (const out of this.outputs) if (out.donated >= 0) inputs[out.donated].generation++;
    let next = 0;
    return tree.map(
      leaf => (leaf instanceof Tensor ? new Tensor(denseView(results[next++], leaf.shape)) : leaf),
      this.recording.result,
    );
  }

  /** Memory for an undonated output: a slot of its ring if it is small, else new. */
  private fresh(out: Program['outputs'][number]): Storage {
    const { storage, ring } = out;
    if (storage.size * 4 > smallOutput) return newStorage(this.backend, storage.dtype, storage.size);
    const at = out.next++ % this.keep;
    const slot = ring[at];
    if (slot && !slot.dead) {
      slot.generation++;
      return slot;
    }
    const scope = runtime.scope;
    runtime.scope = null;
    ring[at] = newStorage(this.backend, storage.dtype, storage.size);
    runtime.scope = scope;
    return ring[at];
  }

  dispose(): void {
    this.executable.dispose();
    for (const { ring } of this.outputs)
      for (const slot of ring) release(slot, 'its compiled step was disposed');
    for (const storage of this.recording.constants.keys()) release(storage, 'its compiled step was disposed');
  }
}

/**
 * A step that is traced once per set of argument shapes and replayed afterwards. It takes and returns trees of
 * tensors; numbers among the arguments are data (0-d tensors inside), typed arrays become tensors, strings, booleans
 * and the like are part of the program's key. Literals are constants, tensors closed over are inputs by reference.
 * The step must be a function of its arguments: the second call is traced again and compared, and a difference throws
 * ProgramError naming it. Inside another capture, or where an argument carries an open gradient, the step simply runs.
 */
export function compile<A extends unknown[], R>(
  step: (...args: A) => R,
  options: CompileOptions = {},
): Compiled<A, R> {
  const { donate = [], keep = 64, programs: most = 16 } = options;
  const programs = new Map<string, Program>();

  const call = (...args: A): R => {
    const values = tree.leaves(args);
    if (runtime.capture || values.some(x => x instanceof Tensor && (x.deps & runtime.openGradients) !== 0))
      return step(...args);
    const backend = backendOf(values);
    const leaves = values.map(describe);
    const id = keyOf(args, leaves, backend);
    let program = programs.get(id);
    if (!program) {
      const recording = capture(step, args, leaves, backend);
      program = new Program(recording, backend, donations(recording, args, donate), keep);
    } else {
      if (!program.checked) {
        const again = capture(step, args, leaves, backend);
        const found = difference(program.recording, again);
        for (const storage of again.constants.keys())
          release(storage, 'it was a constant of a trial capture');
        if (found) throw new ProgramError(`a compiled step must do the same at every call, but ${found}`);
        program.checked = true;
      }
      programs.delete(id);
    }
    programs.set(id, program);
    if (programs.size > most) {
      const [oldest] = programs.keys();
      programs.get(oldest)!.dispose();
      programs.delete(oldest);
    }
    const donated = new Set(donate.flatMap(i => tree.leaves<Tensor>(args[i])).map(t => t.view.storage));
    const made: Storage[] = [];
    const inputs = bindInputs(values, donated, backend, made);
    const numbers = values.filter(x => typeof x === 'number') as number[];
    const result = program.run(inputs, numbers.length > 0 ? Float64Array.from(numbers) : null);
    for (const storage of made) release(storage, 'the compiled step that it was made for has run');
    return result as R;
  };
  return Object.assign(call, {
    stats: () => [...programs.values()].map(p => p.stats),
    dispose: () => {
      for (const program of programs.values()) program.dispose();
      programs.clear();
    },
  });
}

function backendOf(values: readonly unknown[]): Backend {
  for (const x of values) if (x instanceof Tensor) return x.backend;
  return current();
}

const dtypeOf = (x: TypedArray) =>
  x instanceof Int32Array ? 'i32' : x instanceof Uint32Array ? 'u32' : 'f32';

function describe(x: unknown): Leaf {
  if (x instanceof Tensor) return { kind: 'tensor', dtype: x.dtype, shape: x.shape };
  if (typeof x === 'number') return { kind: 'number' };
  if (ArrayBuffer.isView(x)) {
    const values = x as TypedArray;
    return { kind: 'tensor', dtype: dtypeOf(values), shape: [values.length] };
  }
  if (x instanceof tree.Opaque) x.refuse('passing it to a compiled step');
  return { kind: 'static', value: x };
}

/** Structure, shapes, dtypes and static values of the arguments. */
function keyOf(args: unknown, leaves: readonly Leaf[], backend: Backend): string {
  let next = 0;
  let text = backend.name;
  tree.mapWithPath(path => {
    const leaf = leaves[next++];
    text += `;${path}:`;
    text +=
      leaf.kind === 'tensor'
        ? `${leaf.dtype}[${leaf.shape}]`
        : leaf.kind === 'number'
          ? '#'
          : `${typeof leaf.value} ${String(leaf.value)}`;
  }, args);
  return text;
}

/** Dense storages for the arguments; views are compacted here, once. Donated ones must own theirs. */
function bindInputs(
  values: readonly unknown[],
  donated: ReadonlySet<Storage>,
  backend: Backend,
  made: Storage[],
): Storage[] {
  const inputs: Storage[] = [];
  const seen = new Set<Storage>();
  for (const x of values) {
    if (ArrayBuffer.isView(x)) {
      const array = x as TypedArray;
      const storage = newStorage(backend, dtypeOf(array), array.length);
      queueOf(backend).write(storage, array);
      made.push(storage);
      inputs.push(storage);
    }
    if (!(x instanceof Tensor)) continue;
    checkUsable(x, 'compiled step');
    if (x.backend !== backend)
      throw new ProgramError(`a compiled step got tensors on ${backend.name} and ${x.backend.name}`);
    const { storage, shape, strides, offset } = x.view;
    const owns = offset === 0 && isDense(shape, strides) && storage.size === sizeOf(shape);
    if (donated.has(storage) && (!owns || seen.has(storage)))
      throw new ProgramError(
        `a compiled step got ${x} donated, which ${owns ? 'another argument shares' : 'is a view of other memory'}`,
      );
    seen.add(storage);
    if (owns) inputs.push(storage);
    else {
      const dense = newStorage(backend, x.dtype, x.size);
      enqueue({ kernel: 'copy', op: 'copy', outs: [denseView(dense, shape)], ins: [x.view], attrs: {} });
      made.push(dense);
      inputs.push(dense);
    }
  }
  return inputs;
}

/** Pairs donated arguments with the result's elements, leaf by leaf. Throws ProgramError where they do not match. */
function donations(recording: Recording, args: unknown[], donate: readonly number[]): Donation[] {
  if (donate.length === 0) return [];
  const { result, inputs, closures } = recording;
  if (!Array.isArray(result) || result.length < donate.length)
    throw new ProgramError(
      `a step that donates ${donate.length} arguments must return an array that replaces them`,
    );
  const found: Donation[] = [];
  donate.forEach((position, k) => {
    const before = args
      .slice(0, position)
      .flatMap(a => tree.leaves(a))
      .filter(isData).length;
    let next = before;
    tree.mapWithPath(
      (path, old, now) => {
        if (!(old instanceof Tensor)) return;
        if (!(now instanceof Tensor) || !sameShape(old.shape, now.shape) || old.dtype !== now.dtype)
          throw new ProgramError(
            `donated argument ${position} '${path}' is ${old}, but result ${k} has ${now instanceof Tensor ? now : typeof now} there`,
          );
        if (closures.some(c => c.storage === old.view.storage))
          throw new ProgramError(`donated argument ${position} '${path}' is also closed over by the step`);
        found.push({ input: inputs[next++], output: now.view.storage });
      },
      args[position],
      result[k],
    );
  });
  return found;
}

const isData = (x: unknown) => x instanceof Tensor || ArrayBuffer.isView(x);
