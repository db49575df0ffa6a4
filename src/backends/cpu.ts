/**
 * The native backend: C++ kernels on the caller's thread and its pool. One flush is one call into the addon, and so is
 * one replay of a prepared step. Kernels the addon lacks run by their reference loop on the same memory.
 */
import type { Backend, Command, Executable, Plan, Storage, TypedArray, View } from '../core/backend.js';
import { KernelFailure } from '../core/backend.js';
import { BackendError, KernelError } from '../core/errors.js';
import { isDense, sizeOf } from '../core/shape.js';
import { type Addon, loadAddon, type NativeProgram } from './cpu/addon.js';
import { compoundsOf } from './cpu/compounds.js';
import { Encoder, type Vocabulary } from './cpu/encode.js';
import { type Flights, flightsOf } from './cpu/flights.js';
import { Allocator, arrayOn, type Memory, Scratch } from './cpu/memory.js';
import { hasReference, runReference } from './ref.js';

export interface CpuOptions {
  /** Threads kernels may use, the caller's among them. Default: WEIGHTLOOM_THREADS, else the CPUs of this process. */
  readonly threads?: number;
}

/** Makes the native backend. Throws NativeLoadError where the addon cannot be loaded. */
export async function createCpu(options: CpuOptions = {}): Promise<Backend> {
  const addon = await loadAddon();
  const threads = options.threads ?? (Number(process.env.WEIGHTLOOM_THREADS) || addon.availableThreads);
  return new Cpu(addon, Math.max(1, Math.trunc(threads)));
}

const numbered = (names: readonly string[]) => new Map(names.map((name, i) => [name, i]));

class Cpu implements Backend {
  readonly name = 'cpu';
  readonly limits = {
    maxBindings: Infinity,
    packing: 'offsets',
    epilogue: new Set(['matmul', 'matmulUpdate', 'conv2d', 'normalise']),
    prologue: new Set(['reduce', 'reduceColumns', 'maxPool']),
  } as const;
  readonly allocator: Allocator;
  readonly vocabulary: Vocabulary;
  readonly scratch: Scratch;
  readonly flights: Flights;
  fallbacks = 0;
  programs = 0;
  private readonly encoder: Encoder;
  private bases = new Float64Array(64);
  private sizes = new Float64Array(64);
  private slots = 0;
  private stamp = 0;

  constructor(
    readonly addon: Addon,
    readonly threads: number,
  ) {
    this.vocabulary = {
      kernels: numbered(addon.kernels),
      scalars: numbered(addon.scalars),
      compounds: compoundsOf(addon.scalars),
    };
    this.flights = flightsOf(addon);
    this.allocator = new Allocator(addon, this.flights);
    this.scratch = new Scratch(addon);
    this.encoder = new Encoder(this.vocabulary);
  }

  has(kernel: string): boolean {
    return this.vocabulary.kernels.has(kernel) || hasReference(kernel);
  }

  run(commands: readonly Command[]): void {
    this.begin();
    let first = 0;
    for (let i = 0; i < commands.length; i++) {
      const command = commands[i];
      try {
        if (this.encode(command)) continue;
      } catch (error) {
        this.flush(commands, first, i);
        throw new KernelFailure(i, error);
      }
      this.flush(commands, first, i);
      first = i + 1;
      try {
        this.fallbacks++;
        this.flights.wait();
        runReference(command, this.array);
      } catch (error) {
        throw new KernelFailure(i, error);
      }
    }
    this.flush(commands, first, commands.length);
  }

  prepare(plan: Plan): Executable {
    const step = new PreparedStep(this, plan);
    this.programs++;
    return step;
  }

  write(storage: Storage, values: TypedArray): void {
    const memory = this.allocator.bind(storage);
    if (memory.job === 0) {
      memory.failure = null;
      this.array(storage).set(values);
      return;
    }
    // A job in flight must not see them: they wait in its queue.
    const held = denseView(storage, [storage.size]);
    this.array(held.storage).set(values);
    this.run([{ kernel: 'copy', op: 'write', outs: [{ ...held, storage }], ins: [held], attrs: {} }]);
    this.allocator.free(held.storage);
  }

  async read(view: View): Promise<TypedArray> {
    let values: TypedArray;
    if ((view.storage.memory as Memory | null)?.job) {
      const { storage } = this.compact(view);
      await this.flights.settled();
      values = this.valuesOf(storage);
      this.allocator.free(storage);
    } else values = this.readSync(view);
    return new Promise(resolve => setImmediate(resolve, values));
  }

  readSync(view: View): TypedArray {
    const { storage, shape, strides, offset } = view;
    if (isDense(shape, strides)) return this.valuesOf(storage, offset, sizeOf(shape));
    const dense = this.compact(view).storage;
    const values = this.valuesOf(dense);
    this.allocator.free(dense);
    return values;
  }

  /** A copy of a view, as of now in the order of work. */
  private compact(view: View): View {
    const out = denseView(view.storage, view.shape);
    this.run([{ kernel: 'copy', op: 'read', outs: [out], ins: [view], attrs: {} }]);
    return out;
  }

  /** Copies elements out of a storage once they are there. Throws KernelError where the job that made them failed. */
  private valuesOf(storage: Storage, begin = 0, count = storage.size): TypedArray {
    const memory = storage.memory as Memory | null;
    if (memory === null) throw new BackendError('cpu: a storage was read that nothing has written');
    if (memory.job > 0) this.flights.wait(memory.job);
    if (memory.failure !== null) throw new KernelError(`read: ${memory.failure}`);
    return this.array(storage).slice(begin, begin + count);
  }

  free(storage: Storage): void {
    this.allocator.free(storage);
  }

  sync(): Promise<void> {
    return this.flights.settled();
  }

  describe(): Record<string, unknown> {
    return {
      isa: this.addon.isa,
      isas: this.addon.isas,
      threads: this.threads,
      fallbacks: this.fallbacks,
      programs: this.programs,
      scratchBytes: this.scratch.bytes,
      cachedBytes: this.allocator.cachedBytes,
      allocations: this.allocator.allocations,
    };
  }

  dispose(): void {
    this.flights.wait();
    this.allocator.clear();
    this.scratch.clear();
  }

  /** The elements of a bound storage. */
  readonly array = (storage: Storage): TypedArray => {
    const memory = this.allocator.bind(storage);
    return arrayOn(memory.buffer, memory.offset, storage.dtype, storage.size);
  };

  private begin(): void {
    this.encoder.clear();
    this.slots = 0;
    this.stamp++;
  }

  /** Appends a command to the list, its outs bound; false if the addon lacks its kernel. */
  private encode({ kernel, op, outs, ins, attrs }: Command): boolean {
    for (let k = 0; k < ins.length; k++) {
      const memory = ins[k].storage.memory as Memory | null;
      if (memory === null) throw new KernelError(`${op}: operand ${k} is a storage that nothing has written`);
      if (memory.failure !== null) throw new KernelError(`${op}: operand ${k}: ${memory.failure}`);
    }
    for (const view of outs) this.allocator.bind(view.storage);
    return this.encoder.command(kernel, outs, ins, attrs, this.slotOf);
  }

  /** Runs what is encoded: commands [first, end) of the list given to run(). */
  private flush(commands: readonly Command[], first: number, end: number): void {
    if (this.encoder.length === 0) return;
    const { words, length } = this.encoder;
    const failed = this.addon.run(words, length, this.bases, this.sizes, this.slots, this.threads);
    if (failed >= 0) throw new KernelFailure(first + failed, new KernelError(this.addon.message()));
    if (failed < -1) {
      const mine = commands.slice(first, end);
      this.flights.add(-1 - failed, memories(mine.flatMap(c => c.ins)), memories(mine.flatMap(c => c.outs)));
    }
    this.begin();
  }

  private readonly slotOf = ({ storage }: View): number => {
    const memory = storage.memory as Memory;
    if (memory.stamp === this.stamp) return memory.slot;
    if (this.slots === this.bases.length) {
      this.bases = grow(this.bases);
      this.sizes = grow(this.sizes);
    }
    this.bases[this.slots] = memory.address;
    this.sizes[this.slots] = storage.size * 4;
    memory.stamp = this.stamp;
    memory.slot = this.slots++;
    return memory.slot;
  };
}

const memories = (views: readonly View[]) => views.map(({ storage }) => storage.memory as Memory);

/** A fresh storage of a view's dtype, seen whole. */
function denseView({ dtype, backend }: Storage, shape: readonly number[]): View {
  const size = sizeOf(shape);
  const storage: Storage = { id: -1, dtype, size, backend, memory: null, generation: 0, dead: null };
  let stride = size;
  const strides = shape.map(n => (stride = n > 0 ? stride / n : 0));
  return { storage, shape, strides, offset: 0, generation: 0 };
}

const grow = (array: Float64Array) => {
  const grown = new Float64Array(2 * array.length);
  grown.set(array);
  return grown;
};

function milliseconds(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

/** Commands [begin, end) of the native program, then one command by its reference loop (null after the last). */
interface Segment {
  readonly begin: number;
  readonly end: number;
  readonly fallback: Command | null;
}

class PreparedStep implements Executable {
  private readonly program: NativeProgram;
  private readonly segments: Segment[] = [];
  /** Addresses of the storages' memory: those of externals first, in their order, then scratch places. */
  private readonly bases: Float64Array;
  private readonly places: readonly (readonly [Storage, number])[];
  private readonly slots = new Map<Storage, number>();
  private readonly bytes: number;
  private boundScratch = 0;
  private bound: readonly Storage[] = [];
  private readonly isLong: boolean;
  /** Externals that are read, and that are written, by their index. */
  private readonly reads: readonly number[];
  private readonly writes: readonly number[];

  constructor(
    private readonly cpu: Cpu,
    private readonly plan: Plan,
  ) {
    for (const [i, storage] of plan.externals.entries()) this.slots.set(storage, i);
    const places: [Storage, number][] = [];
    for (const [storage, { offset }] of plan.places) {
      this.slots.set(storage, plan.externals.length + places.length);
      places.push([storage, offset]);
    }
    this.places = places;
    this.bytes = plan.buffers[0] ?? 0;
    const sizes = Float64Array.from([...plan.externals, ...places.map(([s]) => s)], s => s.size * 4);
    this.bases = new Float64Array(sizes.length);

    const encoder = new Encoder(cpu.vocabulary);
    const slotOf = ({ storage }: View) => this.slots.get(storage) ?? -1;
    let begin = 0;
    let count = 0;
    for (const command of plan.commands) {
      if (encoder.command(command.kernel, command.outs, command.ins, command.attrs, slotOf)) {
        count++;
        continue;
      }
      this.segments.push({ begin, end: count, fallback: command });
      begin = count;
    }
    this.segments.push({ begin, end: count, fallback: null });
    try {
      this.program = cpu.addon.prepare(encoder.words.subarray(0, encoder.length), sizes, this.bases);
    } catch (cause) {
      throw new KernelError(`cpu: a step cannot be prepared: ${(cause as Error).message}`, { cause });
    }
    this.isLong = this.segments.length === 1 && cpu.addon.isLong(this.program, cpu.threads);
    const externals = (views: readonly View[]) => {
      const slots = new Set(views.map(slotOf));
      return [...plan.externals.keys()].filter(i => slots.has(i));
    };
    this.reads = externals(plan.commands.flatMap(c => c.ins));
    this.writes = externals(plan.commands.flatMap(c => c.outs));
  }

  run(externals: readonly Storage[], times?: Float64Array): void {
    const { cpu, plan, bases } = this;
    if (externals.length !== plan.externals.length)
      throw new BackendError(
        `cpu: a step of ${plan.externals.length} externals was given ${externals.length}`,
      );
    for (let i = 0; i < externals.length; i++) {
      const storage = externals[i];
      if (storage.size !== plan.externals[i].size)
        throw new BackendError(
          `cpu: external ${i} of a step has ${storage.size} elements, not ${plan.externals[i].size}`,
        );
      bases[i] = ((storage.memory as Memory | null) ?? cpu.allocator.bind(storage)).address;
    }
    cpu.scratch.reserve(this.bytes);
    if (this.boundScratch !== cpu.scratch.address) {
      this.boundScratch = cpu.scratch.address;
      this.places.forEach(([, offset], i) => {
        bases[externals.length + i] = this.boundScratch + offset;
      });
    }
    const { flights } = cpu;
    const memory = (i: number) => externals[i].memory as Memory;
    if (flights.failures > 0) {
      const failed = this.reads.map(memory).find(({ failure }) => failure !== null);
      if (failed) throw new KernelError(`a compiled step reads what could not be made: ${failed.failure}`);
      for (const i of this.writes) memory(i).failure = null;
    }
    if (!times && (this.isLong || (flights.busy && this.segments.length === 1))) {
      const job = cpu.addon.submit(this.program, 0, this.segments[0].end, cpu.threads);
      flights.add(job, this.reads.map(memory), this.writes.map(memory), [this.program, cpu.scratch.buffer]);
      return;
    }
    flights.wait();
    let timed = 0;
    for (const { begin, end, fallback } of this.segments) {
      if (times)
        for (let i = begin; i < end; i++) times[timed++] = milliseconds(() => this.execute(i, i + 1));
      else if (end > begin) this.execute(begin, end);
      if (!fallback) continue;
      cpu.fallbacks++;
      this.bound = externals;
      const ms = milliseconds(() => runReference(fallback, this.array));
      if (times) times[timed++] = ms;
      this.bound = [];
    }
  }

  private execute(begin: number, end: number): void {
    const { addon, threads } = this.cpu;
    if (addon.execute(this.program, begin, end, threads) >= 0) throw new KernelError(addon.message());
  }

  dispose(): void {
    this.cpu.programs--;
  }

  private readonly array = (storage: Storage): TypedArray => {
    const slot = this.slots.get(storage)!;
    if (slot < this.bound.length) return this.cpu.array(this.bound[slot]);
    const { buffer, offset } = this.cpu.scratch;
    return arrayOn(buffer, offset + this.places[slot - this.bound.length][1], storage.dtype, storage.size);
  };
}
