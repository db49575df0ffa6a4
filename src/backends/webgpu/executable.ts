/** Compiled steps: everything resolved once, then only re-encoded. */
import type { Command, Executable, Plan, Storage, View } from '../../core/backend.js';
import { BackendError, KernelError } from '../../core/errors.js';
import type { Parts } from './backend.js';
import type { Device } from './device.js';
import { bundle } from './elementwise.js';
import { type Made, ParamPages, type ParamSlot, Recording, wordOf } from './encoder.js';
import { gather, Scratch, startsOf } from './gather.js';
import { type Block, type Pool, usable } from './memory.js';
import type { Layout, Pipeline, Pipelines } from './pipelines.js';
import { immediatesOf, operandsOf, Recipes, type Step } from './recipes.js';
import { type Places, SharedSource } from './shared.js';

/**
 * Steps whose scratch memory takes so many bytes at most have it in one buffer, so that dispatches bind less. That costs a
 * GPU the overlap of dispatches that do not depend on each other; with so little data the CPU is what is waited for (a GPU
 * streams 16 MiB in 4 us, the time of two dispatches).
 */
const ARENA = 16 << 20;
/**
 * After so many runs neighbouring dispatches of such a step share a bind group, which takes the parameters into the texts
 * of the shaders. That saves the CPU about 0.7 us a dispatch at each run, and costs it once the compilation of a shader,
 * some milliseconds; on software adapters, whose own work dwarfs it, nothing is gained.
 */
const SETTLED = 4096;
/** A step that occurs more often keeps its one text: many would be compiled for it. */
const TEXTS = 2;

/** Buffers bound together, by their places in `blocks`. */
interface Group {
  readonly layout: Layout;
  readonly uses: readonly number[];
  readonly params: ParamSlot | null;
  handle: GPUBindGroup | null;
}

interface Dispatch {
  readonly pipeline: Pipeline;
  readonly group: Group;
  readonly x: number;
  readonly y: number;
}

/** A dispatch whose group is not known yet. */
interface Pending {
  readonly step: Step;
  readonly uses: readonly number[];
  readonly offsets: readonly number[];
  readonly immediates: readonly number[];
  /** Its source, if nothing but the number of texts speaks against a shared group. */
  readonly sharable: SharedSource | null;
}

/** An external's memory, or what stands for it as long as it has none. */
type Bound = Pick<Block, 'home' | 'offset'>;
const homeOf = (bound: Bound): object => bound.home ?? bound;

/** Dispatches that bind all that any of them uses. */
interface Shared {
  readonly uses: number[];
  readonly written: Set<number>;
  group: Group | null;
}

/** Where a view lies: in a buffer, of which a region is its storage's alone. */
interface Place {
  readonly buffer: object;
  readonly region: object;
  /** In elements, from the start of the buffer. */
  readonly offset: number;
}

/** What a backend lends its prepared plans. */
export interface Services {
  readonly device: Device;
  readonly pool: Pool;
  readonly pipelines: Pipelines;
  readonly parts: Pick<Parts, 'kernels' | 'shaders'>;
  readonly made: Made;
  readonly maxBindings: number;
}

/** The prepared plans of one backend, and what they share. */
export class Steps {
  readonly recipes: Recipes;
  readonly scratch: Scratch;

  /** `settled`: after how many runs a plan's dispatches share bind groups. */
  constructor(
    readonly services: Services,
    readonly settled = services.device.software ? Infinity : SETTLED,
  ) {
    const { device, pool, pipelines, parts, maxBindings } = services;
    this.recipes = new Recipes(device, pipelines, parts, maxBindings, 'fixed', SharedSource);
    this.scratch = new Scratch(pool);
  }

  prepare(plan: Plan): Executable {
    return new PreparedPlan(plan, this);
  }

  /** Forgets how commands are computed: plans prepared from now on use what tuning found since. */
  clear(): void {
    this.recipes.clear();
  }
}

/** A plan whose pipelines, scratch buffers and bind groups exist: a run only re-encodes them, in one pass and submit. */
class PreparedPlan implements Executable {
  private readonly services: Services;
  private readonly scratch: Block[];
  private readonly params: ParamPages;
  private readonly externalAt = new Map<Storage, number>();
  private runs = 0;
  /** For each external: the op that reads it before anything writes it, or null. */
  private readonly firstReader: (string | null)[];
  private readonly small: boolean;
  /** The region of each of the plan's buffers: where it begins in its block, in elements, and the block's number. */
  private readonly regions: readonly { readonly block: number; readonly start: number }[];
  private temporaries: Block[] = [];
  private dispatches: Dispatch[] = [];
  /** The bind groups, and those that each external is part of. */
  private groups: Group[] = [];
  private groupsOf: Group[][] = [];
  /** The externals' buffers of the last run, and of this one while it is checked. */
  private bound: Block[] = [];
  private next: Block[] = [];
  private last: readonly Storage[] = [];
  /** Externals that are read and then written: what a step updates in place. */
  private readonly updated: readonly number[];
  private layout = '';
  /** What groups bind: externals, scratch memory, temporaries. */
  private blocks: Block[] = [];
  /** True if `groups` is not for `bound`. */
  private stale = true;

  constructor(
    private readonly plan: Plan,
    private readonly steps: Steps,
  ) {
    const { services, scratch } = steps;
    this.services = services;
    for (const [i, storage] of plan.externals.entries()) this.externalAt.set(storage, i);
    this.params = new ParamPages(services.device);
    const starts = startsOf(plan.buffers, 64);
    const bytes = starts.at(-1)!;
    this.small = bytes <= ARENA;
    this.scratch = scratch.take(this.small && bytes > 0 ? [bytes] : plan.buffers);
    this.regions = plan.buffers.map((_, k) =>
      this.small ? { block: 0, start: starts[k] / 4 } : { block: k, start: 0 },
    );
    this.firstReader = this.findFirstReaders();
    const written = new Set(plan.commands.flatMap(({ outs }) => outs.map(view => view.storage)));
    const updated = [...plan.externals.keys()].filter(
      i => this.firstReader[i] && written.has(plan.externals[i]),
    );
    const updatedBytes = updated.reduce((sum, i) => sum + 4 * plan.externals[i].size, 0);
    this.updated = this.small && updatedBytes <= ARENA ? updated : [];
    // Pipelines are made now, as if no two externals shared a buffer; which buffers they have is known at a run.
    this.resolve(plan.externals.map(() => ({ offset: 0 })));
  }

  run(externals: readonly Storage[]): void {
    const { device, made } = this.services;
    device.check();
    if (++this.runs === this.steps.settled) this.forget();
    this.bind(externals);
    const recording = new Recording(device);
    replay(recording, this.dispatches);
    recording.submit(made);
  }

  dispose(): void {
    this.steps.scratch.give(this.scratch.splice(0));
    for (const block of this.temporaries.splice(0)) this.services.pool.give(block);
    this.params.dispose();
    this.forget();
  }

  /** Makes the bind groups fit the externals' buffers. Does nothing while they stay the same. */
  private bind(externals: readonly Storage[]): void {
    const { plan, bound, next } = this;
    if (externals.length !== plan.externals.length)
      throw new BackendError(`a plan of ${plan.externals.length} externals was run with ${externals.length}`);
    const changed: number[] = [];
    for (let i = 0; i < externals.length; i++) {
      const storage = externals[i];
      const known = storage === this.last[i] && storage.memory === bound[i];
      next[i] = known ? usable(bound[i]) : this.blockOf(storage, i);
      if (next[i] !== bound[i]) changed.push(i);
    }
    this.last = externals;
    for (const block of this.scratch) usable(block);
    if (!this.stale && changed.length === 0) return;
    if (this.stale || !changed.every(i => isAlone(next, i) && isAlone(bound, i))) {
      this.stale = true;
      if (this.runs >= this.steps.settled) this.gather(externals);
      if (this.groups.length === 0 || layoutOf(next) !== this.layout) this.resolve(next);
      this.blocks = [...next.map(block => block.home ?? block), ...this.scratch, ...this.temporaries];
      for (const group of this.groups) this.attach(group);
      this.stale = false;
    } else {
      for (const i of changed) this.blocks[i] = next[i];
      for (const i of changed) for (const group of this.groupsOf[i]) this.attach(group);
    }
    [this.bound, this.next] = [next, bound];
  }

  private attach(group: Group): void {
    const { layout, uses, params } = group;
    const used = uses.map(use => this.blocks[use]);
    group.handle = this.services.pipelines.bindGroup(layout, used, params);
  }

  /** Moves what is updated in place into one buffer, where it has buffers of its own. */
  private gather(externals: readonly Storage[]): void {
    const { next, services } = this;
    const moved = this.updated.filter(
      i => !next[i].home && next.indexOf(next[i]) === next.lastIndexOf(next[i]),
    );
    if (moved.length < 2) return;
    const recording = new Recording(services.device);
    const parts = gather(
      services.pool,
      recording,
      moved.map(i => next[i]),
    );
    recording.submit(services.made);
    moved.forEach((i, k) => {
      externals[i].memory = next[i] = parts[k];
    });
  }

  /** Has the next run make the dispatches anew. */
  private forget(): void {
    this.dispatches = [];
    this.groups = [];
    this.stale = true;
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
  private resolve(externals: readonly Bound[]): void {
    const { pool, device, maxBindings } = this.services;
    const { recipes } = this.steps;
    this.layout = layoutOf(externals);
    const buffers = [...externals.map(homeOf), ...this.scratch];
    const temporaryBytes: number[] = [];
    const pending: Pending[] = [];
    const placesOf = ({ outs, ins }: Command) => [...outs, ...ins].map(view => this.placeOf(view, externals));
    for (const command of bundle(this.plan.commands, placesOf, maxBindings)) {
      const views = [...command.outs, ...command.ins];
      const places = placesOf(command);
      const offsets = places.map(place => place.offset);
      const operands = operandsOf(
        places.map(place => place.buffer),
        offsets,
      );
      const regions = operandsOf(
        places.map(place => place.region),
        offsets,
      );
      const { steps, temporaries } = recipes.of(command, operands, regions);
      temporaries.forEach((bytes, t) => {
        temporaryBytes[t] = Math.max(temporaryBytes[t] ?? 0, bytes);
      });
      const known = operands.buffers.length;
      const at = (slot: number) =>
        slot < known ? buffers.indexOf(operands.buffers[slot]) : buffers.length + slot - known;
      const immediates = immediatesOf(command);
      // Texts can neither divide by a constant 0 nor hold what is not finite.
      const sharable =
        this.small &&
        this.runs >= this.steps.settled &&
        views.every(({ shape }) => !shape.includes(0)) &&
        immediates.every(value => Number.isFinite(Math.fround(value))) &&
        command.outs.every(({ storage }) => !this.isFresh(storage));
      for (const step of steps) {
        const { source } = step;
        const shared = sharable && source instanceof SharedSource ? source : null;
        pending.push({ step, uses: source.slots.map(at), offsets, immediates, sharable: shared });
      }
    }
    this.assign(pending);
    device.check();
    for (const block of this.temporaries) pool.give(block);
    this.temporaries = temporaryBytes.map(bytes => pool.take(bytes));
  }

  /** Gives each dispatch its group and its pipeline. */
  private assign(pending: readonly Pending[]): void {
    const { pipelines } = this.services;
    const times = new Map<Step, number>();
    for (const { step } of pending) times.set(step, (times.get(step) ?? 0) + 1);
    const shares = this.share(pending.map(p => (p.sharable && times.get(p.step)! <= TEXTS ? p : null)));
    this.groups = [];
    this.groupsOf = this.plan.externals.map(() => []);
    const groupOf = (layout: Layout, uses: readonly number[], params: ParamSlot | null): Group => {
      const group = { layout, uses, params, handle: null };
      this.groups.push(group);
      for (const use of uses) this.groupsOf[use]?.push(group);
      return group;
    };
    this.dispatches = pending.map(({ step, uses, offsets, immediates, sharable }, i) => {
      const { x, y, params } = step;
      const shared = shares[i];
      if (!shared || !sharable) {
        const block = params.length > 0 ? this.params.put(params, offsets, immediates) : null;
        const pipeline = step.pipeline();
        return { pipeline, group: groupOf(pipeline.layout, uses, block), x, y };
      }
      const signature = shared.uses.map(use => (shared.written.has(use) ? 'w' : 'r')).join('');
      const places: Places = {
        at: slot => {
          const use = uses[step.source.slots.indexOf(slot)];
          return { binding: shared.uses.indexOf(use), written: shared.written.has(use) };
        },
        words: params.map(param => wordOf(param, offsets, immediates)),
      };
      const code = sharable.at(places, step.code);
      const pipeline = pipelines.pipeline(code, signature, null, step.what);
      shared.group ??= groupOf(pipeline.layout, shared.uses, null);
      return { pipeline, group: shared.group, x, y };
    });
    this.params.upload();
  }

  /** Neighbours together, as far as what they use can be bound at once; null for those that are not to share. Each
   * buffer more costs Dawn about 0.05 us a dispatch, each change of group 0.9 us.
   */
  private share(pending: readonly (Pending | null)[]): (Shared | null)[] {
    let last: Shared | undefined;
    return pending.map(one => {
      if (!one) {
        last = undefined;
        return null;
      }
      const { step, uses } = one;
      const more = uses.filter(use => !last?.uses.includes(use));
      if (!last || last.uses.length + more.length > this.services.maxBindings) {
        last = { uses: [...uses], written: new Set(), group: null };
      } else last.uses.push(...more);
      uses.forEach((use, i) => {
        if (step.source.writes(step.source.slots[i])) last!.written.add(use);
      });
      return last;
    });
  }

  private placeOf(view: View, externals: readonly Bound[]): Place {
    const external = this.externalAt.get(view.storage);
    if (external !== undefined) {
      const region = externals[external];
      return { buffer: homeOf(region), region, offset: view.offset + region.offset / 4 };
    }
    const place = this.plan.places.get(view.storage);
    if (!place) throw new BackendError('a plan uses a storage that is neither external nor placed');
    const region = this.regions[place.buffer];
    const buffer = this.scratch[region.block];
    return { buffer, region, offset: view.offset + place.offset / 4 + region.start };
  }

  /** True for results that are given memory at each run, of which a ring's places follow each other. */
  private isFresh(storage: Storage): boolean {
    const external = this.externalAt.get(storage);
    return external !== undefined && this.firstReader[external] === null;
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

/** Records dispatches, the first of all. Each call of Dawn's costs: none is idle. */
function replay(recording: Recording, dispatches: readonly Dispatch[]): void {
  const pass = recording.open(dispatches.length);
  let pipeline: Pipeline | null = null;
  let handle: GPUBindGroup | null = null;
  for (const next of dispatches) {
    if (next.pipeline.error) throw next.pipeline.error;
    if (next.pipeline !== pipeline) {
      pipeline = next.pipeline;
      pass.setPipeline(pipeline.handle);
    }
    if (next.group.handle !== handle) {
      handle = next.group.handle;
      pass.setBindGroup(0, handle);
    }
    if (next.y === 1) pass.dispatchWorkgroups(next.x);
    else pass.dispatchWorkgroups(next.x, next.y);
  }
}

/** True if a block is all of a buffer, and bound once. */
const isAlone = (blocks: readonly Block[], i: number): boolean =>
  !blocks[i].home && blocks.indexOf(blocks[i]) === blocks.lastIndexOf(blocks[i]);

/** Where the externals' memory is, as far as kernels depend on it: '' if each has a buffer of its own. */
function layoutOf(externals: readonly Bound[]): string {
  const homes = externals.map(homeOf);
  if (new Set(homes).size === homes.length && externals.every(({ offset }) => offset === 0)) return '';
  return externals.map(({ offset }, i) => `${homes.indexOf(homes[i])}+${offset}`).join();
}
