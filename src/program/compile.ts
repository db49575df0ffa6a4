/**
 * `compile(step)`: trace a step once per set of argument shapes, fuse it, plan its memory and replay it. A later call
 * with the same shapes runs no JavaScript of the step: one native call, or one submit.
 */
import type { Backend, DType, Executable, Storage, TypedArray } from '../core/backend.js';
import { BackendError, DisposedError, MemoryContractError, ProgramError } from '../core/errors.js';
import { enqueue, queueOf, runtime } from '../core/queue.js';
import { isDense, type Shape, sameShape, sizeOf } from '../core/shape.js';
import { checkUsable, current, denseView, newStorage, release, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { build, dtypeOf, match, type Template, templateOf } from './arguments.js';
import { capture, difference, outside, type Recording } from './capture.js';
import { costOf, type KernelCost } from './cost.js';
import { fuse } from './fuse.js';
import { type Donation, type Layout, layOut } from './memory.js';
import { planning } from './plan.js';

export interface CompileOptions {
  /**
   * Positions of arguments whose memory the step may take over: the k-th element of the result replaces the k-th
   * donated argument (same tree, shapes, dtypes) and is updated in place where that harms no read. The argument's
   * tensors are dead afterwards.
   */
  readonly donate?: readonly number[];
  /** How many results back a small undonated output (a loss, say) stays readable; 64 unless given. */
  readonly keep?: number;
  /**
   * Arguments, results and temporaries of a call together take so many bytes at most. Generated layers are cut in parts
   * of their tasks, whose weights the backward pass makes again, until that holds; where it cannot, MemoryContractError
   * tells the shortfall before anything has run.
   */
  readonly maxBytes?: number;
  /** Programs of other argument shapes kept ready; 16 unless given. */
  readonly programs?: number;
}

/** A command of a program, what it costs and how long it took. */
export interface CommandTime extends KernelCost {
  readonly ms: number;
}

/** What one program came to, for tests, `costReport` and curious people. */
export interface ProgramStats {
  /** Commands as recorded, and those left after fusion with what each costs. */
  readonly recorded: number;
  readonly commands: readonly KernelCost[];
  readonly scratchBytes: number;
  /** Of arguments, results, what is closed over, and temporaries: what `maxBytes` bounds. */
  readonly peakBytes: number;
  /** Donated leaves updated without a copy, of how many. */
  readonly inPlace: number;
  readonly donated: number;
}

export type Compiled<A extends unknown[], R> = ((...args: A) => R) & {
  /** A call that times every command by itself. Throws BackendError where the backend cannot (all but cpu). */
  profile(...args: A): { result: R; commands: CommandTime[] };
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

interface Recorded {
  readonly recording: Recording;
  readonly donations: readonly Donation[];
}

/** A recording fused and laid out, before the backend has made anything of it. */
interface Laid extends Recorded {
  readonly layout: Layout;
  readonly externals: readonly Storage[];
  readonly peakBytes: number;
  /** What the temporaries of a generated layer were given. */
  readonly budget: number;
}

const bytesOf = (storages: readonly Storage[]) => storages.reduce((sum, { size }) => sum + 4 * size, 0);
const scratchOf = ({ buffers }: Layout) => buffers.reduce((a, b) => a + b, 0);

/** Runs `f` with a budget for the temporaries of each generated layer. */
function withBudget<T>(budget: number, f: () => T): T {
  const before = planning.maxBytes;
  planning.maxBytes = budget;
  try {
    return f();
  } finally {
    planning.maxBytes = before;
  }
}

/**
 * Ways to fuse, those that cost less time first. Products that do updates themselves save the memory of gradients; where
 * commands move no further than NEAR to be fused, sums over the parts of a layer stay behind each part.
 */
const NEAR = 3;
const FUSIONS = [{}, { updates: true }, { updates: true, reach: NEAR }];

/** The step laid out by the first way to fuse that fits, else by that which needs the least memory. */
function lay(maxBytes: number, record: () => Recorded, backend: Backend, budget = Infinity): Laid {
  const { recording, donations } = withBudget(budget, record);
  const { inputs, numbers, closures, outputs } = recording;
  const taken = new Set(donations.map(d => d.output));
  const free = outputs.filter(s => !taken.has(s));
  const externals = [...inputs, ...(numbers ? [numbers] : []), ...closures.map(c => c.storage), ...free];
  let least: Laid | null = null;
  for (const fusion of FUSIONS) {
    const commands = fuse(recording.commands, new Set(outputs), backend.limits, fusion);
    const layout = layOut(commands, donations, new Set(externals), backend.limits);
    const peakBytes = bytesOf(externals) + scratchOf(layout);
    if (!least || peakBytes < least.peakBytes)
      least = { recording, donations, layout, externals, peakBytes, budget };
    if (peakBytes <= maxBytes) break;
  }
  return least!;
}

/**
 * The step laid out within `maxBytes`: as it is if it fits, else with the largest budget for a generated layer's
 * temporaries, of those halved again and again, that makes it fit. Throws MemoryContractError.
 */
function layWithin(maxBytes: number, record: () => Recorded, backend: Backend): Laid {
  let laid = lay(maxBytes, record, backend);
  let least = laid.peakBytes;
  const uncut = laid.recording.commands.length;
  let budget = scratchOf(laid.layout) / 2;
  for (let before = -1; laid.peakBytes > maxBytes && budget >= 1; budget /= 2) {
    discard(laid.recording);
    laid = lay(maxBytes, record, backend, budget);
    least = Math.min(least, laid.peakBytes);
    const { length } = laid.recording.commands;
    if (length !== uncut && length === before) break;
    before = length;
  }
  if (laid.peakBytes <= maxBytes) return laid;
  discard(laid.recording);
  throw new MemoryContractError(
    `a compiled step needs ${least} bytes at least for arguments, results and temporaries, ` +
      `${least - maxBytes} more than maxBytes = ${maxBytes}`,
  );
}

const discard = ({ constants }: Recording) => {
  for (const storage of constants.keys()) release(storage, 'it was a constant of a trial capture');
};

/** One set of argument shapes, made ready. */
class Program {
  private readonly recording: Recording;
  private readonly budget: number;
  private readonly executable: Executable;
  private readonly outputs: Output[];
  private readonly result: Template;
  readonly stats: ProgramStats;
  /** Whether each input is donated. */
  private readonly donated: readonly boolean[];
  /** Memory that arguments are copied to which are views, typed arrays or numbers. */
  private readonly own: Storage[] = [];
  checked = false;

  constructor(
    readonly args: Template,
    laid: Laid,
    readonly backend: Backend,
    private readonly keep: number,
  ) {
    const { recording, donations, layout, externals, peakBytes, budget } = laid;
    this.recording = recording;
    this.budget = budget;
    const { inputs, outputs } = recording;
    const taken = new Map(donations.map(d => [d.output, inputs.indexOf(d.input)]));
    const donated = new Set(taken.values());
    this.donated = inputs.map((_, i) => donated.has(i));
    this.executable = backend.prepare({ ...layout, externals });
    const views = tree.leaves(recording.result).filter(x => x instanceof Tensor);
    this.outputs = outputs.map((storage, i) => {
      const { shape, strides } = views[i].view;
      return { storage, shape, strides, donated: taken.get(storage) ?? -1, ring: [], next: 0 };
    });
    this.result = templateOf(recording.result, 'static');
    this.stats = {
      recorded: recording.commands.length,
      commands: layout.commands.map(costOf),
      scratchBytes: scratchOf(layout),
      peakBytes,
      inPlace: layout.inPlace,
      donated: donations.length,
    };
  }

  /** Throws ProgramError if the step, recorded again, does not do the same. */
  check(record: () => Recording): void {
    const again = withBudget(this.budget, record);
    const found = difference(this.recording, again);
    discard(again);
    if (found) throw new ProgramError(`a compiled step must do the same at every call, but ${found}`);
    this.checked = true;
  }

  /** Queues one run on the argument leaves. */
  run(values: readonly unknown[], times?: Float64Array): unknown {
    const { recording, backend, outputs, donated } = this;
    const queue = queueOf(backend);
    queue.flush();
    const bound = this.bind(values);
    if (recording.numbers) {
      const numbers = this.ownStorage(bound.length, 'f32', recording.numbers.size);
      queue.write(numbers, Float64Array.from(values.filter(x => typeof x === 'number') as number[]));
      bound.push(numbers);
    }
    for (const { storage, generation } of recording.closures) {
      if (storage.dead || storage.generation !== generation)
        throw new DisposedError(
          `a compiled step closes over a tensor that cannot be used: ${storage.dead ?? 'it was donated'}`,
        );
      bound.push(storage);
    }
    const results: Storage[] = [];
    for (const out of outputs) {
      if (out.donated >= 0) results.push(bound[out.donated]);
      else {
        const storage = this.fresh(out);
        results.push(storage);
        bound.push(storage);
      }
    }
    queue.flush();
    this.take(values, bound);
    try {
      this.executable.run(bound, times);
    } catch (error) {
      for (let i = 0; i < donated.length; i++)
        if (donated[i]) bound[i].dead = 'a compiled step that was updating it failed';
      throw error;
    }
    let next = 0;
    return build(this.result, leaf => {
      if (leaf.kind === 'static') return leaf.value;
      const { shape, strides } = outputs[next];
      const storage = results[next++];
      return new Tensor({ storage, shape, strides, offset: 0, generation: storage.generation });
    });
  }

  /** Dense storages for the arguments; views are compacted here. Donated ones must own theirs. */
  private bind(values: readonly unknown[]): Storage[] {
    const { backend, donated } = this;
    const bound: Storage[] = [];
    for (const x of values) {
      if (typeof x === 'number') continue;
      const i = bound.length;
      if (x instanceof Tensor) {
        checkUsable(x, 'compiled step');
        const { storage, shape, strides, offset } = x.view;
        if (storage.backend !== backend)
          throw new BackendError(
            `a compiled step got tensors on ${backend.name} and ${storage.backend.name}`,
          );
        const owns = offset === 0 && storage.size === sizeOf(shape) && isDense(shape, strides);
        if (!owns && donated[i])
          throw new ProgramError(`a compiled step got ${x} donated, which is a view of other memory`);
        bound.push(owns ? storage : this.ownStorage(i, storage.dtype, sizeOf(shape)));
        if (!owns)
          enqueue({
            kernel: 'copy',
            op: 'copy',
            outs: [denseView(bound[i], shape)],
            ins: [x.view],
            attrs: {},
          });
      } else {
        const array = x as TypedArray;
        const storage = donated[i]
          ? newStorage(backend, dtypeOf(array), array.length)
          : this.ownStorage(i, dtypeOf(array), array.length);
        queueOf(backend).write(storage, array);
        bound.push(storage);
      }
    }
    return bound;
  }

  /** Makes every handle on donated memory stale. Throws ProgramError if another argument shares it. */
  private take(values: readonly unknown[], bound: readonly Storage[]): void {
    const { donated } = this;
    for (let i = 0; i < donated.length; i++) if (donated[i]) bound[i].generation++;
    let next = 0;
    for (const x of values) {
      if (typeof x === 'number') continue;
      const taken = donated[next++] ? 1 : 0;
      if (!(x instanceof Tensor) || x.view.storage.generation === x.view.generation + taken) continue;
      for (let i = 0; i < donated.length; i++) if (donated[i]) bound[i].generation--;
      throw new ProgramError(`a compiled step got a tensor donated that another argument shares`);
    }
  }

  /** Memory for an undonated output: a slot of its ring if it is small, else new. */
  private fresh(out: Output): Storage {
    const { dtype, size } = out.storage;
    if (size * 4 > smallOutput) return newStorage(this.backend, dtype, size);
    const at = out.next++ % this.keep;
    const slot = out.ring[at];
    if (slot && !slot.dead) {
      slot.generation++;
      return slot;
    }
    return (out.ring[at] = outside(() => newStorage(this.backend, dtype, size)));
  }

  /** Memory of the program's own for an argument that has to be copied, number `at` of those bound. */
  private ownStorage(at: number, dtype: DType, size: number): Storage {
    return (this.own[at] ??= outside(() => newStorage(this.backend, dtype, size)));
  }

  dispose(): void {
    this.executable.dispose();
    const { constants } = this.recording;
    const rings = this.outputs.flatMap(out => out.ring);
    for (const storage of [...rings, ...this.own.filter(Boolean), ...constants.keys()])
      release(storage, 'its compiled step was disposed');
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
  const { donate = [], keep = 64, maxBytes = Infinity, programs: most = 16 } = options;
  /** The most recently used first. */
  const programs: Program[] = [];

  /** The program for these arguments, whose leaves `values` then holds. */
  const find = (args: A, values: unknown[]): Program => {
    for (let i = 0; i < programs.length; i++) {
      const program = programs[i];
      if (!match(program.args, args, values) || backendOf(values) !== program.backend) {
        values.length = 0;
        continue;
      }
      if (i > 0) programs.unshift(...programs.splice(i, 1));
      if (!program.checked) program.check(() => capture(step, program.args, program.backend));
      return program;
    }
    const template = templateOf(args);
    match(template, args, values);
    const backend = backendOf(values);
    const record = () => {
      const recording = capture(step, template, backend);
      return { recording, donations: donations(recording, args, donate) };
    };
    const program = new Program(template, layWithin(maxBytes, record, backend), backend, keep);
    programs.unshift(program);
    if (programs.length > most) programs.pop()!.dispose();
    return program;
  };

  const call = (...args: A): R => {
    if (runtime.capture || (runtime.openGradients !== 0 && carriesGradient(args))) return step(...args);
    const values: unknown[] = [];
    return find(args, values).run(values) as R;
  };
  const profile = (...args: A) => {
    const values: unknown[] = [];
    const program = find(args, values);
    const times = new Float64Array(program.stats.commands.length).fill(Number.NaN);
    const result = program.run(values, times) as R;
    if (times.some(Number.isNaN))
      throw new BackendError(`profile: the ${program.backend.name} backend does not time single commands`);
    return { result, commands: program.stats.commands.map((c, i) => ({ ...c, ms: times[i] })) };
  };
  return Object.assign(call, {
    profile,
    stats: () => programs.map(p => p.stats),
    dispose: () => {
      for (const program of programs.splice(0)) program.dispose();
    },
  });
}

/** The backend of the first tensor, or the one in use where there is none. */
function backendOf(values: readonly unknown[]): Backend {
  for (const x of values) if (x instanceof Tensor) return x.backend;
  return current();
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
