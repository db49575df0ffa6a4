/** The WebGPU backend: WGSL kernels on a device of the browser's or of Dawn's. */
import type {
  Backend,
  BackendLimits,
  Command,
  Executable,
  Plan,
  Storage,
  TypedArray,
  View,
} from '../../core/backend.js';
import { KernelFailure } from '../../core/backend.js';
import { BackendError, DeviceLimitError, KernelError } from '../../core/errors.js';
import type { chains } from './chain.js';
import { Device, type Precision, type Tier } from './device.js';
import { type Made, ParamPages, Recording } from './encoder.js';
import type { Services, Steps } from './executable.js';
import { denseStrides, isDense, type Lowering, product } from './kernel.js';
import { type Block, MAP_READ, Pool, USAGE, usable } from './memory.js';
import { Pipelines } from './pipelines.js';
import type { Ranges } from './ranges.js';
import { immediatesOf, operandsOf, Recipes } from './recipes.js';
import { Source } from './source.js';
import type { Tiling, Tunable, Tuning } from './tiling.js';
import type { DeviceClock, PassTimer } from './timer.js';

/** How a device is chosen and used. */
export interface WebGPUOptions {
  /** Which adapter to prefer where there are several. 'high-performance' unless stated. */
  readonly powerPreference?: 'low-power' | 'high-performance';
  /** Which kernels to use: those for adapters that run on the CPU, or those for GPUs. Found out unless stated. */
  readonly software?: boolean;
  /** False for kernels without subgroups, which give the same bits. True unless stated. */
  readonly subgroups?: boolean;
  /** 'highest' unless stated. */
  readonly precision?: Precision;
}

/** What a page need not load whole. */
export interface Parts {
  readonly kernels: ReadonlyMap<string, Lowering>;
  /** Texts by the names that kernels use. */
  readonly shaders: Readonly<Record<string, string>>;
  /** What makes steps ready; null where none are compiled. */
  readonly steps: ((services: Services) => Steps) | null;
  /** What runs commands in ranges where operands are larger than bindings. Without it none are. */
  readonly ranges?: Ranges;
  /** What joins commands of compiled steps to chains. Without it none are. */
  readonly join?: typeof chains;
  /** How to wait for news of an adapter that computes on the processor. Like for any other unless stated. */
  readonly asleep?: <T>(news: Promise<T>) => Promise<T>;
  /** A measurement on the device's clock; null where nothing is measured. */
  readonly timer: ((device: Device) => PassTimer) | null;
  /** The implementation of a precision other than 'highest'. */
  readonly tierOf?: (adapter: GPUAdapter) => Tier;
}

/**
 * Opens a device of `gpu` (a browser's `navigator.gpu`, or Dawn's). Throws NoAdapterError with the reason,
 * DeviceLimitError where the precision cannot be had.
 */
export async function createOn(gpu: GPU, options: WebGPUOptions, parts: Parts): Promise<Backend & Tunable> {
  const { tierOf } = parts;
  const { precision = 'highest' } = options;
  if (precision !== 'highest' && !tierOf)
    throw new DeviceLimitError(
      `precision '${precision}' is not part of what browsers load; expected 'highest'`,
    );
  return new WebGPUBackend(await Device.open(gpu, options, tierOf), parts);
}

const MEGABYTE = 1 << 20;
/** Bytes of live tensors past which new ones are refused (ERR_MEMORY). */
const BUDGET = 8192 * MEGABYTE;
const EPILOGUES: ReadonlySet<string> = new Set(['matmul', 'conv2d', 'reduce']);
const PROLOGUES: ReadonlySet<string> = new Set(['reduce']);
const ARRAYS = { f32: Float32Array, i32: Int32Array, u32: Uint32Array };

class WebGPUBackend implements Backend, DeviceClock, Tunable {
  readonly name = 'webgpu';
  readonly limits: BackendLimits;
  private readonly pool: Pool;
  private readonly staging: Pool;
  private readonly pipelines: Pipelines;
  /** Of commands that run at once. */
  private readonly recipes: Recipes;
  private readonly steps: Steps | undefined;
  private readonly params: ParamPages;
  private readonly made: Made = { submits: 0, passes: 0, dispatches: 0 };

  constructor(
    readonly device: Device,
    private readonly parts: Parts,
  ) {
    // More bindings than this would only make kernels with more live registers than is good for them.
    const maxBindings = Math.min(device.limits.maxStorageBuffersPerShaderStage, 16);
    this.limits = {
      maxBindings,
      packing: 'buffers',
      deviceMemory: BUDGET,
      epilogue: EPILOGUES,
      prologue: PROLOGUES,
    };
    this.pool = new Pool(device, USAGE.storage | USAGE.copySource | USAGE.copyTarget, 512 * MEGABYTE);
    this.staging = new Pool(device, USAGE.mapRead | USAGE.copyTarget, 64 * MEGABYTE);
    this.pipelines = new Pipelines(device);
    this.recipes = new Recipes(device, this.pipelines, parts, maxBindings, 'dynamic', Source);
    this.params = new ParamPages(device);
    const { pool, pipelines, made } = this;
    this.steps = parts.steps?.({ device, pool, pipelines, parts, made, maxBindings });
  }

  has(kernel: string): boolean {
    return this.parts.kernels.has(kernel);
  }

  run(commands: readonly Command[]): void {
    this.device.check();
    if (commands.length === 0) return;
    const recording = new Recording(this.device);
    let index = 0;
    try {
      for (; index < commands.length; index++) this.record(recording, commands[index]);
    } catch (cause) {
      throw new KernelFailure(index, cause);
    } finally {
      this.submit(recording);
    }
  }

  prepare(plan: Plan): Executable {
    this.device.check();
    if (!this.steps)
      throw new BackendError('weightloom/predict compiles no steps, the init of weightloom does');
    return this.steps.prepare(plan);
  }

  write(storage: Storage, values: TypedArray): void {
    this.device.check();
    if (values.length !== storage.size)
      throw new BackendError(
        `write: a storage of ${storage.size} elements was given ${values.length} values`,
      );
    const target = this.bind(storage);
    const array = ARRAYS[storage.dtype];
    const words = values instanceof array ? values : array.from(values);
    const { buffer, offset } = target;
    this.device.gpu.queue.writeBuffer(buffer, offset, words as TypedArray & ArrayBufferView<ArrayBuffer>);
  }

  async read(view: View): Promise<TypedArray> {
    this.device.check();
    const { dtype } = view.storage;
    const length = product(view.shape);
    if (length === 0) {
      await this.sync();
      return new ARRAYS[dtype](0);
    }
    const staging = this.snapshot(view, length);
    try {
      await this.told(staging.buffer.mapAsync(MAP_READ, 0, length * 4));
      const values = new ARRAYS[dtype](staging.buffer.getMappedRange(0, length * 4).slice(0));
      staging.buffer.unmap();
      this.staging.give(staging);
      this.staging.trim();
      await this.device.settle();
      return values;
    } catch (cause) {
      this.device.check();
      throw cause;
    }
  }

  readSync(_view: View): TypedArray {
    throw new BackendError('webgpu cannot read at once: await read (data(), item()) instead');
  }

  free(storage: Storage): void {
    const block = storage.memory as Block | null;
    if (!block) return;
    storage.memory = null;
    this.pool.give(block);
    this.pool.trim();
  }

  async sync(): Promise<void> {
    this.device.check();
    await this.told(this.device.gpu.queue.onSubmittedWorkDone());
    await this.device.settle();
  }

  private told<T>(news: Promise<T>): Promise<T> {
    return this.device.software && this.parts.asleep ? this.parts.asleep(news) : news;
  }

  describe(): Record<string, unknown> {
    const { info, limits, software, subgroup, name, gpu, tier } = this.device;
    return {
      adapter: name,
      vendor: info.vendor,
      architecture: info.architecture,
      software,
      subgroup,
      tunings: this.tuning.tiles.size,
      precision: tier?.precision ?? 'highest',
      ...(tier && { matrices: tier.matrices }),
      features: [...gpu.features].sort(),
      limits: { ...limits, maxBindings: this.limits.maxBindings },
      counters: {
        ...this.pipelines.made,
        ...this.made,
        buffers: this.pool.buffers + this.staging.buffers,
        bytes: this.pool.bytes + this.staging.bytes,
      },
    };
  }

  get tuning(): Tuning {
    return this.device.tuning;
  }

  retile(key: string, tiling: Tiling | null): void {
    if (tiling) this.tuning.tiles.set(key, tiling);
    else this.tuning.tiles.delete(key);
    this.recipes.clear();
    this.steps?.clear();
  }

  async timed(work: () => Promise<unknown>): Promise<number | null> {
    const { device } = this;
    if (!device.gpu.features.has('timestamp-query')) return null;
    if (device.timer) throw new BackendError('timed: a measurement is already running');
    if (!this.parts.timer) return null;
    const timer = this.parts.timer(device);
    device.timer = timer;
    try {
      await work();
      device.timer = null;
      return await timer.finish();
    } finally {
      device.timer = null;
      timer.dispose();
    }
  }

  dispose(): void {
    this.device.dispose();
  }

  /** Copies a view into a staging buffer, in queue order. */
  private snapshot(view: View, length: number): Block {
    const source = this.bound(view.storage, 'read');
    const staging = this.staging.take(length * 4);
    const recording = new Recording(this.device);
    if (isDense(view)) recording.copy(source, view.offset * 4, staging, length * 4);
    else {
      const dense = this.pool.take(length * 4);
      const storage = { ...view.storage, size: length, memory: dense };
      const target = {
        storage,
        shape: view.shape,
        strides: denseStrides(view.shape),
        offset: 0,
        generation: 0,
      };
      this.record(recording, { kernel: 'copy', op: 'read', outs: [target], ins: [view], attrs: {} });
      recording.copy(dense, 0, staging, length * 4);
      this.pool.give(dense);
    }
    this.submit(recording);
    return staging;
  }

  private record(
    recording: Recording,
    command: Command,
    blocks: readonly Block[] = this.blocksOf(command),
    offsets: readonly number[] = [...command.outs, ...command.ins].map(view => view.offset),
  ): void {
    const { device, pool, parts } = this;
    if (
      parts.ranges?.record(device, pool, command, blocks, offsets, (part, ...places) =>
        this.record(recording, part, places[0], places[1]),
      )
    )
      return;
    const operands = operandsOf(blocks, offsets);
    const { steps, temporaries } = this.recipes.of(command, operands);
    const scratch = temporaries.map(bytes => this.pool.take(bytes));
    const bySlot = [...operands.buffers, ...scratch];
    for (const step of steps) {
      const { source, params, x, y } = step;
      const pipeline = step.pipeline();
      const block = params.length > 0 ? this.params.put(params, offsets, immediatesOf(command)) : null;
      const used = source.slots.map(slot => bySlot[slot]);
      const group = this.pipelines.bindGroup(pipeline.layout, used, block);
      recording.dispatch(pipeline, group, block?.offset, x, y);
    }
    for (const block of scratch) this.pool.give(block);
  }

  private submit(recording: Recording): void {
    this.params.upload();
    recording.submit(this.made);
    this.pool.trim();
  }

  private blocksOf({ outs, ins, op }: Command): Block[] {
    return [...outs.map(y => this.bind(y.storage)), ...ins.map(x => this.bound(x.storage, op))];
  }

  /** The storage's memory, taken if there is none yet. */
  private bind(storage: Storage): Block {
    storage.memory ??= this.pool.take(storage.size * 4);
    return usable(storage.memory as Block);
  }

  /** The memory of a storage that is read. An empty one needs no writer. */
  private bound(storage: Storage, op: string): Block {
    if (storage.memory === null && storage.size > 0)
      throw new KernelError(
        `${op}: a storage of ${storage.size} elements is read before anything was written to it`,
      );
    return this.bind(storage);
  }
}
