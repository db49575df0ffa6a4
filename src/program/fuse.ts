/**
 * Turning the recorded commands of a step into fewer ones: commands nobody needs are dropped, chains and DAGs of
 * elementwise commands become one expression each, an expression behind a matmul or conv2d becomes its epilogue, one
 * before a reduction or a pooling its prologue, and independent expressions over one shape share a kernel. Results do
 * not change (every instruction still rounds), but for the sign of a zero where a gradient's mask is pooled.
 */
import type { BackendLimits, Command, Expr, Instruction, Storage, View } from '../core/backend.js';
import { isDense, reshapeStrides, type Shape, sameShape, sizeOf } from '../core/shape.js';

/** Elementwise commands that run as one kernel, at the place of the last of them. */
interface Group {
  readonly shape: Shape;
  /** In execution order. */
  readonly members: Command[];
  at: number;
}

const maxInstructions = 64;

/**
 * The fused commands. `kept` are storages read after the program (its outputs). An elementwise command joins one at most
 * `reach` commands later: what it reads lives until then, which a step that is short of memory cannot afford. With
 * `updates`, a product whose result is only there to update others does that itself: its own memory is saved, but the
 * others pass the caches in shorter runs, which takes longer.
 */
export function fuse(
  commands: readonly Command[],
  kept: ReadonlySet<Storage>,
  limits: BackendLimits,
  { reach = Infinity, updates = false } = {},
): Command[] {
  const needed = dropUnused(maskPooled(dropUnused(inlineConstants(commands), kept), kept), kept);
  const uses = new Uses(needed, kept);
  const slots = vertical(needed, uses, reach);
  splitPrologues(slots, uses, limits);
  foldEpilogues(slots, uses, limits, updates);
  foldPrologues(slots, uses, limits);
  horizontal(slots);
  const fused = slots.flatMap(slot =>
    slot === null ? [] : isGroup(slot) ? emit(slot, uses, limits) : [slot],
  );
  return storeInWindows(fused, kept);
}

type Slot = Group | Command | null;
const isGroup = (slot: Slot): slot is Group => slot !== null && 'members' in slot;

/** Elementwise commands read a number where they read a tensor filled with it, or computed of such tensors alone. */
function inlineConstants(commands: readonly Command[]): Command[] {
  const filled = new Map<Storage, number>();
  return commands.map(command => {
    if (command.kernel !== 'elementwise') return command;
    const inlined = withNumbers(command, filled);
    const [out] = inlined.outs;
    const value = constantOf(inlined.attrs.expr as Expr);
    if (value !== null && sizeOf(out.shape) === out.storage.size) filled.set(out.storage, value);
    return inlined;
  });
}

/** The command with immediates in place of operands that are filled with a number. */
function withNumbers(command: Command, filled: ReadonlyMap<Storage, number>): Command {
  if (!command.ins.some(v => filled.has(v.storage))) return command;
  const { expr } = command.attrs as { expr: Expr };
  const immediates = [...expr.immediates];
  const ins = command.ins.filter(v => !filled.has(v.storage));
  const registers = command.ins.map(v => {
    const value = filled.get(v.storage);
    return value === undefined ? ins.indexOf(v) : -immediates.push(value);
  });
  const map = (r: number) => (r < 0 ? r : r < expr.inputs ? registers[r] : r - expr.inputs + ins.length);
  const code = expr.code.map(({ scalar, args }) => ({ scalar, args: args.map(map) }));
  const inlined: Expr = { inputs: ins.length, immediates, code, outs: expr.outs.map(map) };
  return { ...command, ins, attrs: { expr: inlined } };
}

/** Instructions whose result, rounded to f32, is the same bits wherever it is computed. */
const EXACT: ReadonlySet<string> = new Set(['add', 'sub', 'mul', 'div', 'neg']);

/** What an expression without inputs gives, where that is the same in f32 and in float64 rounded to f32; else null. */
function constantOf({ inputs, immediates, code, outs }: Expr): number | null {
  if (inputs > 0 || outs.length > 1 || code.some(({ scalar }) => !EXACT.has(scalar.name))) return null;
  const give = (round: (x: number) => number): number => {
    const registers: number[] = [];
    const read = (r: number) => (r < 0 ? round(immediates[-1 - r]) : registers[r]);
    for (const { scalar, args } of code) {
      const [a, b, c] = args.map(read);
      registers.push(round(scalar.f(a, b, c)));
    }
    return read(outs[0]);
  };
  const value = give(x => x);
  return Object.is(Math.fround(value), give(Math.fround)) ? value : null;
}

/** Commands whose results are read, directly or not, by what is kept. */
function dropUnused(commands: readonly Command[], kept: ReadonlySet<Storage>): Command[] {
  const live = new Set(kept);
  const out: Command[] = [];
  for (let i = commands.length - 1; i >= 0; i--) {
    const command = commands[i];
    if (!command.outs.some(v => live.has(v.storage))) continue;
    for (const v of command.ins) live.add(v.storage);
    out.push(command);
  }
  return out.reverse();
}

/** Who reads and writes what. */
class Uses {
  readonly readers = new Map<Storage, Command[]>();
  readonly writers = new Map<Storage, number>();
  /** The slot a command has ended up in. */
  readonly place = new Map<Command, number>();
  constructor(
    commands: readonly Command[],
    readonly kept: ReadonlySet<Storage>,
  ) {
    commands.forEach((command, i) => {
      this.place.set(command, i);
      for (const v of command.outs) this.writers.set(v.storage, (this.writers.get(v.storage) ?? 0) + 1);
      for (const s of new Set(command.ins.map(v => v.storage))) {
        const list = this.readers.get(s);
        if (list) list.push(command);
        else this.readers.set(s, [command]);
      }
    });
  }
  readersOf(command: Command): Command[] {
    return command.outs.flatMap(v => this.readers.get(v.storage) ?? []);
  }
}

/** A view of all of a storage that one command alone writes, dense. */
const whole = (v: View, uses: Uses): boolean =>
  v.offset === 0 &&
  isDense(v.shape, v.strides) &&
  sizeOf(v.shape) === v.storage.size &&
  uses.writers.get(v.storage) === 1;

/** The view with another shape of the same size, or null where its axes do not chain. */
function viewAs(v: View, shape: Shape): View | null {
  if (sameShape(v.shape, shape)) return v;
  const strides = reshapeStrides(v.shape, v.strides, shape);
  return strides && { ...v, shape, strides };
}

const denseRead = (v: View): boolean =>
  v.offset === 0 && isDense(v.shape, v.strides) && sizeOf(v.shape) === v.storage.size;

/** The axes of a view of all of a storage as they lie there, outermost first; null for another view. */
function axesInMemory(v: View): number[] | null {
  const order = [...v.shape.keys()].sort((a, b) => v.strides[b] - v.strides[a] || a - b);
  const [shape, strides] = [v.shape, v.strides].map(list => order.map(k => list[k]));
  return denseRead({ ...v, shape, strides }) ? order : null;
}

/**
 * The kept axis that lies innermost in what a reduction reads, where the reduced ones are one run of rows around it, in
 * their order: each column is then summed up row by row, as it would be if it were stored. Null for another command.
 */
function columnOf({ kernel, ins: [x], attrs }: Command): number | null {
  if (kernel !== 'reduce') return null;
  const kept = x.shape.length - (attrs.reduced as number);
  const order = axesInMemory(x)?.filter(k => x.shape[k] > 1) ?? [];
  const [first, last] = [order.findIndex(k => k >= kept), order.findLastIndex(k => k >= kept)];
  const run = first < 0 ? [] : order.slice(first, last + 1);
  const isRun = run.length > 0 && run.every((k, i) => k >= kept && (i === 0 || k > run[i - 1]));
  return isRun && last + 1 < order.length ? order[order.length - 1] : null;
}

/** The view with its axis i moved to place `order[i]`. */
function withAxesAt(v: View, order: readonly number[]): View {
  const at = order.map((_, k) => order.indexOf(k));
  return { ...v, shape: at.map(i => v.shape[i]), strides: at.map(i => v.strides[i]) };
}

/** Pooling under windows that do not overlap, so that no place is read or written twice. */
const isApart = ({ attrs }: Command): boolean => {
  const { window, stride } = attrs as { window: readonly number[]; stride: readonly number[] };
  return window.every((n, k) => n <= stride[k]);
};

/** A command that applies one scalar to its ins, then to its one immediate if it has one. */
function isScalar({ kernel, ins, attrs }: Command, name: string): boolean {
  if (kernel !== 'elementwise') return false;
  const { code } = attrs.expr as Expr;
  return (
    code.length === 1 &&
    code[0].scalar.name === name &&
    code[0].args.every((r, k) => r === (k < ins.length ? k : ins.length - 1 - k))
  );
}

/**
 * `scatter(g, index) * (x > c)` becomes `scatter(g * (y > c), index)` where `y` and `index` are what maxPool found in
 * `x` under windows that do not overlap: the places scattered to hold `y`, all others get 0 either way. The mask is
 * then taken of far fewer elements, and `x` need not be stored for it.
 */
function maskPooled(commands: readonly Command[], kept: ReadonlySet<Storage>): Command[] {
  const uses = new Uses(commands, kept);
  const makers = new Map(commands.flatMap(c => c.outs.map(v => [v.storage, c] as const)));
  const moved = new Map<Command, Command[]>();
  for (const product of commands) {
    if (!isScalar(product, 'mul') || product.ins.length !== 2) continue;
    const [scatter, mask] = product.ins.map(v => makers.get(v.storage));
    if (scatter?.kernel !== 'maxPoolScatter' || !mask || !isScalar(mask, 'gt') || mask.ins.length !== 1)
      continue;
    const [g, index] = scatter.ins;
    const [image] = scatter.outs;
    const pooling = makers.get(index.storage);
    if (pooling?.kernel !== 'maxPool' || !isApart(pooling)) continue;
    const [x] = pooling.ins;
    const [y, found] = pooling.outs;
    const views = [...product.ins, product.outs[0], mask.ins[0], mask.outs[0], image, x, y, index, found];
    const fits =
      mask.ins[0].storage === x.storage &&
      views.every(denseRead) &&
      uses.readers.get(image.storage)!.length === 1 &&
      !kept.has(image.storage);
    if (!fits) continue;
    const storage = { ...image.storage, size: sizeOf(g.shape) };
    const masked = { ...y, storage };
    const [gt, mul] = [mask, product].map(c => (c.attrs.expr as Expr).code[0].scalar);
    const code = [
      { scalar: gt, args: [1, -1] },
      { scalar: mul, args: [0, 2] },
    ];
    const { immediates } = mask.attrs.expr as Expr;
    const expr: Expr = { inputs: 2, immediates, code, outs: [3] };
    const op = `${mask.op}+${product.op}`;
    moved.set(scatter, []);
    moved.set(product, [
      { kernel: 'elementwise', op, outs: [masked], ins: [g, y], attrs: { expr } },
      { ...scatter, ins: [masked, index], outs: [viewAs(product.outs[0], image.shape)!] },
    ]);
  }
  return commands.flatMap(c => moved.get(c) ?? [c]);
}

/**
 * From the last command to the first, joins an elementwise command to the earliest group that reads it, if everything
 * else that reads it runs later than that group, and that is within reach.
 */
function vertical(commands: readonly Command[], uses: Uses, reach: number): Slot[] {
  const slots: Slot[] = [...commands];
  const groupOf = new Map<Command, Group>();
  for (let i = commands.length - 1; i >= 0; i--) {
    const command = commands[i];
    if (command.kernel !== 'elementwise' || command.outs.length !== 1 || !whole(command.outs[0], uses))
      continue;
    const [out] = command.outs;
    const readers = uses.readersOf(command);
    let target: Group | undefined;
    for (const reader of readers) {
      const group = groupOf.get(reader);
      if (group && (!target || group.at < target.at)) target = group;
    }
    const joins =
      target &&
      target.at - i <= reach &&
      target.members.length < maxInstructions &&
      sizeOf(target.shape) === sizeOf(out.shape) &&
      command.ins.every(v => viewAs(v, target.shape) !== null) &&
      readers.every(r =>
        groupOf.get(r) === target
          ? r.ins.every(v => v.storage !== out.storage || denseRead(v))
          : uses.place.get(r)! > target.at,
      );
    if (target && joins) {
      target.members.unshift(command);
      slots[i] = null;
      groupOf.set(command, target);
      uses.place.set(command, target.at);
    } else {
      const group: Group = { shape: out.shape, members: [command], at: i };
      slots[i] = group;
      groupOf.set(command, group);
    }
  }
  return slots;
}

/** Members' outputs that are read outside the group. */
function stored(group: Group, uses: Uses): Command[] {
  const inside = new Set(group.members);
  return group.members.filter(
    m => uses.kept.has(m.outs[0].storage) || uses.readersOf(m).some(r => !inside.has(r)),
  );
}

interface Expression {
  readonly ins: View[];
  readonly outs: View[];
  readonly expr: Expr;
}

/** One expression for all members, over views in the group's shape. `first` is the register 0 where it is given. */
function express(
  members: readonly Command[],
  results: readonly Command[],
  shape: Shape,
  first?: Storage,
): Expression {
  const ins: View[] = [];
  const produced = new Map<Storage, number>();
  const code: Instruction[] = [];
  const immediates: number[] = [];
  const inside = new Set(members.map(m => m.outs[0].storage));
  if (first) produced.set(first, 0);
  const extra = first ? 1 : 0;
  for (const m of members)
    for (const raw of m.ins) {
      if (inside.has(raw.storage) || raw.storage === first) continue;
      const v = viewAs(raw, shape)!;
      if (!ins.some(w => sameLayout(v, w))) ins.push(v);
    }
  const immediate = (value: number) => {
    const at = immediates.findIndex(x => Object.is(x, value));
    return at >= 0 ? -1 - at : -immediates.push(value);
  };
  const total = ins.length + extra;
  for (const m of members) {
    const { expr } = m.attrs as { expr: Expr };
    const read = (v: View) =>
      produced.get(v.storage) ?? extra + ins.findIndex(w => sameLayout(viewAs(v, shape)!, w));
    const registers = m.ins.map(read);
    const map = (r: number) => (r < 0 ? immediate(expr.immediates[-1 - r]) : registers[r]);
    for (const { scalar, args } of expr.code) {
      registers.push(total + code.length);
      code.push({ scalar, args: args.map(map) });
    }
    produced.set(m.outs[0].storage, map(expr.outs[0]));
  }
  return {
    ins,
    outs: results.map(m => viewAs(m.outs[0], shape)!),
    expr: { inputs: total, immediates, code, outs: results.map(m => produced.get(m.outs[0].storage)!) },
  };
}

function sameLayout(a: View, b: View): boolean {
  return a.storage === b.storage && a.offset === b.offset && sameShape(a.strides, b.strides);
}

/**
 * A product whose (first) result only one group reads takes the group as its epilogue: one that stores one result, or
 * with `updates` several.
 */
function foldEpilogues(slots: Slot[], uses: Uses, limits: BackendLimits, updates: boolean): void {
  for (let i = 0; i < slots.length; i++) {
    const group = slots[i];
    if (!isGroup(group)) continue;
    const results = stored(group, uses);
    const several = results.length > 1;
    if (several && !updates) continue;
    const able = (kernel: string) => limits.epilogue.has(several ? `${kernel}Update` : kernel);
    const inside = new Set(group.members);
    for (let j = i - 1; j >= 0; j--) {
      const product = slots[j];
      if (product === null || isGroup(product) || !able(product.kernel)) continue;
      const [y] = product.outs;
      const readers = uses.readers.get(y.storage) ?? [];
      if (uses.kept.has(y.storage) || !whole(y, uses) || !readers.some(r => inside.has(r))) continue;
      const fits =
        !product.attrs.epilogue &&
        !product.attrs.prologue &&
        readers.every(r => inside.has(r) && r.ins.every(v => v.storage !== y.storage || denseRead(v))) &&
        group.members.every(m => m.ins.every(v => viewAs(v, y.shape) !== null));
      if (!fits) continue;
      const { ins, outs, expr } = express(group.members, results, y.shape, y.storage);
      if (product.ins.length + ins.length + outs.length > limits.maxBindings) continue;
      const folded: Command = {
        kernel: product.kernel,
        op: `${product.op}+${group.members.map(m => m.op).join('+')}`,
        outs: [...outs, ...product.outs.slice(1)],
        ins: [...product.ins, ...ins],
        attrs: { ...product.attrs, epilogue: expr },
      };
      slots[j] = null;
      slots[i] = folded;
      break;
    }
  }
}

/**
 * Of two results that a group stores, one that only a reduction reads moves there, if it follows from the other: the
 * rest of the group may then be the epilogue of a product.
 */
function splitPrologues(slots: Slot[], uses: Uses, limits: BackendLimits): void {
  const groups = new Map<Storage, Group>();
  slots.forEach((slot, i) => {
    if (slot === null) return;
    if (isGroup(slot)) {
      for (const m of slot.members) groups.set(m.outs[0].storage, slot);
      return;
    }
    if (slot.kernel !== 'reduce' || !limits.prologue.has('reduce')) return;
    const [x] = slot.ins;
    const group = groups.get(x.storage);
    if (!group || uses.kept.has(x.storage) || uses.readers.get(x.storage)!.length > 1) return;
    const results = stored(group, uses);
    const last = results.find(m => m.outs[0].storage === x.storage);
    if (!last || results.length !== 2) return;
    const others = new Set(group.members.map(m => m.outs[0].storage));
    const [other] = results.filter(m => m !== last).map(m => m.outs[0].storage);
    const fits =
      denseRead(x) &&
      last.ins.every(v => viewAs(v, x.shape) !== null && (v.storage === other || !others.has(v.storage)));
    if (!fits) return;
    const { ins, expr } = express([last], [last], x.shape);
    if (ins.length === 0 || ins.length > 2 || ins.length + 1 > limits.maxBindings) return;
    group.members.splice(group.members.indexOf(last), 1);
    slots[i] = {
      ...slot,
      op: `${last.op}+${slot.op}`,
      ins,
      attrs: { ...slot.attrs, prologue: expr },
    };
  });
}

/**
 * A reduction or pooling of all of what a group stores takes the group as its prologue if nothing else reads that: in
 * the order in which it is stored, or for `reduceColumns` by the columns of what would be.
 */
function foldPrologues(slots: Slot[], uses: Uses, limits: BackendLimits): void {
  const groups = new Map<Storage, number>();
  slots.forEach((slot, i) => {
    if (slot === null) return;
    if (isGroup(slot)) {
      const results = stored(slot, uses);
      if (results.length === 1) groups.set(results[0].outs[0].storage, i);
      return;
    }
    if (!limits.prologue.has(slot.kernel) || slot.attrs.prologue || slot.attrs.epilogue) return;
    if (slot.kernel === 'maxPool' && !isApart(slot)) return;
    const [x] = slot.ins;
    const at = groups.get(x.storage);
    if (at === undefined || uses.kept.has(x.storage) || uses.readers.get(x.storage)!.length > 1) return;
    const group = slots[at] as Group;
    const column = limits.prologue.has('reduceColumns') ? columnOf(slot) : null;
    const order = denseRead(x) ? [...x.shape.keys()] : column !== null ? axesInMemory(x) : null;
    const shape = order?.map(k => x.shape[k]);
    const fits = shape && group.members.every(m => m.ins.every(v => viewAs(v, shape) !== null));
    if (!fits) return;
    const { ins: lying, expr } = express(group.members, stored(group, uses), shape);
    const ins = lying.map(v => withAxesAt(v, order!));
    if (ins.length === 0 || ins.length + 1 > limits.maxBindings) return;
    slots[at] = null;
    slots[i] = {
      ...slot,
      op: `${group.members.map(m => m.op).join('+')}+${slot.op}`,
      ins,
      attrs: { ...slot.attrs, prologue: expr, ...(denseRead(x) ? {} : { column }) },
    };
  });
}

/** Joins a group to an earlier one of the same shape when nothing it reads is made in between. */
function horizontal(slots: Slot[]): void {
  const born = new Map<Storage, number>();
  const latest = new Map<string, Group>();
  slots.forEach((slot, i) => {
    if (slot === null) return;
    if (!isGroup(slot)) {
      for (const v of slot.outs) born.set(v.storage, i);
      return;
    }
    const shape = slot.shape.join();
    const earlier = latest.get(shape);
    const ready =
      earlier &&
      earlier.members.length + slot.members.length <= maxInstructions &&
      slot.members.every(m =>
        m.ins.every(
          v =>
            (born.get(v.storage) ?? -1) < earlier.at ||
            slot.members.some(o => o.outs[0].storage === v.storage) ||
            (denseRead(v) && earlier.members.some(o => o.outs[0].storage === v.storage)),
        ),
      );
    const group = earlier && ready ? earlier : slot;
    if (group !== slot) {
      group.members.push(...slot.members);
      slots[i] = null;
    }
    latest.set(shape, group);
    for (const m of slot.members) born.set(m.outs[0].storage, group.at);
  });
}

/** The group as one command, or as several where one would need more bindings than the backend has. */
function emit(group: Group, uses: Uses, limits: BackendLimits): Command[] {
  const results = stored(group, uses);
  const { ins, outs, expr } = express(group.members, results, group.shape);
  if (ins.length + outs.length <= limits.maxBindings || group.members.length === 1) {
    const op = [...new Set(group.members.map(m => m.op))].join('+');
    return [{ kernel: 'elementwise', op, outs, ins, attrs: { expr } }];
  }
  const middle = group.members.length >> 1;
  const halves = [group.members.slice(0, middle), group.members.slice(middle)];
  return halves.flatMap(members => emit({ ...group, members }, uses, limits));
}

/**
 * What is only copied into a window of another storage (by concat, say) is stored there by the command that makes it.
 * The windows of that storage must be disjoint: nothing may depend on the order in which they are written.
 */
function storeInWindows(commands: readonly Command[], kept: ReadonlySet<Storage>): Command[] {
  const uses = new Uses(commands, kept);
  const written = new Map<Storage, number>();
  const firstRead = new Map<Storage, number>();
  const maker = new Map<Storage, number>();
  commands.forEach((command, i) => {
    for (const { storage } of command.ins) if (!firstRead.has(storage)) firstRead.set(storage, i);
    for (const { storage, shape } of command.outs) {
      written.set(storage, (written.get(storage) ?? 0) + sizeOf(shape));
      maker.set(storage, i);
    }
  });
  const out: (Command | null)[] = [...commands];
  commands.forEach((copy, i) => {
    if (copy.kernel !== 'copy') return;
    const [x] = copy.ins;
    const [window] = copy.outs;
    const at = maker.get(x.storage);
    if (at === undefined || kept.has(x.storage) || uses.readers.get(x.storage)!.length > 1) return;
    const disjoint = written.get(window.storage) === window.storage.size;
    if (!disjoint || !denseRead(x) || i > (firstRead.get(window.storage) ?? i)) return;
    const command = out[at]!;
    const made = command.outs.find(v => v.storage === x.storage)!;
    const place = whole(made, uses) && viewAs({ ...window, shape: x.shape }, made.shape);
    if (!place) return;
    out[at] = { ...command, outs: command.outs.map(v => (v === made ? place : v)) };
    out[i] = null;
    maker.set(window.storage, at);
  });
  return out.filter(c => c !== null);
}
