/** Shader text to pipelines, buffers to bind groups: both cached, both counted. */
import { MemoryError, type WeightloomError } from '../../core/errors.js';
import type { Device } from './device.js';
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

export interface Layout {
  readonly id: number;
  readonly group: GPUBindGroupLayout;
  readonly plain: GPUPipelineLayout;
  /** With a parameter block as group 1. */
  readonly withParams: GPUPipelineLayout;
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
  /** The layout of group 1: a parameter block at a dynamic offset. */
  readonly paramsLayout: GPUBindGroupLayout;
  /** Made so far. */
  made = { pipelines: 0, bindGroups: 0 };

  constructor(private readonly device: Device) {
    this.paramsLayout = device.gpu.createBindGroupLayout({
      entries: [
        {
          binding: 0,
          visibility: COMPUTE_STAGE,
          buffer: { type: 'uniform', hasDynamicOffset: true, minBindingSize: MAX_PARAMS * 4 },
        },
      ],
    });
  }

  /**
   * The pipeline of a shader whose bindings have `signature` ('w' read and written, 'r' read, in order), with or without
   * a parameter block. A mistake in the text is told by the next read, or by the next use of the pipeline.
   */
  pipeline(code: string, signature: string, params: boolean, what: string): Pipeline {
    const known = this.pipelines.get(code);
    if (known) return known;
    const { gpu } = this.device;
    const layout = this.layout(signature);
    const make = (): Pipeline => {
      const module = gpu.createShaderModule({ code });
      const descriptor = {
        layout: params ? layout.withParams : layout.plain,
        compute: { module, entryPoint: 'main' },
      };
      return { handle: gpu.createComputePipeline(descriptor), layout, error: null };
    };
    const pipeline = this.device.guard('validation', what, make, (made, error) => {
      made.error = error;
    });
    this.made.pipelines++;
    return this.pipelines.set(code, pipeline);
  }

  /** Throws MemoryError if too many had to be made without the event loop coming round. */
  bindGroup(layout: Layout, blocks: readonly Block[]): GPUBindGroup {
    let key = `${layout.id}`;
    for (const block of blocks) key += `,${block.id}`;
    const known = this.groups.get(key);
    if (known) return known;
    this.countInTask();
    this.made.bindGroups++;
    const entries = blocks.map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
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

  private layout(signature: string): Layout {
    const known = this.layouts.get(signature);
    if (known) return known;
    const { gpu } = this.device;
    const group = gpu.createBindGroupLayout({
      entries: [...signature].map((mode, binding) => ({
        binding,
        visibility: COMPUTE_STAGE,
        buffer: { type: mode === 'w' ? 'storage' : 'read-only-storage' },
      })),
    });
    const layout = {
      id: this.layouts.size,
      group,
      plain: gpu.createPipelineLayout({ bindGroupLayouts: [group] }),
      withParams: gpu.createPipelineLayout({ bindGroupLayouts: [group, this.paramsLayout] }),
    };
    this.layouts.set(signature, layout);
    return layout;
  }
}
