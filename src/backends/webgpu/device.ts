/** How a WebGPU device is had, what it can do, and how its asynchronous failures reach the next call. */
import {
  DeviceLimitError,
  DeviceLostError,
  DisposedError,
  KernelError,
  MemoryError,
  NoAdapterError,
  type WeightloomError,
} from '../../core/errors.js';

import type { Call, Pass } from './kernel.js';
import type { Product } from './matmul.js';
import type { Tuning } from './tiling.js';
import type { PassTimer } from './timer.js';

/** The limits asked for, as far as the adapter grants them. */
const WANTED = [
  'maxStorageBuffersPerShaderStage',
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupsPerDimension',
  'minUniformBufferOffsetAlignment',
] as const satisfies (keyof GPUSupportedLimits)[];

/** The features asked for where the adapter has them: the device's clock for measurements, and subgroups. */
const WANTED_FEATURES: readonly GPUFeatureName[] = ['timestamp-query', 'subgroups'];

/**
 * How exact products are. 'highest': in f32. 'high': as exact as f32, from tensor cores that multiply f16 parts.
 * 'medium': of operands rounded to f16, with sums in f32. Small products are in f32 in any case.
 */
export type Precision = 'highest' | 'high' | 'medium';

/** A precision below 'highest' on one adapter. */
export interface Tier {
  readonly precision: Precision;
  /** The matrices it multiplies, for people. */
  readonly matrices: string;
  /** Features the device must be opened with. */
  readonly features: readonly GPUFeatureName[];
  /** The passes of a product; null where it is better computed in f32. */
  readonly multiply: (device: Device, call: Call, p: Product) => Pass[] | null;
}

type Limits = Record<(typeof WANTED)[number], number>;

/** A device with its traits, and the first failure nobody has been told of yet. */
export class Device {
  private failure: WeightloomError | null = null;
  /** True if `failure` may be the consequence of one that is still to be told. */
  private vague = false;
  private disposed = false;
  private readonly guards = new Set<Promise<void>>();
  /** Takes the times of passes while a measurement runs. */
  timer: PassTimer | null = null;
  /** The tier's products, if there is one: see `Call`. */
  readonly multiply?: Call['multiply'];
  readonly tuning: Tuning = { tiles: new Map(), seen: null };
  /** See `Call`. */
  readonly subgroup: number;
  /** The most bytes of a tensor: what one binding holds, where kernels are not run in ranges. */
  largest: number;

  private constructor(
    readonly gpu: GPUDevice,
    readonly info: GPUAdapterInfo,
    readonly limits: Limits,
    /** True if the adapter runs on the CPU: shared memory and barriers cost there and gain nothing. */
    readonly software: boolean,
    readonly tier?: Tier,
    subgroups = true,
  ) {
    const { subgroupMinSize, subgroupMaxSize } = info;
    this.largest = limits.maxStorageBufferBindingSize;
    this.subgroup =
      subgroups && gpu.features.has('subgroups') && subgroupMinSize === subgroupMaxSize ? subgroupMaxSize : 0;
    if (tier) this.multiply = (call, p) => tier.multiply(this, call, p);
    gpu.addEventListener('uncapturederror', event => {
      event.preventDefault();
      this.fail(typed(event.error, 'WebGPU'), true);
    });
    void gpu.lost.then(({ message }) => {
      if (!this.disposed) this.fail(new DeviceLostError(`the WebGPU device was lost: ${message}`));
    });
  }

  /** Asks for an adapter and a device. Throws NoAdapterError with the reason, and what `tierOf` throws. */
  static async open(
    gpu: GPU,
    options: { powerPreference?: GPUPowerPreference; software?: boolean; subgroups?: boolean },
    tierOf?: (adapter: GPUAdapter) => Tier,
  ): Promise<Device> {
    const adapter = await gpu.requestAdapter({
      powerPreference: options.powerPreference ?? 'high-performance',
    });
    if (!adapter)
      throw new NoAdapterError('WebGPU is present but offers no adapter (is a Vulkan driver installed?)');
    const tier = tierOf?.(adapter);
    const limits = Object.fromEntries(WANTED.map(name => [name, adapter.limits[name]])) as Limits;
    let device: GPUDevice;
    try {
      device = await adapter.requestDevice({
        requiredLimits: limits,
        requiredFeatures: [
          ...new Set([
            ...WANTED_FEATURES.filter(feature => adapter.features.has(feature)),
            ...(tier?.features ?? []),
          ]),
        ],
      });
    } catch (cause) {
      throw new NoAdapterError(`the adapter '${nameOf(adapter.info)}' gave no device: ${cause}`, { cause });
    }
    const emulated = adapter.info.isFallbackAdapter || /llvmpipe|swiftshader/i.test(nameOf(adapter.info));
    return new Device(device, adapter.info, limits, options.software ?? emulated, tier, options.subgroups);
  }

  get name(): string {
    return nameOf(this.info);
  }

  /** Keeps a failure for the next `check`. A lost device stays lost; of other failures the first precise one is told. */
  private fail(error: WeightloomError, vague = false): void {
    if (this.failure && !(error instanceof DeviceLostError) && (vague || !this.vague)) return;
    this.failure = error;
    this.vague = vague;
  }

  /**
   * Throws what failed since the last check. Dawn tells the consequences of an error before the error itself: while
   * that may be on its way, a vague failure waits.
   */
  check(): void {
    if (this.disposed) throw new DisposedError('the WebGPU backend was disposed');
    const failure = this.failure;
    if (!failure || (this.vague && this.guards.size > 0)) return;
    if (!(failure instanceof DeviceLostError)) this.failure = null;
    throw failure;
  }

  /**
   * Runs `make`. An error of this kind it causes becomes a KernelError or MemoryError that starts with `what`, kept for
   * the next `check` and given to `onError`.
   */
  guard<T>(
    kind: 'validation' | 'out-of-memory',
    what: string,
    make: () => T,
    onError: (made: T, error: WeightloomError) => void,
  ): T {
    this.gpu.pushErrorScope(kind);
    const made = make();
    const told = this.gpu.popErrorScope().then(
      error => {
        if (!error) return;
        const precise = typed(error, what);
        this.fail(precise);
        onError(made, precise);
      },
      () => {
        // The scope of a lost device is rejected; `lost` tells that.
      },
    );
    this.guards.add(told);
    void told.then(() => this.guards.delete(told));
    return made;
  }

  /** Waits until all guards have told their errors, and checks. */
  async settle(): Promise<void> {
    await Promise.all(this.guards);
    this.check();
  }

  /** Throws DeviceLimitError if a tensor cannot have `bytes`. */
  checkSize(bytes: number): void {
    if (bytes > this.largest)
      throw new DeviceLimitError(`a tensor of ${bytes} bytes: '${this.name}' takes at most ${this.largest}`);
  }

  dispose(): void {
    this.disposed = true;
    this.gpu.destroy();
  }
}

const nameOf = (info: GPUAdapterInfo): string =>
  info.description || [info.vendor, info.architecture].filter(Boolean).join(' ') || 'unnamed adapter';

function typed(error: GPUError, what: string): WeightloomError {
  const text = `${what}: ${error.message}`;
  return error.constructor.name === 'GPUOutOfMemoryError' ? new MemoryError(text) : new KernelError(text);
}
