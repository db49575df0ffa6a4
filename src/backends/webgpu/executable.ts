/** Compiled steps: everything resolved once, then only re-encoded. */
import type { Command, Executable, Plan, Storage, View } from '../../core/backend.js';
import { BackendError, KernelError } from '../../core/errors.js';
import type { Parts } from './backend.js';
import type { Device } from './device.js';
import { bundle } from './elementwise.js';
import { type Made, ParamPages, type ParamSlot, Recording } from './encoder.js';
import { type Block, type Pool, Scratch, usable } from './memory.js';
import type { Layout, Pipeline, Pipelines } from './pipelines.js';
import type { Run, Window } from './ranges.js';
import { immediatesOf, operandsOf, Recipes, type Step } from './recipes.js';
import { Source } from './source.js';

/** Buffers bound together, by their places in `blocks`. */
export interface Group {
  readonly layout: Layout;
  readonly uses: readonly number[];
  readonly params: ParamSlot | null;
  handle: GPUBindGroup | null;
}

/** A dispatch whose bind group is known. */
export interface Dispatch {
  readonly pipeline: Pipeline;
  readonly group: Group;
  readonly x: number;
  readonly y: number;
}

/** A dispatch whose group is not known yet. */
export interface Pending {
  readonly step: Step;
  readonly uses: readonly number[];
  readonly offsets: readonly number[];
  readonly command: Command;
}

/** Where a view lies: in a buffer, of which a region is its storage's alone. */
export interface Place {
  readonly buffer: object;
  readonly region: object;
  /** Where the region begins, in elements of the buffer. */
  readonly start: number;
  /** Where the view begins, in elements of the buffer. */
  readonly offset: number;
}

/** What a backend lends its prepared plans. */
export interface Services {
  readonly device: Device;
  readonly pool: Pool;
  readonly pipelines: Pipelines;
  readonly parts: Pick<Parts, 'kernels' | 'shaders' | 'ranges' | 'join'>;
  readonly made: Made;
  readonly maxBindings: number;
}

/** The prepared plans of one backend, and what they share. */
export class Steps {
  readonly recipes: Recipes;
  readonly scratch: Scratch;

  constructor(
    readonly services: Services,
    Kind: new () => Source = Source,
  ) {
    const { device, pool, pipelines, parts, maxBindings } = services;
    this.recipes = new Recipes(device, pipelines, parts, maxBindings, 'fixed', Kind);
    this.scratch = new Scratch(pool);
  }

  /** Makes a plan ready. */
  prepare(plan: Plan): Executable {
    return new PreparedPlan(plan, this);
  }

  /** Forgets how commands are computed: plans prepared from now on use what tuning found since. */
  clear(): void {
    this.recipes.clear();
  }
}

/** A plan whose pipelines, scratch buffers and bind groups exist: a run only re-encodes them, in one pass and submit. */
export class PreparedPlan implements Executable {
  protected readonly services: Services;
  protected readonly scratch: Block[];
  private readonly params: ParamPages;
  protected readonly externalAt = new Map<Storage, number>();
  /** For each external: the op that reads it before anything writes it, or null. */
  protected readonly firstReader: readonly (string | null)[];
  private temporaries: Block[] = [];
  /** Which of the externals, scratch blocks and temporaries are bound from a later byte on as well, behind those. */
  private windows: readonly Window<number>[] = [];
  private dispatches: readonly Dispatch[] = [];
  private groups: Group[] = [];
  /** The externals' buffers of the last run; null to have the next one resolve all anew. */
  protected bound: readonly Block[] | null = null;
  private layout = '';
  /** What groups bind: externals, scratch memory, temporaries, windows on them. */
  private blocks: readonly Block[] = [];

  /** `sizes` are those of the blocks of scratch memory. */
  constructor(
    protected readonly plan: Plan,
    private readonly steps: Steps,
    sizes = plan.buffers,
  ) {
    const { services, scratch } = steps;
    this.services = services;
    for (const [i, storage] of plan.externals.entries()) this.externalAt.set(storage, i);
    this.params = new ParamPages(services.device);
    this.scratch = scratch.take(sizes);
    this.firstReader = this.findFirstReaders();
  }

  run(externals: readonly Storage[]): void {
    const { device, made } = this.services;
    device.check();
    this.bind(externals);
    const recording = new Recording(device);
    this.record(recording, this.dispatches);
    recording.submit(made);
  }

  protected record(recording: Recording, dispatches: readonly Dispatch[]): void {
    for (const { pipeline, group, x, y } of dispatches)
      recording.dispatch(pipeline, group.handle!, undefined, x, y);
  }

  dispose(): void {
    this.steps.scratch.give(this.scratch.splice(0));
    for (const block of this.temporaries.splice(0)) this.services.pool.give(block);
    this.params.dispose();
    this.dispatches = [];
  }

  /** Makes the bind groups fit the externals' buffers. Does nothing while they stay the same. */
  private bind(externals: readonly Storage[]): void {
    const { plan, bound } = this;
    if (externals.length !== plan.externals.length)
      throw new BackendError(`a plan of ${plan.externals.length} externals was run with ${externals.length}`);
    const next = externals.map((storage, i) => this.blockOf(storage, i));
    for (const block of this.scratch) usable(block);
    if (bound && next.every((block, i) => block === bound[i])) return;
    this.gather(externals, next);
    if (!bound || !this.keeps(next, bound)) this.resolve(next);
    this.bound = null;
    const whole = [...next.map(block => block.home), ...this.scratch, ...this.temporaries];
    const { device, parts } = this.services;
    const blocks = parts.ranges?.places(device, whole, this.windows) ?? whole;
    for (const group of this.groups) {
      const { layout, uses, params, handle } = group;
      if (!handle || uses.some(use => blocks[use] !== this.blocks[use]))
        group.handle = this.services.pipelines.bindGroup(
          layout,
          uses.map(use => blocks[use]),
          params,
        );
    }
    this.blocks = blocks;
    this.bound = next;
  }

  /** Moves externals in memory. */
  protected gather(_externals: readonly Storage[], _blocks: Block[]): void {}

  /** True if the dispatches made for one set of blocks do for another. */
  protected keeps(next: readonly Block[], _bound: readonly Block[]): boolean {
    return layoutOf(next) === this.layout;
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

  /** Turns commands into dispatches. `bind` fills the buffers in. */
  private resolve(externals: readonly Block[]): void {
    const { pool, device, maxBindings, parts } = this.services;
    const { recipes } = this.steps;
    this.layout = layoutOf(externals);
    /** Bytes of each kernel's first, second, ... temporary, which all share. */
    const shared: { bytes: number }[] = [];
    const found: (Omit<Pending, 'uses'> & { readonly uses: readonly object[] })[] = [];
    const run: Run<object> = (command, buffers, offsets, regions) => {
      const operands = operandsOf(buffers, offsets);
      const { steps, temporaries } = recipes.of(command, operands, operandsOf(regions, offsets));
      temporaries.forEach((bytes, t) => {
        shared[t] ??= { bytes };
        shared[t].bytes = Math.max(shared[t].bytes, bytes);
      });
      const bySlot = [...operands.buffers, ...shared];
      for (const step of steps)
        found.push({ step, uses: step.source.slots.map(slot => bySlot[slot]), offsets, command });
    };
    const ranged = parts.ranges?.plan(device, run);
    const placesOf = ({ outs, ins }: Command) => [...outs, ...ins].map(view => this.placeOf(view, externals));
    const regionsOf = (command: Command) => placesOf(command).map(place => place.region);
    const joined = parts.join?.(device, this.plan.commands, placesOf, maxBindings) ?? this.plan.commands;
    for (const command of bundle(joined, regionsOf, maxBindings)) {
      const places = placesOf(command);
      (ranged?.run ?? run)(
        command,
        places.map(place => place.buffer),
        places.map(place => place.offset),
        places.map(place => place.region),
      );
    }
    const { temporaries = [], windows = [] } = { ...ranged };
    const homes = externals.map(block => block.home);
    const used: object[] = [...homes, ...this.scratch, ...shared, ...temporaries, ...windows];
    const at = new Map(used.map((object, i) => [object, i]));
    this.windows = windows.map(({ of, start }) => ({ of: at.get(of)!, start }));
    this.groups = [];
    this.dispatches = this.assign(
      found.map(one => ({ ...one, uses: one.uses.map(object => at.get(object)!) })),
    );
    this.params.upload();
    device.check();
    for (const block of this.temporaries) pool.give(block);
    this.temporaries = [...shared, ...temporaries].map(({ bytes }) => pool.take(bytes));
  }

  /** Gives each dispatch its group and its pipeline. */
  protected assign(pending: readonly Pending[]): Dispatch[] {
    return pending.map(one => this.alone(one));
  }

  /** A dispatch with a group of its own. */
  protected alone({ step, uses, offsets, command }: Pending): Dispatch {
    const { params, x, y } = step;
    const block = params.length > 0 ? this.params.put(params, offsets, immediatesOf(command)) : null;
    const pipeline = step.pipeline();
    return { pipeline, group: this.group(pipeline.layout, uses, block), x, y };
  }

  /** Adds a group. */
  protected group(layout: Layout, uses: readonly number[], params: ParamSlot | null): Group {
    const group = { layout, uses, params, handle: null };
    this.groups.push(group);
    return group;
  }

  protected placeOf(view: View, externals: readonly Block[]): Place {
    const { storage, offset } = view;
    const external = this.externalAt.get(storage);
    const place = this.plan.places.get(storage);
    if (external === undefined && !place)
      throw new BackendError('a plan uses a storage that is neither external nor placed');
    const region = place ? this.scratch[place.buffer] : externals[external!];
    const start = place ? 0 : region.offset / 4;
    return { buffer: region.home, region, start, offset: start + offset + (place ? place.offset / 4 : 0) };
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

/** Where the externals' memory is, as far as kernels depend on it. */
const layoutOf = (externals: readonly Block[]): string =>
  externals
    .map(({ home, offset }) => `${externals.findIndex(other => other.home === home)}+${offset}`)
    .join();
