/** Shader text to pipelines, buffers to bind groups: both cached, both counted. */
import { MemoryError, type WeightloomError } from '../../core/errors.js';
import type { Device } from './device.js';
import type { ParamSlot } from './encoder.js';
import { type Block, Lru } from './memory.js';
import { MAX_PARAMS } from './source.js';

const PIPELINES = 4096;
/**
 * Drivers crash at tens of thousands of live bind groups (lavapipe at 60,000). Few are kept; but those dropped live on
 * until the garbage collector finalizes them, which it does only between tasks of the event loop.
 */
const BIND_GROUPS = 4096;
const BIND_GROUPS_PER_TASK = 32768;
const COMPUTE_STAGE = 0x4;
const PARAM_BYTES = MAX_PARAMS * 4;

/**
 * Where the parameter block of a dispatch lies, the last binding of the one group there is: at an offset that its bind
 * group fixes, which makes the cheapest replay, or that is given with each dispatch.
 */
export type ParamsAt = 'fixed' | 'dynamic';

export interface Layout {
  readonly id: number;
  readonly group: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
  readonly params: ParamsAt | null;
}

export interface Pipeline {
  readonly handle: GPUComputePipeline;
  readonly layout: Layout;
  /** Why it cannot be used, once that is known. */
  error: WeightloomError | null;
}

/** The caches of pipelines (by shader text) and bind groups (by buffers). */
export class Pipelines {
  private readonly layouts = new Map<string, Layout>();
  private readonly pipelines = new Lru<string, Pipeline>(PIPELINES);
  private readonly groups = new Lru<string, GPUBindGroup>(BIND_GROUPS);
  private madeInTask = 0;
  /** Made so far. */
  made = { pipelines: 0, bindGroups: 0 };

  constructor(private readonly device: Device) {}

  /**
   * The pipeline of a shader whose bindings have `signature` ('w' read and written, 'r' read, in order), with a parameter
   * block behind them unless `params` is null. A mistake in the text is told by the next read, or by the next use of the
   * pipeline.
   */
  pipeline(code: string, signature: string, params: ParamsAt | null, what: string): Pipeline {
    const key = `${signature} ${params} ${code}`;
    const known = this.pipelines.get(key);
    if (known) return known;
    const { gpu } = this.device;
    const layout = this.layout(signature, params);
    const make = (): Pipeline => {
      const module = gpu.createShaderModule({ code });
      const descriptor = {
        layout: layout.pipeline,
        compute: { module, entryPoint: 'main' },
      };
      return { handle: gpu.createComputePipeline(descriptor), layout, error: null };
    };
    const pipeline = this.device.guard('validation', what, make, (made, error) => {
      made.error = error;
    });
    this.made.pipelines++;
    return this.pipelines.set(key, pipeline);
  }

  /** Throws MemoryError if too many had to be made without the event loop coming round. */
  bindGroup(layout: Layout, blocks: readonly Block[], params: ParamSlot | null): GPUBindGroup {
    let key = `${layout.id}`;
    for (const block of blocks) key += `,${block.id}`;
    const fixed = layout.params === 'fixed';
    if (params) key += `;${params.page.id}${fixed ? `+${params.offset}` : ''}`;
    const known = this.groups.get(key);
    if (known) return known;
    this.countInTask();
    this.made.bindGroups++;
    const resources: GPUBufferBinding[] = blocks.map(({ buffer, offset, bytes }) => ({
      buffer,
      offset,
      size: bytes,
    }));
    if (params) {
      const { page, offset, bytes } = params;
      resources.push({ buffer: page.buffer, ...(fixed ? { offset, size: bytes } : { size: PARAM_BYTES }) });
    }
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    return this.groups.set(key, this.device.gpu.createBindGroup({ layout: layout.group, entries }));
  }

  private countInTask(): void {
    if (this.madeInTask++ === 0) {
      const timer: unknown = setTimeout(() => {
        this.madeInTask = 0;
      }, 0);
      // Node's timers would keep the process alive; the browser's are numbers.
      (timer as { unref?: () => void }).unref?.();
    }
    if (this.madeInTask > BIND_GROUPS_PER_TASK)
      throw new MemoryError(
        `${BIND_GROUPS_PER_TASK} bindings of buffers were made in one task of the event loop, which frees none of them: await sync() or a read now and then`,
      );
  }

  private layout(signature: string, params: ParamsAt | null): Layout {
    const key = `${signature} ${params}`;
    const known = this.layouts.get(key);
    if (known) return known;
    const { gpu } = this.device;
    const buffers = [...signature].map(
      (mode): GPUBufferBindingLayout => ({ type: mode === 'w' ? 'storage' : 'read-only-storage' }),
    );
    if (params === 'fixed') buffers.push({ type: 'uniform' });
    if (params === 'dynamic')
      buffers.push({ type: 'uniform', hasDynamicOffset: true, minBindingSize: PARAM_BYTES });
    const group = gpu.createBindGroupLayout({
      entries: buffers.map((buffer, binding) => ({ binding, visibility: COMPUTE_STAGE, buffer })),
    });
    const pipeline = gpu.createPipelineLayout({ bindGroupLayouts: [group] });
    const layout = { id: this.layouts.size, group, pipeline, params };
    this.layouts.set(key, layout);
    return layout;
  }
}
