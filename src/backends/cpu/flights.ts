/**
 * Long work in flight: jobs of the addon's one executor thread, run in the order given, so that they do not hold up
 * the event loop. While a job is in flight its memory stays as it is: it is not collected, not handed out again, and
 * who wants to look at it waits.
 */
import type { Addon } from './addon.js';
import type { Memory } from './memory.js';

interface Flight {
  readonly job: number;
  readonly reads: readonly Memory[];
  readonly writes: readonly Memory[];
  /** Whatever else must not be collected. */
  readonly pins: readonly unknown[];
}

/** Jobs in flight beyond which a new one waits for the oldest: what they hold is not free for others. */
const most = 8;

/** The jobs of one addon. */
export class Flights {
  private readonly flights: Flight[] = [];
  private waiting: { readonly job: number; resolve(): void }[] = [];
  private freed: { readonly memory: Memory; recycle(memory: Memory): void }[] = [];

  /** How many jobs have failed so far. */
  failures = 0;

  constructor(private readonly addon: Addon) {
    addon.startExecutor(() => this.settle());
  }

  get busy(): boolean {
    return this.flights.length > 0;
  }

  /** Records a job the addon has taken, which reads and writes this memory. */
  add(job: number, reads: readonly Memory[], writes: readonly Memory[], pins: readonly unknown[] = []): void {
    for (const memory of reads) memory.job = job;
    for (const memory of writes) memory.job = job;
    this.flights.push({ job, reads, writes, pins });
    if (this.flights.length > most) this.wait(this.flights[0].job);
  }

  /** Returns when `job`, or without one every job, is done. */
  wait(job?: number): void {
    if (!this.busy) return;
    this.addon.wait(job ?? this.flights[this.flights.length - 1].job);
    this.settle();
  }

  /** Resolves, in a macrotask, when every job given so far is done. */
  async settled(): Promise<void> {
    if (!this.busy) return;
    const { job } = this.flights[this.flights.length - 1];
    this.addon.holdLoop(true);
    await new Promise<void>(resolve => this.waiting.push({ job, resolve }));
  }

  /** Hands memory on once no job uses it. */
  free(memory: Memory, recycle: (memory: Memory) => void): void {
    if (memory.job === 0) recycle(memory);
    else this.freed.push({ memory, recycle });
  }

  /** Takes note of the jobs that are done. */
  private settle(): void {
    const done = this.addon.done();
    const failures = new Map(this.addon.failures());
    this.failures += failures.size;
    while (this.flights.length > 0 && this.flights[0].job <= done) {
      const { job, reads, writes } = this.flights.shift()!;
      const why = failures.get(job) ?? reads.find(memory => memory.failure !== null)?.failure ?? null;
      for (const memory of writes) memory.failure = why;
      for (const memory of [...reads, ...writes]) if (memory.job === job) memory.job = 0;
    }
    const freed = this.freed;
    this.freed = [];
    for (const { memory, recycle } of freed) this.free(memory, recycle);
    const waiting = this.waiting;
    this.waiting = waiting.filter(({ job }) => job > done);
    if (waiting.length > 0 && this.waiting.length === 0) this.addon.holdLoop(false);
    for (const { job, resolve } of waiting) if (job <= done) resolve();
  }
}

let shared: { readonly addon: Addon; readonly flights: Flights } | null = null;
/** The jobs of an addon, which all backends on it share. */
export function flightsOf(addon: Addon): Flights {
  if (shared?.addon !== addon) shared = { addon, flights: new Flights(addon) };
  return shared.flights;
}
