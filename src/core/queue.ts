/** The one order of work of each backend, and what the library is doing right now. */
import type { Backend, Command, DType, Storage, TypedArray } from './backend.js';
import { KernelFailure } from './backend.js';
import type { Shape } from './shape.js';
import type { Tensor } from './tensor.js';

/** A step being captured: commands are kept, not run. */
export interface Capture {
  readonly commands: Command[];
  readonly made: Storage[];
  refuse(what: string): never;
  constant(values: TypedArray, shape: Shape, dtype: DType): Tensor;
}

/** Everything that is global, in one place. */
export const runtime = {
  backend: null as Backend | null,
  capture: null as Capture | null,
  /** Storages the innermost scope will give back. */
  scope: null as Storage[] | null,
  /** Bits of the gradients that record now. */
  openGradients: 0,
};

const maxCommands = 1024;
const maxBytes = 64 << 20;

/**
 * Commands of one backend waiting to be run. Reads, writes and compiled steps flush it first, so there is one order.
 * A command that fails poisons its outputs and what depends on them, nothing else.
 */
class Queue {
  private commands: Command[] = [];
  private bytes = 0;
  private released: Storage[] = [];
  constructor(private readonly backend: Backend) {}

  push(command: Command): void {
    this.commands.push(command);
    for (const out of command.outs) if (out.storage.memory === null) this.bytes += out.storage.size * 4;
    if (this.commands.length >= maxCommands || this.bytes >= maxBytes) this.flush();
  }

  flush(): void {
    let rest = this.commands;
    if (rest.length === 0) return;
    this.commands = [];
    this.bytes = 0;
    while (rest.length > 0) {
      try {
        this.backend.run(rest);
        break;
      } catch (error) {
        if (!(error instanceof KernelFailure)) throw error;
        rest = poison(rest.slice(error.index), error);
      }
    }
    for (const storage of this.released) this.backend.free(storage);
    this.released.length = 0;
  }

  write(storage: Storage, values: TypedArray): void {
    this.flush();
    this.backend.write(storage, values);
  }

  release(storage: Storage): void {
    if (this.commands.length === 0) this.backend.free(storage);
    else this.released.push(storage);
  }
}

const failed = new WeakSet<Storage>();
/** True if the kernel that should have written this storage, or one it depends on, has failed. */
export const hasFailed = (storage: Storage): boolean => failed.has(storage);

/** Marks the first command's outputs and all that depend on them as failed; returns what can still run. */
function poison(commands: Command[], failure: KernelFailure): Command[] {
  const why = `${commands[0].op} failed: ${failure.message}`;
  const bad = new Set<Storage>();
  return commands.filter((command, i) => {
    if (i > 0 && !command.ins.some(v => bad.has(v.storage))) return true;
    for (const out of command.outs) {
      bad.add(out.storage);
      out.storage.dead ??= why;
      failed.add(out.storage);
    }
    return false;
  });
}

const queues = new WeakMap<Backend, Queue>();
let lastBackend: Backend | null = null;
let lastQueue: Queue | null = null;

/** The queue of a backend, made when it is first asked for. */
export function queueOf(backend: Backend): Queue {
  if (backend === lastBackend) return lastQueue!;
  let queue = queues.get(backend);
  if (!queue) queues.set(backend, (queue = new Queue(backend)));
  lastBackend = backend;
  lastQueue = queue;
  return queue;
}

/** Appends a checked command to the capture in progress, or to its backend's queue. */
export function enqueue(command: Command): void {
  if (runtime.capture) runtime.capture.commands.push(command);
  else queueOf(command.outs[0].storage.backend).push(command);
}

/** Runs everything queued on `backend` and waits for it. */
export async function sync(backend: Backend | null = runtime.backend): Promise<void> {
  if (!backend) return;
  queueOf(backend).flush();
  await backend.sync();
}
