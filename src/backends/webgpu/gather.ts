/** The memory of compiled steps: blocks that become parts of one, and scratch memory that all steps share. */
import type { Recording } from './encoder.js';
import type { Block, Pool } from './memory.js';

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

/**
 * Scratch buffers that all prepared plans share: their contents are dead between runs, and runs follow each other in
 * one queue. The k-th largest buffer of every plan lies in the k-th largest block.
 */
export class Scratch {
  private readonly current: (Block | undefined)[] = [];
  private readonly users = new Map<Block, number>();

  constructor(private readonly pool: Pool) {}

  /** Blocks for buffers of these sizes, distinct, in the same order. */
  take(sizes: readonly number[]): Block[] {
    const blocks = new Array<Block>(sizes.length);
    const bySize = sizes.map((_, i) => i).sort((i, j) => sizes[j] - sizes[i]);
    bySize.forEach((i, rank) => {
      let block = this.current[rank];
      if (!block || block.failed || block.bytes < sizes[i])
        this.current[rank] = block = this.pool.take(sizes[i]);
      this.users.set(block, (this.users.get(block) ?? 0) + 1);
      blocks[i] = block;
    });
    return blocks;
  }

  /** Ends the use of blocks; a block that nobody uses goes back to the pool. */
  give(blocks: readonly Block[]): void {
    for (const block of blocks) {
      const left = this.users.get(block)! - 1;
      if (left > 0) this.users.set(block, left);
      else {
        this.users.delete(block);
        const rank = this.current.indexOf(block);
        if (rank >= 0) this.current[rank] = undefined;
        this.pool.give(block);
      }
    }
    this.pool.trim();
  }
}
