/**
 * Compiled steps that are replayed so often that what Dawn takes for each call counts: in Node, on adapters that are no
 * software. Their memory is bound as few buffers, and their dispatches share bind groups.
 */
import type { Plan, Storage, View } from '../../core/backend.js';
import { Recording, wordOf } from './encoder.js';
import {
  type Dispatch,
  type Group,
  type Pending,
  type Place,
  PreparedPlan,
  type Services,
  Steps,
} from './executable.js';
import type { Block, Pool } from './memory.js';
import type { Pipeline } from './pipelines.js';
import { immediatesOf, type Step } from './recipes.js';
import { SharedSource } from './shared.js';

/**
 * Steps whose scratch memory takes so many bytes at most have it in one buffer, so that dispatches bind less. That costs a
 * GPU the overlap of dispatches that do not depend on each other; with so little data the CPU is what is waited for.
 */
const ARENA = 16 << 20;
/**
 * After so many runs neighbouring dispatches of such a step share a bind group, which takes the parameters into the texts
 * of the shaders. That saves the CPU a call of each dispatch (bench/replay.mjs), and costs it the compilation of a shader
 * once.
 */
const SETTLED = 4096;
/** A step that occurs more often keeps its one text: many would be compiled for it. */
const TEXTS = 2;

/** Dispatches that bind all that any of them uses. */
interface Shared {
  readonly uses: number[];
  readonly written: Set<number>;
  group: Group | null;
}

/** Prepared plans that settle. */
export class SettlingSteps extends Steps {
  /** `settled`: after how many runs a plan's dispatches share bind groups. */
  constructor(
    services: Services,
    readonly settled = SETTLED,
  ) {
    super(services, SharedSource);
  }

  override prepare(plan: Plan): PreparedPlan {
    return new SettlingPlan(plan, this);
  }
}

class SettlingPlan extends PreparedPlan {
  private runs = 0;
  /** Where each of the plan's buffers begins in the one block of scratch memory, in bytes; null if they have blocks. */
  private readonly starts: readonly number[] | null;
  /** What is one storage's alone, of each of the plan's buffers. */
  private readonly regions: readonly object[];
  /** Externals that are read and then written: what a step updates in place. */
  private readonly updated: readonly number[];

  constructor(
    plan: Plan,
    private readonly settling: SettlingSteps,
  ) {
    const starts = startsOf(plan.buffers, 64);
    const bytes = starts[plan.buffers.length];
    // What is bound in ranges shares nothing.
    const most = settling.services.device.limits.maxStorageBufferBindingSize;
    const ranged = plan.externals.some(({ size }) => size * 4 > most);
    const small = bytes <= Math.min(ARENA, most) && !ranged;
    super(plan, settling, small && bytes > 0 ? [bytes] : plan.buffers);
    this.starts = small ? starts : null;
    this.regions = plan.buffers.map(() => ({}));
    const written = new Set(plan.commands.flatMap(({ outs }) => outs.map(view => view.storage)));
    const updated = [...plan.externals.keys()].filter(
      i => this.firstReader[i] && written.has(plan.externals[i]),
    );
    const updatedBytes = updated.reduce((sum, i) => sum + 4 * plan.externals[i].size, 0);
    this.updated = small && updatedBytes <= ARENA ? updated : [];
  }

  private get settled(): boolean {
    return this.starts !== null && this.runs >= this.settling.settled;
  }

  override run(externals: readonly Storage[]): void {
    if (++this.runs === this.settling.settled) this.bound = null;
    super.run(externals);
  }

  // Each call of Dawn's costs: none is idle.
  protected override record(recording: Recording, dispatches: readonly Dispatch[]): void {
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

  /** Moves what is updated in place into one buffer, where it has buffers of its own. */
  protected override gather(externals: readonly Storage[], next: Block[]): void {
    const { services } = this;
    if (!this.settled) return;
    const moved = this.updated.filter(
      i => next[i].home === next[i] && next.indexOf(next[i]) === next.lastIndexOf(next[i]),
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

  // Mostly the place of a loss changes, which takes less to find out than the whole layout.
  protected override keeps(next: readonly Block[], bound: readonly Block[]): boolean {
    const isAlone = (blocks: readonly Block[], i: number) =>
      blocks[i].home === blocks[i] && blocks.indexOf(blocks[i]) === blocks.lastIndexOf(blocks[i]);
    const same = next.every((block, i) => block === bound[i] || (isAlone(next, i) && isAlone(bound, i)));
    return same || super.keeps(next, bound);
  }

  protected override placeOf(view: View, externals: readonly Block[]): Place {
    const place = this.starts && this.plan.places.get(view.storage);
    if (!this.starts || !place) return super.placeOf(view, externals);
    const start = this.starts[place.buffer] / 4;
    const offset = start + view.offset + place.offset / 4;
    return { buffer: this.scratch[0], region: this.regions[place.buffer], start, offset };
  }

  protected override assign(pending: readonly Pending[]): Dispatch[] {
    const times = new Map<Step, number>();
    for (const { step } of pending) times.set(step, (times.get(step) ?? 0) + 1);
    const shares = this.share(
      pending.map(one => (this.isSharable(one) && times.get(one.step)! <= TEXTS ? one : null)),
    );
    return pending.map((one, i) => {
      const { step, uses, offsets, command } = one;
      const { x, y, params, source } = step;
      const shared = shares[i];
      if (!shared || !(source instanceof SharedSource)) return this.alone(one);
      const signature = shared.uses.map(use => (shared.written.has(use) ? 'w' : 'r')).join('');
      const places = {
        at: (slot: number) => {
          const use = uses[source.slots.indexOf(slot)];
          return { binding: shared.uses.indexOf(use), written: shared.written.has(use) };
        },
        words: params.map(param => wordOf(param, offsets, immediatesOf(command))),
      };
      const code = source.at(places, step.code);
      const pipeline = this.services.pipelines.pipeline(code, signature, null, step.what);
      shared.group ??= this.group(pipeline.layout, shared.uses, null);
      return { pipeline, group: shared.group, x, y };
    });
  }

  /**
   * True if nothing but the number of texts speaks against a shared group. Texts can neither divide by a constant 0 nor hold
   * what is not finite. Results that are given memory at each run, of which a ring's places follow each other, would renew
   * the group each time.
   */
  private isSharable({ command }: Pending): boolean {
    return (
      this.settled &&
      [...command.outs, ...command.ins].every(({ shape }) => !shape.includes(0)) &&
      immediatesOf(command).every(value => Number.isFinite(Math.fround(value))) &&
      command.outs.every(({ storage }) => {
        const external = this.externalAt.get(storage);
        return external === undefined || this.firstReader[external] !== null;
      })
    );
  }

  /**
   * Neighbours together, as far as what they use can be bound at once; null for those that are not to share. A buffer
   * more costs Dawn far less than a change of group.
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
}

/** Where blocks of these bytes begin if they follow each other on multiples of `align`, and where the last one ends. */
export const startsOf = (bytes: readonly number[], align: number): number[] =>
  bytes.reduce(
    (starts, size) => {
      starts.push(starts[starts.length - 1] + Math.ceil(size / align) * align);
      return starts;
    },
    [0],
  );

/** What WebGPU asks of the offsets of bindings at most. */
const ALIGN = 256;
/** Parts are told from the pool's own blocks by being numbered downwards. */
let lastPart = 0;

/**
 * Copies blocks into a new one and gives them back. The copies are parts of the new block, which goes back to the pool
 * when the last of them has been given back.
 */
export function gather(pool: Pool, recording: Recording, blocks: readonly Block[]): Block[] {
  const starts = startsOf(
    blocks.map(({ bytes }) => bytes),
    ALIGN,
  );
  const home = pool.take(starts[blocks.length]);
  let left = blocks.length;
  const leave = () => {
    if (--left === 0) pool.give(home);
  };
  return blocks.map((block, i) => {
    const { bytes } = block;
    const part: Block = {
      id: --lastPart,
      bytes,
      buffer: home.buffer,
      offset: starts[i],
      home,
      leave,
      get failed() {
        return home.failed;
      },
    };
    recording.copy(block, 0, part, bytes);
    pool.give(block);
    return part;
  });
}
