/** Recording of dispatches into one command buffer, with their parameter blocks. */
import type { Device } from './device.js';
import { type Block, USAGE } from './memory.js';
import type { Pipeline } from './pipelines.js';
import { MAX_PARAMS, type Param } from './source.js';

/** A page holds more blocks than one run of commands is likely to need: bind groups differ from page to page. */
const PAGE_WORDS = 32768;

interface Page {
  /** What bind groups are cached by. */
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly words: Uint32Array<ArrayBuffer>;
  used: number;
}

/** Where a dispatch finds its parameter block, in bytes. */
export interface ParamSlot {
  readonly page: Pick<Page, 'id' | 'buffer'>;
  readonly offset: number;
  readonly bytes: number;
}

let pagesMade = 0;

/** Parameter blocks, collected on the host and uploaded together in front of the work that reads them. */
export class ParamPages {
  private readonly pages: Page[] = [];
  private current = 0;
  private readonly alignWords: number;

  constructor(private readonly device: Device) {
    this.alignWords = Math.max(1, device.limits.minUniformBufferOffsetAlignment / 4);
  }

  /** Adds a block. It is on the device after the next `upload`. */
  put(params: readonly Param[], offsets: readonly number[], immediates: readonly number[]): ParamSlot {
    let page = this.pages[this.current];
    if (page && page.used + MAX_PARAMS > PAGE_WORDS) page = this.pages[++this.current];
    if (!page) this.pages[this.current] = page = this.newPage();
    const start = page.used;
    params.forEach((param, i) => {
      page.words[start + i] = wordOf(param, offsets, immediates);
    });
    page.used = Math.ceil((start + params.length) / this.alignWords) * this.alignWords;
    return { page, offset: start * 4, bytes: params.length * 4 };
  }

  /** Queues the upload of what was added since the last one, and starts over. */
  upload(): void {
    for (const page of this.pages) {
      if (page.used > 0) this.device.gpu.queue.writeBuffer(page.buffer, 0, page.words, 0, page.used);
      page.used = 0;
    }
    this.current = 0;
  }

  dispose(): void {
    for (const page of this.pages) page.buffer.destroy();
    this.pages.length = 0;
  }

  private newPage(): Page {
    const { gpu } = this.device;
    const buffer = gpu.createBuffer({ size: PAGE_WORDS * 4, usage: USAGE.uniform | USAGE.copyTarget });
    return { id: pagesMade++, buffer, words: new Uint32Array(PAGE_WORDS), used: 0 };
  }
}

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

/** The bits of a parameter. */
export function wordOf(param: Param, offsets: readonly number[], immediates: readonly number[]): number {
  if (param.kind === 'size') return param.value;
  if (param.kind === 'offset') return offsets[param.operand];
  floats[0] = immediates[param.index];
  return bits[0];
}

/** Work submitted so far. */
export interface Made {
  submits: number;
  passes: number;
  dispatches: number;
}

/** One command encoder with one compute pass, each begun when it is first needed. */
export class Recording {
  private encoder: GPUCommandEncoder | null = null;
  private pass: GPUComputePassEncoder | null = null;
  private pipeline: Pipeline | null = null;
  private passes = 0;
  private dispatches = 0;

  constructor(private readonly device: Device) {}

  /** The pass, in which so many dispatches are about to be recorded. */
  open(dispatches: number): GPUComputePassEncoder {
    this.dispatches += dispatches;
    return (this.pass ??= this.beginPass());
  }

  /** `offset` is that of the parameter block, where the pipeline's layout has one. */
  dispatch(pipeline: Pipeline, group: GPUBindGroup, offset: number | undefined, x: number, y: number): void {
    if (pipeline.error) throw pipeline.error;
    const pass = this.open(1);
    if (pipeline !== this.pipeline) pass.setPipeline(pipeline.handle);
    this.pipeline = pipeline;
    pass.setBindGroup(0, group, offset === undefined ? [] : [offset]);
    pass.dispatchWorkgroups(x, y);
  }

  copy(from: Block, fromByte: number, to: Block, bytes: number): void {
    this.endPass();
    this.begin().copyBufferToBuffer(from.buffer, from.offset + fromByte, to.buffer, to.offset, bytes);
  }

  /** Submits what was recorded, if anything, and counts it. */
  submit(made: Made): void {
    this.endPass();
    if (!this.encoder) return;
    this.device.gpu.queue.submit([this.encoder.finish()]);
    made.submits++;
    made.passes += this.passes;
    made.dispatches += this.dispatches;
  }

  private beginPass(): GPUComputePassEncoder {
    this.passes++;
    const timestampWrites = this.device.timer?.next();
    return this.begin().beginComputePass(timestampWrites && { timestampWrites });
  }

  private begin(): GPUCommandEncoder {
    return (this.encoder ??= this.device.gpu.createCommandEncoder());
  }

  private endPass(): void {
    this.pass?.end();
    this.pass = null;
    this.pipeline = null;
  }
}
