/** Memory of eager storages: pieces of ordinary ArrayBuffers, which the garbage collector frees by itself. */
import { totalmem } from 'node:os';
import type { DType, Storage, TypedArray } from '../../core/backend.js';
import { MemoryError } from '../../core/errors.js';
import type { Addon } from './addon.js';
import type { Flights } from './flights.js';

/** Where a storage's elements are. */
export class Memory {
  /** Slot of this memory in the command list with this stamp. */
  slot = 0;
  stamp = 0;
  /** The last job in flight that uses it, or 0. */
  job = 0;
  /** Why the job that should have written it has not, or null. */
  failure: string | null = null;
  constructor(
    readonly buffer: ArrayBuffer,
    /** Bytes from the buffer's begin. */
    readonly offset: number,
    /** Native address of the first element. */
    readonly address: number,
    /** Bytes this memory may hold; more than the storage's where it came from a size class. */
    readonly capacity: number,
  ) {}
}

/** Elements of a piece of a buffer as the typed array of `dtype`. */
export function arrayOn(buffer: ArrayBuffer, offset: number, dtype: DType, size: number): TypedArray {
  if (dtype === 'f32') return new Float32Array(buffer, offset, size);
  return dtype === 'i32' ? new Int32Array(buffer, offset, size) : new Uint32Array(buffer, offset, size);
}

const alignment = 64;
const slabBytes = 64 << 10;
/** Memory of this size and more has a buffer of its own. */
const ownBytes = 16 << 10;
/** How much freed memory is kept for reuse: a fresh page costs more than most kernels that write it. */
const maxCached = totalmem() / 16;
/** Memory of this size and more asks for huge pages: one fault for 2 MB instead of 512. */
const hugeBytes = 4 << 20;

const alignUp = (n: number) => Math.ceil(n / alignment) * alignment;

/** Rounds at least `ownBytes` up to one of eight sizes per power of two, so that freed memory fits later requests. */
function sizeClass(bytes: number): number {
  let step = ownBytes / 8;
  while (bytes >= 16 * step) step *= 2;
  return Math.ceil(bytes / step) * step;
}

/** A buffer in which `bytes` bytes can be aligned. Throws MemoryError where there is no room for it. */
function orMemoryError(bytes: number, make: (bytes: number) => ArrayBuffer): ArrayBuffer {
  try {
    return make(bytes + alignment);
  } catch (cause) {
    throw new MemoryError(`cpu: ${bytes} bytes cannot be allocated: ${(cause as Error).message}`, { cause });
  }
}

/** Hands out memory aligned to cache lines. */
export class Allocator {
  private slab: ArrayBuffer | null = null;
  private slabAddress = 0;
  private next = 0;
  private readonly cache = new Map<number, Memory[]>();
  cachedBytes = 0;
  /** Pieces of memory handed out so far, those kept for reuse included. */
  allocations = 0;

  constructor(
    private readonly addon: Pick<Addon, 'address' | 'adviseHuge'>,
    private readonly flights: Pick<Flights, 'free'>,
  ) {}

  /** The storage's memory, made now if it has none. Its content is then undefined. */
  bind(storage: Storage): Memory {
    const bound = storage.memory as Memory | null;
    if (bound !== null) return bound;
    const memory = this.allocate(storage.size * 4);
    storage.memory = memory;
    return memory;
  }

  /** Takes the storage's memory back, once no job in flight uses it. Nothing else may hold it. */
  free(storage: Storage): void {
    const memory = storage.memory as Memory | null;
    storage.memory = null;
    if (memory !== null && memory.capacity >= ownBytes) this.flights.free(memory, this.keep);
  }

  private readonly keep = (memory: Memory): void => {
    if (this.cachedBytes + memory.capacity > maxCached) return;
    memory.failure = null;
    const list = this.cache.get(memory.capacity);
    if (list) list.push(memory);
    else this.cache.set(memory.capacity, [memory]);
    this.cachedBytes += memory.capacity;
  };

  /** Forgets memory kept for reuse. */
  clear(): void {
    this.cache.clear();
    this.cachedBytes = 0;
    this.slab = null;
  }

  private allocate(bytes: number): Memory {
    this.allocations++;
    if (bytes >= ownBytes) return this.allocateOwn(sizeClass(bytes));
    const size = Math.max(alignment, alignUp(bytes));
    if (this.slab === null || this.next + size > slabBytes) {
      this.slab = new ArrayBuffer(slabBytes);
      this.slabAddress = this.addon.address(this.slab);
      this.next = alignUp(this.slabAddress) - this.slabAddress;
    }
    const memory = new Memory(this.slab, this.next, this.slabAddress + this.next, size);
    this.next += size;
    return memory;
  }

  private allocateOwn(size: number): Memory {
    const kept = this.cache.get(size)?.pop();
    if (kept) {
      this.cachedBytes -= size;
      return kept;
    }
    // A buffer from allocUnsafeSlow is its own and is not zeroed first.
    const buffer = orMemoryError(size, n => Buffer.allocUnsafeSlow(n).buffer as ArrayBuffer);
    if (size >= hugeBytes) this.addon.adviseHuge(buffer);
    const start = this.addon.address(buffer);
    const address = alignUp(start);
    return new Memory(buffer, address - start, address, size);
  }
}

/** The one scratch buffer that all prepared steps share; its content is dead between runs. */
export class Scratch {
  buffer = new ArrayBuffer(0);
  /** Native address of the first usable byte, a multiple of 64. */
  address = 0;
  offset = 0;
  constructor(private readonly addon: Addon) {}

  get bytes(): number {
    return this.buffer.byteLength;
  }

  /** Makes room for a step. Steps prepared earlier notice by the address. */
  reserve(bytes: number): void {
    if (this.address !== 0 && bytes + alignment <= this.buffer.byteLength) return;
    this.buffer = orMemoryError(bytes, n => new ArrayBuffer(n));
    this.addon.adviseHuge(this.buffer);
    const start = this.addon.address(this.buffer);
    this.address = alignUp(start);
    this.offset = this.address - start;
  }

  /** Gives the buffer back. */
  clear(): void {
    this.buffer = new ArrayBuffer(0);
    this.address = 0;
  }
}
