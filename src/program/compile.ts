/**
 * `compile(step)`: trace a step once per set of argument shapes, fuse it, plan its memory and replay it. A later call
 * with the same shapes runs no JavaScript of the step: one native call, or one submit.
 */
import type { Backend, Executable, Storage, TypedArray } from '../core/backend.js';
import { BackendError, DisposedError, ProgramError } from '../core/errors.js';
import { enqueue, queueOf, runtime } from '../core/queue.js';
import { isDense, type Shape, sameShape, sizeOf } from '../core/shape.js';
import { checkUsable, current, denseView, newStorage, release, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { build, dtypeOf, match, type Template, templateOf } from './arguments.js';
import { capture, difference, type Recording } from './capture.js';
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
  /** The programs made so far, the most recently used first. */
  stats(): ProgramStats[];
  /** Gives back scratch memory and results kept. */
  dispose(): void;
};

const smallOutput = 4096;

interface Output {
  readonly storage: Storage;
  readonly shape: Shape;
  readonly strides: Shape;
  /** The input it replaces, or -1. */
  readonly donated: number;
  /** Memory of a small output's last values, and how many there have been. */
  readonly ring: Storage[];
  next: number;
}

/** One set of argument shapes, made ready. */
class Program {
  private readonly executable: Executable;
  private readonly outputs: Output[];
  private readonly result: Template;
  readonly stats: ProgramStats;
  private readonly donated: ReadonlySet<number>;
  checked = false;

  constructor(
    readonly args: Template,
    readonly recording: Recording,
    readonly backend: Backend,
    donations: readonly Donation[],
    private readonly keep: number,
  ) {
    const { inputs, numbers, closures, outputs } = recording;
    const taken = new Map(donations.map(d => [d.output, inputs.indexOf(d.input)]));
    this.donated = new Set(taken.values());
    const free = outputs.filter(s => !taken.has(s));
    const externals = [...inputs, ...(numbers ? [numbers] : []), ...closures.map(c => c.storage), ...free];
    const commands = fuse(recording.commands, new Set(outputs), backend.limits);
    const layout: Layout = layOut(commands, donations, new Set(externals), backend.limits);
    this.executable = backend.prepare({ ...layout, externals });
    const views = tree.leaves(recording.result).filter(x => x instanceof Tensor);
    this.outputs = outputs.map((storage, i) => {
      const { shape, strides } = views[i].view;
      return { storage, shape, strides, donated: taken.get(storage) ?? -1, ring: [], next: 0 };
    });
    this.result = templateOf(recording.result, 'static');
    this.stats = {
      recorded: recording.commands.length,
      commands: layout.commands.map(({ op, kernel }) => ({ op, kernel })),
      scratchBytes: layout.buffers.reduce((a, b) => a + b, 0),
      inPlace: layout.inPlace,
      donated: donations.length,
    };
  }

  /** Throws ProgramError if another recording of the step is not the same. */
  check(again: Recording): void {
    const found = difference(this.recording, again);
    for (const storage of again.constants.keys()) release(storage, 'it was a constant of a trial capture');
    if (found) throw new ProgramError(`a compiled step must do the same at every call, but ${found}`);
    this.checked = true;
  }

  /** Queues one run on the argument leaves; storages made for it are added to `made`. */
  run(values: readonly unknown[], made: Storage[]): unknown {
    const inputs = this.bind(values, made);
    const bound = [...inputs];
    const queue = queueOf(this.backend);
    if (this.recording.numbers) {
      const numbers = newStorage(this.backend, 'f32', this.recording.numbers.size);
      queue.write(numbers, Float64Array.from(values.filter(x => typeof x === 'number') as number[]));
      made.push(numbers);
      bound.push(numbers);
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
    for (const out of this.outputs) if (out.donated >= 0) inputs[out.donated].generation++;
    let next = 0;
    return build(this.result, leaf => {
      if (leaf.kind === 'static') return leaf.value;
      const { shape, strides } = this.outputs[next];
      const storage = results[next++];
      return new Tensor({ storage, shape, strides, offset: 0, generation: storage.generation });
    });
  }

  /** Dense storages for the arguments; views are compacted here. Donated ones must own theirs. */
  private bind(values: readonly unknown[], made: Storage[]): Storage[] {
    const inputs: Storage[] = [];
    for (const x of values) {
      if (typeof x === 'number') continue;
      if (x instanceof Tensor) {
        checkUsable(x, 'compiled step');
        if (x.backend !== this.backend)
          throw new BackendError(`a compiled step got tensors on ${this.backend.name} and ${x.backend.name}`);
        const { storage, shape, strides, offset } = x.view;
        const owns = offset === 0 && isDense(shape, strides) && storage.size === sizeOf(shape);
        if (!owns && this.donated.has(inputs.length))
          throw new ProgramError(`a compiled step got ${x} donated, which is a view of other memory`);
        if (owns) inputs.push(storage);
        else {
          const dense = newStorage(this.backend, x.dtype, sizeOf(shape));
          enqueue({ kernel: 'copy', op: 'copy', outs: [denseView(dense, shape)], ins: [x.view], attrs: {} });
          made.push(dense);
          inputs.push(dense);
        }
      } else {
        const array = x as TypedArray;
        const storage = newStorage(this.backend, dtypeOf(array), array.length);
        queueOf(this.backend).write(storage, array);
        made.push(storage);
        inputs.push(storage);
      }
    }
    for (const i of this.donated)
      if (inputs.indexOf(inputs[i]) !== i || inputs.lastIndexOf(inputs[i]) !== i)
        throw new ProgramError(`a compiled step got a tensor donated that another argument shares`);
    return inputs;
  }

  /** Memory for an undonated output: a slot of its ring if it is small, else new. */
  private fresh(out: Output): Storage {
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
  /** The most recently used first. */
  const programs: Program[] = [];

  const find = (args: A, values: unknown[], backend: Backend): Program => {
    for (let i = 0; i < programs.length; i++) {
      const program = programs[i];
      values.length = 0;
      if (program.backend !== backend || !match(program.args, args, values)) continue;
      if (i > 0) programs.unshift(...programs.splice(i, 1));
      if (!program.checked) program.check(capture(step, program.args, backend));
      return program;
    }
    const template = templateOf(args);
    const recording = capture(step, template, backend);
    values.length = 0;
    match(template, args, values);
    const program = new Program(template, recording, backend, donations(recording, args, donate), keep);
    programs.unshift(program);
    if (programs.length > most) programs.pop()!.dispose();
    return program;
  };

  const call = (...args: A): R => {
    if (runtime.capture || (runtime.openGradients !== 0 && carriesGradient(args))) return step(...args);
    const values: unknown[] = [];
    const program = find(args, values, backendOf(args));
    const made: Storage[] = [];
    const result = program.run(values, made);
    for (const storage of made) release(storage, 'the compiled step that it was made for has run');
    return result as R;
  };
  return Object.assign(call, {
    stats: () => programs.map(p => p.stats),
    dispose: () => {
      for (const program of programs.splice(0)) program.dispose();
    },
  });
}

function backendOf(args: unknown): Backend {
  return firstTensor(args)?.backend ?? current();
}

function firstTensor(x: unknown): Tensor | undefined {
  if (x instanceof Tensor) return x;
  if (typeof x !== 'object' || x === null || ArrayBuffer.isView(x)) return undefined;
  for (const child of Object.values(x)) {
    const found = firstTensor(child);
    if (found) return found;
  }
  return undefined;
}

const carriesGradient = (args: unknown): boolean =>
  tree.leaves(args).some(x => x instanceof Tensor && (x.deps & runtime.openGradients) !== 0);

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
