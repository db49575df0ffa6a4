/**
 * Where a program's storages live: donated arguments are updated in place where no read is harmed, and temporaries
 * share scratch memory when they are never alive together.
 */
import type { BackendLimits, Command, Storage, View } from '../core/backend.js';
import { sameShape } from '../core/shape.js';
import { denseView } from '../core/tensor.js';

/** A donated argument and the output that replaces it. */
export interface Donation {
  readonly input: Storage;
  readonly output: Storage;
}

export interface Layout {
  readonly commands: Command[];
  readonly buffers: number[];
  readonly places: Map<Storage, { buffer: number; offset: number }>;
  /** Donated arguments updated in place; the others are copied into at the end. */
  readonly inPlace: number;
}

interface Life {
  readonly storage: Storage;
  readonly bytes: number;
  birth: number;
  death: number;
}

/** Assigns places. `external` storages are bound from outside and get none. */
export function layOut(
  commands: readonly Command[],
  donations: readonly Donation[],
  external: ReadonlySet<Storage>,
  limits: BackendLimits,
): Layout {
  const { commands: placed, inPlace } = donate(commands, donations, limits);
  const lives = lifetimes(placed, external);
  const packed = limits.packing === 'offsets' ? packOffsets(lives) : packBuffers(lives);
  return { commands: placed, inPlace, ...packed };
}

/**
 * Lets an output take its donated argument's memory iff the argument is last read in or before the kernel that first
 * writes the output, and is read inside that kernel with the output's exact layout by an elementwise kernel only, or by
 * the epilogue of a product that the backend keeps apart from its results.
 */
function donate(
  commands: readonly Command[],
  donations: readonly Donation[],
  limits: BackendLimits,
): { commands: Command[]; inPlace: number } {
  const renamed = new Map<Storage, Storage>();
  const late: Command[] = [];
  for (const { input, output } of donations) {
    const first = commands.findIndex(c => c.outs.some(v => v.storage === output));
    const harmless = commands.every((c, i) => {
      const reads = c.ins.filter(v => v.storage === input);
      if (reads.length === 0 || i < first) return true;
      const out = c.outs.find(v => v.storage === output);
      return (
        i === first &&
        out !== undefined &&
        byElement(c, reads, limits) &&
        reads.every(v => sameLayout(v, out))
      );
    });
    if (harmless) renamed.set(output, input);
    else {
      const shape = [output.size];
      late.push({
        kernel: 'copy',
        op: 'copy',
        outs: [denseView(input, shape)],
        ins: [denseView(output, shape)],
        attrs: {},
      });
    }
  }
  const rename = (v: View): View => {
    const storage = renamed.get(v.storage);
    return storage ? { ...v, storage } : v;
  };
  const placed = [...commands, ...late].map(c => ({
    ...c,
    ins: c.ins.map(rename),
    outs: c.outs.map(rename),
  }));
  return { commands: placed, inPlace: renamed.size };
}

/** Whether the command reads these an element at a time, before it stores that element. */
const byElement = ({ kernel, ins, attrs }: Command, reads: readonly View[], limits: BackendLimits) =>
  kernel === 'elementwise' ||
  (attrs.epilogue !== undefined &&
    limits.epilogue.has(`${kernel}Update`) &&
    reads.every(v => ins.indexOf(v) >= PRODUCT_INS));
/** Operands of a product that come before those of its epilogue. */
const PRODUCT_INS = 2;

const sameLayout = (a: View, b: View) =>
  a.offset === b.offset && sameShape(a.shape, b.shape) && sameShape(a.strides, b.strides);

function lifetimes(commands: readonly Command[], external: ReadonlySet<Storage>): Life[] {
  const lives = new Map<Storage, Life>();
  commands.forEach((command, i) => {
    for (const { storage } of [...command.outs, ...command.ins]) {
      if (external.has(storage)) continue;
      const life = lives.get(storage);
      if (life) life.death = i;
      else lives.set(storage, { storage, bytes: Math.max(align(storage.size * 4), 64), birth: i, death: i });
    }
  });
  return [...lives.values()];
}

const align = (bytes: number) => Math.ceil(bytes / 64) * 64;
const together = (a: Life, b: Life) => a.birth <= b.death && b.birth <= a.death;

/** One arena: by decreasing size, each at the lowest offset free of everything alive with it. */
function packOffsets(lives: readonly Life[]): Pick<Layout, 'buffers' | 'places'> {
  const places: Layout['places'] = new Map();
  const done: { life: Life; offset: number }[] = [];
  let size = 0;
  for (const life of [...lives].sort((a, b) => b.bytes - a.bytes)) {
    let offset = 0;
    for (const other of done) {
      if (!together(life, other.life)) continue;
      if (other.offset >= offset + life.bytes) break;
      offset = Math.max(offset, other.offset + other.life.bytes);
    }
    const at = done.findIndex(o => o.offset > offset);
    done.splice(at < 0 ? done.length : at, 0, { life, offset });
    places.set(life.storage, { buffer: 0, offset });
    size = Math.max(size, offset + life.bytes);
  }
  return { buffers: size > 0 ? [size] : [], places };
}

/** Whole buffers: in order of birth, each takes the smallest free buffer that holds it. */
function packBuffers(lives: readonly Life[]): Pick<Layout, 'buffers' | 'places'> {
  const places: Layout['places'] = new Map();
  const buffers: number[] = [];
  const busyUntil: number[] = [];
  for (const life of [...lives].sort((a, b) => a.birth - b.birth)) {
    let best = -1;
    for (let k = 0; k < buffers.length; k++)
      if (busyUntil[k] < life.birth && buffers[k] >= life.bytes && (best < 0 || buffers[k] < buffers[best]))
        best = k;
    // A buffer many times too large would keep the memory of something big alive for something small.
    if (best < 0 || buffers[best] > 4 * life.bytes) best = buffers.push(life.bytes) - 1;
    busyUntil[best] = life.death;
    places.set(life.storage, { buffer: best, offset: 0 });
  }
  return { buffers, places };
}
