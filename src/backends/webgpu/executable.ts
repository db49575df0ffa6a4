/** Compiled steps: everything resolved once, then only re-encoded. */
import type { Command, Executable, Plan, Storage, View } from '../../core/backend.js';
import { BackendError, KernelError } from '../../core/errors.js';
import type { Device } from './device.js';
import { bundle } from './elementwise.js';
import { groupOf, type Made, ParamPages, type ParamSlot, Recording } from './encoder.js';
import { type Block, type Pool, type Scratch, usable } from './memory.js';
import type { Pipeline, Pipelines } from './pipelines.js';
import { immediatesOf, operandsOf, type Recipes } from './recipes.js';

interface Dispatch {
  readonly pipeline: Pipeline;
  /** Places in `blocks` of the buffers it binds. */
  readonly uses: readonly number[];
  readonly params: ParamSlot | null;
  readonly x: number;
  readonly y: number;
  group: GPUBindGroup | null;
}

/** What a backend lends its prepared plans. */
export interface Services {
  readonly device: Device;
  readonly pool: Pool;
  readonly pipelines: Pipelines;
  readonly recipes: Recipes;
  readonly scratch: Scratch;
  readonly made: Made;
  readonly maxBindings: number;
}

/** A plan whose pipelines, scratch buffers and bind groups exist: a run only re-encodes them, in one pass and submit. */
export class PreparedPlan implements Executable {
  private readonly scratch: Block[];
  private readonly params: ParamPages;
  private readonly externalAt = new Map<Storage, number>();
  /** For each external: the op that reads it before anything writes it, or null. */
  private readonly firstReader: (string | null)[];
  private temporaries: Block[] = [];
  private dispatches: Dispatch[] = [];
  /** The externals' buffers of the last run. */
  private bound: readonly Block[] | null = null;
  /** Which externals share a buffer, as text: kernels depend on it. */
  private aliases = '';

  constructor(
    private readonly plan: Plan,
    private readonly services: Services,
  ) {
    const { device, scratch } = services;
    for (const [i, storage] of plan.externals.entries()) this.externalAt.set(storage, i);
    this.params = new ParamPages(device);
    this.scratch = scratch.take(plan.buffers);
    this.firstReader = this.findFirstReaders();
    // Pipelines are made now, as if no two externals shared a buffer; which buffers they have is known at a run.
    this.resolve(plan.externals);
  }

  run(externals: readonly Storage[]): void {
    const { device, made } = this.services;
    device.check();
    this.bind(externals);
    const recording = new Recording(device);
    for (const { pipeline, group, x, y } of this.dispatches) recording.dispatch(pipeline, group!, null, x, y);
    recording.submit(made);
  }

  dispose(): void {
    this.services.scratch.give(this.scratch.splice(0));
    for (const block of this.temporaries.splice(0)) this.services.pool.give(block);
    this.params.dispose();
    this.dispatches = [];
  }

  /** Makes the bind groups fit the externals' buffers. Does nothing while they stay the same. */
  private bind(externals: readonly Storage[]): void {
    const { plan, bound: previous } = this;
    if (externals.length !== plan.externals.length)
      throw new BackendError(`a plan of ${plan.externals.length} externals was run with ${externals.length}`);
    const bound = externals.map((storage, i) => this.blockOf(storage, i));
    for (const block of this.scratch) usable(block);
    if (previous && bound.every((block, i) => block === previous[i])) return;
    if (aliasesOf(bound) !== this.aliases) this.resolve(bound);
    this.bound = bound;
    const blocks = [...bound, ...this.scratch, ...this.temporaries];
    for (const dispatch of this.dispatches) {
      const same =
        previous && dispatch.uses.every(use => use >= bound.length || bound[use] === previous[use]);
      if (dispatch.group && same) continue;
      const { pipeline, uses, params } = dispatch;
      dispatch.group = groupOf(this.services.pipelines, pipeline, uses, blocks, params);
    }
  }

  private blockOf(storage: Storage, i: number): Block {
    const planned = this.plan.externals[i];
    if (storage.size !== planned.size || storage.dtype !== planned.dtype)
      throw new BackendError(
        `external ${i} must hold ${planned.size} ${planned.dtype}, got ${storage.size} ${storage.dtype}`,
      );
    if (storage.memory === null) {
      const reader = this.firstReader[i];
      if (reader && storage.size > 0)
        throw new KernelError(`${reader}: external ${i} is read before anything was written to it`);
      storage.memory = this.services.pool.take(storage.size * 4);
    }
    return usable(storage.memory as Block);
  }

  /** Turns commands into dispatches. `externals` tell by identity which share a buffer; `bind` fills the buffers in. */
  private resolve(externals: readonly object[]): void {
    const { pool, recipes, device, maxBindings } = this.services;
    this.aliases = aliasesOf(externals);
    const buffers = [...externals, ...this.scratch];
    const temporaryBytes: number[] = [];
    this.dispatches = [];
    const buffersOf = ({ outs, ins }: Command) =>
      [...outs, ...ins].map(view => this.placeOf(view, externals).buffer);
    for (const command of bundle(this.plan.commands, buffersOf, maxBindings)) {
      const places = [...command.outs, ...command.ins].map(view => this.placeOf(view, externals));
      const offsets = places.map(place => place.offset);
      const operands = operandsOf(
        places.map(place => place.buffer),
        offsets,
      );
      const { steps, temporaries } = recipes.of(command, operands);
      temporaries.forEach((bytes, t) => {
        temporaryBytes[t] = Math.max(temporaryBytes[t] ?? 0, bytes);
      });
      const known = operands.buffers.length;
      const at = (slot: number) =>
        slot < known ? buffers.indexOf(operands.buffers[slot]) : buffers.length + slot - known;
      for (const { pipeline, slots, params, x, y } of steps) {
        const block = params.length > 0 ? this.params.put(params, offsets, immediatesOf(command)) : null;
        this.dispatches.push({ pipeline, uses: slots.map(at), params: block, x, y, group: null });
      }
    }
    this.params.upload();
    device.check();
    for (const block of this.temporaries) pool.give(block);
    this.temporaries = temporaryBytes.map(bytes => pool.take(bytes));
  }

  /** The buffer of a view and its offset there, in elements. */
  private placeOf(view: View, externals: readonly object[]): { buffer: object; offset: number } {
    const external = this.externalAt.get(view.storage);
    if (external !== undefined) return { buffer: externals[external], offset: view.offset };
    const place = this.plan.places.get(view.storage);
    if (!place) throw new BackendError('a plan uses a storage that is neither external nor placed');
    return { buffer: this.scratch[place.buffer], offset: view.offset + place.offset / 4 };
  }

  private findFirstReaders(): (string | null)[] {
    const touched = new Map<Storage, string | null>();
    for (const { outs, ins, op } of this.plan.commands) {
      for (const { storage } of ins) if (!touched.has(storage)) touched.set(storage, op);
      for (const { storage } of outs) if (!touched.has(storage)) touched.set(storage, null);
    }
    return this.plan.externals.map(storage => touched.get(storage) ?? null);
  }
}

/** '' if all differ. */
const aliasesOf = (buffers: readonly object[]): string =>
  new Set(buffers).size === buffers.length ? '' : buffers.map(buffer => buffers.indexOf(buffer)).join();
