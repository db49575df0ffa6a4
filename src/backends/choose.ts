/** Which machine runs the kernels: opens a backend and puts it in use. The same wherever it runs. */
import type { Backend } from '../core/backend.js';
import { ArgumentError, DeviceLimitError, NativeLoadError, NoAdapterError } from '../core/errors.js';
import { use } from '../core/tensor.js';
import { createRef, type RefOptions } from './ref.js';
import type { Precision } from './webgpu/device.js';

export type BackendName = 'auto' | 'ref' | 'cpu' | 'webgpu';

export interface InitOptions extends RefOptions {
  /** 'auto' (default, or WEIGHTLOOM_BACKEND): a real GPU, else the native CPU kernels, else TypeScript. */
  readonly backend?: BackendName;
  /** Threads of the cpu backend; the machine's cores unless given (or WEIGHTLOOM_THREADS). */
  readonly threads?: number;
  /**
   * The least exactness of products that will do: 'highest' (default, f32), 'high' (f32's from f16 tensor cores) or
   * 'medium' (operands rounded to f16, sums in f32). What lies below 'highest' is had of webgpu on fitting adapters alone
   * and refused elsewhere; `describe().precision` tells which is in use.
   */
  readonly precision?: Precision;
}

/** Every `precision`, the most exact first. */
export const PRECISIONS: readonly Precision[] = ['highest', 'high', 'medium'];

/** What differs between Node and browsers. Openers reject with the reason a backend cannot be had. */
export interface Runtime {
  readonly cpu: (options: InitOptions) => Promise<Backend>;
  readonly webgpu: (options: InitOptions) => Promise<Backend>;
  /** False where a real GPU is out of the question, so that `auto` need not wake a driver to find that out. */
  readonly mayHaveGpu: () => boolean;
}

/** Opens one backend without putting it in use; see `open` in init.ts. */
export async function openOn(
  runtime: Runtime,
  name: Exclude<BackendName, 'auto'>,
  options: InitOptions = {},
): Promise<Backend> {
  checkPrecision(options.precision, name);
  switch (name) {
    case 'ref':
      return createRef(options);
    case 'cpu':
      return runtime.cpu(options);
    case 'webgpu':
      return runtime.webgpu(options);
    default:
      throw new ArgumentError(`backend '${name}' is none of auto, ref, cpu, webgpu`);
  }
}

function checkPrecision(precision: Precision = 'highest', backend: string): void {
  if (!PRECISIONS.includes(precision))
    throw new ArgumentError(`precision '${precision}' is none of ${PRECISIONS.join(', ')}`);
  if (precision !== 'highest' && (backend === 'cpu' || backend === 'ref'))
    throw new DeviceLimitError(
      `precision '${precision}' needs the tensor cores of a GPU; backend '${backend}' has 'highest' alone`,
    );
}

/** Opens a backend and puts it in use; see `init` in init.ts. */
export async function initOn(runtime: Runtime, options: InitOptions = {}): Promise<Backend> {
  const wanted = options.backend ?? (globalThis.process?.env?.WEIGHTLOOM_BACKEND || 'auto');
  const name = wanted as BackendName;
  const backend = name === 'auto' ? await best(runtime, options) : await openOn(runtime, name, options);
  use(backend);
  return backend;
}

/** The fastest backend here. A software WebGPU adapter is never chosen. */
async function best(runtime: Runtime, options: InitOptions): Promise<Backend> {
  const gpu = runtime.mayHaveGpu() ? await orNull(() => openOn(runtime, 'webgpu', options)) : null;
  if (gpu && !gpu.describe().software) return gpu;
  gpu?.dispose();
  return (await orNull(() => openOn(runtime, 'cpu', options))) ?? openOn(runtime, 'ref', options);
}

async function orNull(make: () => Promise<Backend>): Promise<Backend | null> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof NativeLoadError || error instanceof NoAdapterError) return null;
    throw error;
  }
}
