/** Times of compute passes on the device's own clock. */
import type { Device } from './device.js';
import { MAP_READ, USAGE } from './memory.js';

/** A backend whose device has a clock of its own. */
export interface DeviceClock {
  /**
   * Runs `work`, which waits for what it submits, and resolves to the milliseconds that its kernels took on the device,
   * without what lies between submissions; null where the device tells no time or `work` submits more than 2048 times.
   */
  timed(work: () => Promise<unknown>): Promise<number | null>;
}

/** Passes one measurement has room for: a query set holds at most 4096 values, two of each pass. */
const ROOM = 2048;
const BYTES = ROOM * 2 * 8;
const QUERY_RESOLVE = 0x200;

/** Where the passes of one measurement write when they begin and end. It is made for each and disposed of behind it. */
export class PassTimer {
  private readonly queries: GPUQuerySet;
  private passes = 0;

  constructor(private readonly device: Device) {
    this.queries = device.gpu.createQuerySet({ type: 'timestamp', count: 2 * ROOM });
  }

  /** For the descriptor of the next pass; undefined beyond the room there is. */
  next(): GPUComputePassTimestampWrites | undefined {
    const pass = this.passes++;
    if (pass >= ROOM) return undefined;
    return {
      querySet: this.queries,
      beginningOfPassWriteIndex: 2 * pass,
      endOfPassWriteIndex: 2 * pass + 1,
    };
  }

  /** Milliseconds that the passes took in all; null if there was no room for some. */
  async finish(): Promise<number | null> {
    const { gpu } = this.device;
    const resolved = gpu.createBuffer({ size: BYTES, usage: QUERY_RESOLVE | USAGE.copySource });
    const staging = gpu.createBuffer({ size: BYTES, usage: USAGE.mapRead | USAGE.copyTarget });
    try {
      if (this.passes > ROOM) return null;
      if (this.passes === 0) return 0;
      const encoder = gpu.createCommandEncoder();
      encoder.resolveQuerySet(this.queries, 0, 2 * this.passes, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, BYTES);
      gpu.queue.submit([encoder.finish()]);
      await staging.mapAsync(MAP_READ);
      const stamps = new BigUint64Array(staging.getMappedRange());
      let nanoseconds = 0n;
      for (let pass = 0; pass < this.passes; pass++) nanoseconds += stamps[2 * pass + 1] - stamps[2 * pass];
      return Number(nanoseconds) / 1e6;
    } finally {
      resolved.destroy();
      staging.destroy();
    }
  }

  dispose(): void {
    this.queries.destroy();
  }
}
