/** Tensors: strided views on storages, and who gives their memory back. */
import type { Backend, DType, Storage, TypedArray, View } from './backend.js';
import {
  BackendError,
  DisposedError,
  DTypeError,
  GraphError,
  KernelError,
  MemoryError,
  ScopeError,
  ShapeError,
} from './errors.js';
import type { GraphNode } from './grad.js';
import { enqueue, hasFailed, queueOf, runtime } from './queue.js';
import { denseStrides, isDense, type Shape, show, sizeOf } from './shape.js';
import * as tree from './tree.js';

// Node 20 has Symbol.dispose; older browsers do not.
(Symbol as { dispose?: symbol }).dispose ??= Symbol.for('Symbol.dispose');

let made = 0;
const live = { tensors: 0, bytes: 0 };

/** See `Storage` in backend.ts. Made by `newStorage` alone. */
class Handle implements Storage {
  readonly id = ++made;
  memory: unknown = null;
  generation = 0;
  dead: string | null = null;
  /** True while it counts as live: until a scope or `dispose` gives it back, or the garbage collector takes over. */
  counted = false;
  constructor(
    readonly backend: Backend,
    readonly dtype: DType,
    readonly size: number,
  ) {}
}

/** A fresh handle of `size` elements, owned by the innermost scope. Throws MemoryError past the device's budget. */
export function newStorage(backend: Backend, dtype: DType, size: number): Storage {
  const storage = new Handle(backend, dtype, size);
  if (runtime.capture) {
    runtime.capture.made.push(storage);
    return storage;
  }
  const { deviceMemory = Infinity } = backend.limits;
  if (live.bytes + size * 4 > deviceMemory)
    throw new MemoryError(
      `${live.tensors} live tensors hold ${live.bytes} bytes, ${size * 4} more pass the budget of ${deviceMemory}; ` +
        'run steps in scope(), dispose() what is done with, or compile the step',
    );
  count(storage, 1);
  if (runtime.scope) runtime.scope.push(storage);
  else abandon(storage);
  return storage;
}

function count(storage: Storage, by: 1 | -1): void {
  (storage as Handle).counted = by > 0;
  live.tensors += by;
  live.bytes += by * storage.size * 4;
}

/** Gives back device memory whose storage was collected: a net only, finalizers never run in a synchronous loop. */
const collected = new FinalizationRegistry<Handle>(ghost => {
  if (ghost.counted) count(ghost, -1);
  if (!ghost.dead) queueOf(ghost.backend).release(ghost);
});
const ghosts = new WeakMap<Storage, Handle>();

/**
 * Leaves a storage no scope owns to the garbage collector. Ordinary JavaScript memory is collected with it, so it
 * counts no longer; device memory needs a stand-in that survives the storage and knows its memory.
 */
function abandon(storage: Storage): void {
  if (storage.backend.limits.deviceMemory === undefined) {
    count(storage, -1);
    return;
  }
  const ghost = new Handle(storage.backend, storage.dtype, storage.size);
  ghost.counted = true;
  ghost.memory = storage.memory;
  Object.defineProperty(storage, 'memory', {
    get: () => ghost.memory,
    set: memory => {
      ghost.memory = memory;
    },
  });
  ghosts.set(storage, ghost);
  collected.register(storage, ghost, storage);
}

/** Gives a storage's memory back. Work already queued still sees it; using it afterwards throws DisposedError. */
export function release(storage: Storage, why: string): void {
  if (runtime.capture || (storage.dead && !(storage as Handle).counted)) return;
  storage.dead ??= why;
  if ((storage as Handle).counted) count(storage, -1);
  if (ghosts.delete(storage)) collected.unregister(storage);
  queueOf(storage.backend).release(storage);
}

/** An array of f32, i32 or u32 numbers on a backend. Immutable; views share memory. */
export class Tensor {
  /** Bits of the open gradients this value depends on. */
  deps = 0;
  node: GraphNode | null = null;
  constructor(readonly view: View) {}

  get shape(): Shape {
    return this.view.shape;
  }
  get dtype(): DType {
    return this.view.storage.dtype;
  }
  get rank(): number {
    return this.view.shape.length;
  }
  get size(): number {
    return sizeOf(this.view.shape);
  }
  get backend(): Backend {
    return this.view.storage.backend;
  }

  /**
   * The values in row-major order, as of now. Resolves in a macrotask. Throws DisposedError, DeviceLostError, and
   * GraphError inside a gradient that this value depends on.
   */
  async data(): Promise<TypedArray> {
    return readable(this).read(this.view);
  }
  /** The single value of a tensor of size 1. Throws ShapeError for any other size. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new ShapeError(`item: one value is needed, ${show(this.shape)} has ${this.size}`);
    return (await this.data())[0];
  }
  /** The values at once. Throws BackendError where only `data()` is possible (WebGPU). */
  dataSync(): TypedArray {
    return readable(this).readSync(this.view);
  }
  /** Gives the memory back, that of every view on it too. A second call does nothing. */
  dispose(): void {
    release(this.view.storage, 'it was disposed');
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
  /** `x > 0` would silently be false, so any use as a JavaScript primitive throws. */
  [Symbol.toPrimitive](hint: string): string {
    if (hint === 'string') return this.toString();
    throw new DTypeError(
      `a tensor ${show(this.shape)} was used as a number; use ops (add, gt, ...) or await item()`,
    );
  }
  toString(): string {
    return `Tensor ${this.dtype} ${show(this.shape)} on ${this.backend.name}`;
  }
}

function readable(t: Tensor): Backend {
  if (runtime.capture) runtime.capture.refuse('reading a value');
  if (t.deps & runtime.openGradients)
    throw new GraphError(
      `read: ${t} carries an open gradient, and a leaf made of its values would train nothing; return it beside the ` +
        'loss, or read stopGradient(x) if the cut is meant',
    );
  checkUsable(t, 'read');
  const backend = t.backend;
  queueOf(backend).flush();
  checkUsable(t, 'read');
  return backend;
}

/** Throws DisposedError unless the tensor's memory is still its own, KernelError if the kernel that made it failed. */
export function checkUsable(t: Tensor, op: string): void {
  const { storage, generation } = t.view;
  if (storage.dead) {
    const Kind = hasFailed(storage) ? KernelError : DisposedError;
    throw new Kind(`${op}: ${t} cannot be used, ${storage.dead}`);
  }
  if (storage.generation !== generation)
    throw new DisposedError(
      `${op}: ${t} cannot be used, a compiled step took its memory over (it was donated)`,
    );
}

/** The dense view of a whole storage. */
export function denseView(storage: Storage, shape: Shape): View {
  return { storage, shape, strides: denseStrides(shape), offset: 0, generation: storage.generation };
}

/** True if the tensor's elements lie in row-major order without gaps. */
export const dense = (t: Tensor): boolean => isDense(t.view.shape, t.view.strides);

/** A tensor filled with one number, f32. */
export function full(shape: Shape, value: number, backend: Backend = current()): Tensor {
  const out = new Tensor(denseView(newStorage(backend, 'f32', sizeOf(shape)), [...shape]));
  const expr = { inputs: 0, immediates: [value], code: [], outs: [-1] };
  enqueue({ kernel: 'elementwise', op: 'full', outs: [out.view], ins: [], attrs: { expr } });
  return out;
}

/** The backend in use. Throws BackendError before `init`. */
export function current(): Backend {
  if (!runtime.backend) throw new BackendError('no backend is in use: await init() first');
  return runtime.backend;
}

/** Makes `backend` the one new tensors live on. */
export function use(backend: Backend): void {
  runtime.backend = backend;
}

/** Runs `f` with `backend` in use, then returns to the one before. */
export function withBackend<T>(backend: Backend, f: () => T): T {
  const before = runtime.backend;
  runtime.backend = backend;
  try {
    return f();
  } finally {
    runtime.backend = before;
  }
}

/**
 * Live tensors (storages, to be exact) and their bytes, over all backends: those a scope will give back and, on
 * devices, those nobody has given back yet. What the garbage collector owns (ref and cpu, outside scopes) is not counted.
 */
export const memory = (): { tensors: number; bytes: number } => ({ ...live });

/**
 * Runs `f` and gives back all memory made inside, except what it returns (tensors anywhere in the returned tree).
 * Synchronous: a returned promise throws ScopeError (in async code use `using`). While a gradient is open nothing is
 * freed; the enclosing scope takes over, since the backward pass may still need it.
 */
export function scope<T>(f: () => T): T {
  if (runtime.capture) return f();
  const outer = runtime.scope;
  const mine: Storage[] = [];
  runtime.scope = mine;
  const kept = new Set<Storage>();
  try {
    const result = f();
    if (typeof (result as { then?: unknown } | null)?.then === 'function')
      throw new ScopeError(
        'scope: the function returned a promise; a scope is synchronous, use `using` in async code',
      );
    for (const leaf of tree.leaves(result)) {
      if (leaf instanceof Tensor) kept.add(leaf.view.storage);
      else if (leaf instanceof tree.Opaque)
        for (const part of Object.values(leaf)) if (part instanceof Tensor) kept.add(part.view.storage);
    }
    return result;
  } finally {
    runtime.scope = outer;
    for (const storage of mine) {
      const stays = !storage.dead && (kept.has(storage) || runtime.openGradients !== 0);
      if (!stays) release(storage, 'the scope that made it has ended');
      else if (outer) outer.push(storage);
      else abandon(storage);
    }
  }
}
