/** GPU buffers, recycled by size class. */
import { MemoryError } from '../../core/errors.js';
import type { Device } from './device.js';

/** The values of GPUBufferUsage, which Node has no global for. */
export const USAGE = {
  mapRead: 0x1,
  copySource: 0x4,
  copyTarget: 0x8,
  uniform: 0x40,
  storage: 0x80,
} as const;
/** The value of GPUMapMode.READ. */
export const MAP_READ = 0x1;

/** One GPUBuffer with the identity that bind groups are cached by. Its size may exceed what was asked for. */
export interface Block {
  readonly id: number | string;
  readonly bytes: number;
  readonly buffer: GPUBuffer;
  /** Where it begins in its buffer, in bytes. */
  readonly offset: number;
  /** The block whose buffer it is a part of, or itself. */
  readonly home: Block;
  /** What giving a part back does. */
  readonly leave?: () => void;
  /** True once the device has told that it had no room for it. */
  failed: boolean;
}

/** The block. Throws MemoryError if the device had no room for it. */
export function usable(block: Block): Block {
  if (block.failed)
    throw new MemoryError(`the device had no room for the ${block.bytes} bytes of a buffer that is used`);
  return block;
}

/** Sizes are rounded up to eighths of a power of two (and 256 bytes): at most 12.5 % is lost, and classes are few. */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/**
 * Hands out buffers and takes them back. A buffer may be handed out again while the GPU still works on it, since all
 * work goes through one queue in order.
 */
export class Pool {
  private readonly free = new Map<number, Block[]>();
  private freeBytes = 0;
  private nextId = 0;
  /** Buffers alive, and their bytes, in use or not. */
  buffers = 0;
  bytes = 0;

  constructor(
    private readonly device: Device,
    private readonly usage: GPUBufferUsageFlags,
    /** Free bytes kept for reuse; `trim` destroys what is beyond. */
    private readonly keepBytes: number,
  ) {}

  take(bytes: number): Block {
    this.device.checkSize(bytes);
    const rounded = Math.min(sizeClass(bytes), this.device.largest);
    const block = this.free.get(rounded)?.pop();
    if (block) {
      this.freeBytes -= rounded;
      return block;
    }
    return this.create(rounded);
  }

  /**
   * Takes a buffer back. Of one class the oldest buffer is handed out first, so that steps which repeat get the same
   * buffers again, and find the bind groups made for them.
   */
  give(block: Block): void {
    block.leave?.();
    if (block.leave || block.failed) return;
    const list = this.free.get(block.bytes) ?? [];
    let [at, end] = [0, list.length];
    while (at < end) {
      const middle = (at + end) >> 1;
      if (list[middle].id > block.id) at = middle + 1;
      else end = middle;
    }
    list.splice(at, 0, block);
    this.free.delete(block.bytes);
    this.free.set(block.bytes, list);
    this.freeBytes += block.bytes;
  }

  /** Destroys what is kept beyond the budget. Not to be called while recorded work is not yet submitted. */
  trim(): void {
    while (this.freeBytes > this.keepBytes) this.destroyStalest();
  }

  /** A new buffer. If the device has no room for it, that is told later, and the free ones are destroyed to make some. */
  private create(bytes: number): Block {
    const make = () => this.device.gpu.createBuffer({ size: bytes, usage: this.usage });
    const buffer = this.device.guard('out-of-memory', `a buffer of ${bytes} bytes`, make, () => {
      const list = this.free.get(bytes);
      const at = list?.indexOf(block) ?? -1;
      if (at >= 0) {
        list!.splice(at, 1);
        this.freeBytes -= bytes;
      }
      block.failed = true;
      this.buffers--;
      this.bytes -= bytes;
      while (this.freeBytes > 0) this.destroyStalest();
    });
    const block: Block = {
      id: this.nextId++,
      bytes,
      buffer,
      offset: 0,
      failed: false,
      get home() {
        return block;
      },
    };
    this.buffers++;
    this.bytes += bytes;
    return block;
  }

  /** Destroys one block of the class that was given back to least recently. */
  private destroyStalest(): void {
    for (const [bytes, list] of this.free) {
      const block = list.shift();
      if (list.length === 0) this.free.delete(bytes);
      if (!block) continue;
      block.buffer.destroy();
      this.freeBytes -= bytes;
      this.bytes -= bytes;
      this.buffers--;
      return;
    }
  }
}

/** A map that forgets its least recently used entries. */
export class Lru<K, V> {
  private readonly entries = new Map<K, V>();
  constructor(private readonly capacity: number) {}

  get size(): number {
    return this.entries.size;
  }

  get(key: K): V | undefined {
    const value = this.entries.get(key);
    if (value !== undefined) {
      this.entries.delete(key);
      this.entries.set(key, value);
    }
    return value;
  }

  set(key: K, value: V): V {
    if (this.entries.size >= this.capacity) this.entries.delete(this.entries.keys().next().value!);
    this.entries.set(key, value);
    return value;
  }
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
