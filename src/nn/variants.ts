import { ArgumentError } from '../core/errors.js';
import { type Shape, show } from '../core/shape.js';
import { Tensor, withBackend } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { windowOf } from '../ops/generated.js';
import { concat, Generated, mul, reshape, slice, take, tensor, unpack, type Weight } from '../ops/index.js';
import { type ApplyOptions, defineLayer, type Layer, LayerError, ParamSpec, within } from './layer.js';
import { asLayer, type LayerLike } from './serial.js';

/** Weights of all members by path, or those of all tasks in a row (`pack`). */
export type VariantParams = Readonly<Record<string, Weight>> | Tensor;

/** Networks of which each task has one: see `variants`. */
export interface Variants extends Layer<VariantParams> {
  /** Where each task's weights begin among those of all tasks in a row, and where the last ends: `[T+1]`. */
  offsets(inShape: Shape, variant: ArrayLike<number>): Int32Array;
  /** The weights of all tasks in a row, each task's own and no more, at `offsets`; `apply` takes it for parameters. */
  pack(params: Readonly<Record<string, Weight>>, inShape: Shape, variant: ArrayLike<number>): Tensor;
}

/** The tasks that have one member, ascending. */
interface Group {
  readonly member: number;
  readonly tasks: readonly number[];
}

/**
 * Networks of different widths or architectures, of which each task has one: `apply(params, x, { variant })`, where task t
 * has member `variant[t]`. All share parameters: a path's is as large as the largest member needs, and the others use
 * its first rows and columns, scaled so that each starts with its own variance. A hypernetwork generates them for all:
 *
 * ```ts
 * const target = variants(serial(dense(16), relu, dense(1)), serial(dense(40), relu, dense(40), relu, dense(1)));
 * const hyper = hypernet({ target, ... });
 * const y = target.apply(hyper.generate(phi, code), x, { variant: [0, 1, 1, 0] });
 * ```
 *
 * Tasks of one member are applied together, under any plan: cheapest where they are neighbours. No weight is made, and
 * no product computed, that a task's network has not. With `rows`, offsets must be host values.
 *
 * Throws ShapeError where members yield different shapes, or a path has another number of axes or another role in one
 * member than in another; ArgumentError for a `variant` that names no member.
 *
 * Yu, Yang, Xu, Yang, Huang, "Slimmable neural networks", ICLR 2019 (weights shared by windows); Brock et al., "SMASH",
 * ICLR 2018 (one hypernetwork for many architectures).
 */
export function variants(...parts: LayerLike[]): Variants {
  const members = parts.map(asLayer);
  if (members.length === 0) throw new ArgumentError('variants: no member given');

  const specsOf = (member: number, inShape: Shape): [string, ParamSpec][] =>
    within(`variants.${member}`, () => tree.entries<ParamSpec>(members[member].params(inShape)));
  const union = (inShape: Shape): Record<string, ParamSpec> => {
    const all: Record<string, ParamSpec> = {};
    for (const member of members.keys())
      for (const [path, spec] of specsOf(member, inShape))
        all[path] = path in all ? joined(path, all[path], spec) : spec;
    return all;
  };
  const groupsOf = (variant: ArrayLike<number> | undefined): Group[] => {
    const groups = members.map((_, member) => ({ member, tasks: [] as number[] }));
    if (!variant) throw new ArgumentError('variants: say which member each task has: { variant: [...] }');
    for (let t = 0; t < variant.length; t++) {
      const group = groups[variant[t]];
      if (!group)
        throw new ArgumentError(
          `variants: task ${t} has member ${variant[t]}, of ${members.length} there are`,
        );
      group.tasks.push(t);
    }
    return groups.filter(({ tasks }) => tasks.length > 0);
  };
  const inAll = (inShape: Shape) => {
    const specs = union(inShape);
    return (member: number) =>
      specsOf(member, inShape).map(([path, spec]) => {
        const whole = specs[path].variance();
        return { path, spec, gain: whole > 0 ? Math.sqrt(spec.variance() / whole) : 1 };
      });
  };
  const offsets = (inShape: Shape, variant: ArrayLike<number>): Int32Array => {
    const at = new Int32Array(variant.length + 1);
    for (const { member, tasks } of groupsOf(variant)) {
      const size = specsOf(member, inShape).reduce((n, [, spec]) => n + spec.size, 0);
      for (const t of tasks) at[t + 1] = size;
    }
    for (let t = 0; t < variant.length; t++) at[t + 1] += at[t];
    return at;
  };

  return {
    ...defineLayer<VariantParams>({
      random: members.some(member => member.random),
      params: union,
      outShape: inShape => {
        const shapes = members.map((member, k) => within(`variants.${k}`, () => member.outShape(inShape)));
        for (const [k, shape] of shapes.entries())
          if (`${shape}` !== `${shapes[0]}`)
            throw new LayerError(
              `variants.${k}`,
              `yields ${show(shape)}, and the first member ${show(shapes[0])}`,
            );
        return shapes[0];
      },
      apply: (params, x, { variant, rows, ...options } = {}) => {
        const groups = groupsOf(variant);
        const count = variant!.length;
        if (rows instanceof Tensor)
          throw new ArgumentError('variants: rows must be host values, an Int32Array');
        if (rows ? rows.length !== count + 1 : x.shape[0] !== count)
          throw new LayerError(
            'variants',
            `${count} tasks do not fit x ${show(x.shape)}${rows ? ` with ${rows.length} offsets` : ''}`,
          );
        // Rows of a layer's input beside the axes that tell tasks and rows apart do not matter to the members' windows.
        const inShape = rows ? x.shape.slice(1) : x.shape.slice(2);
        const flatAt = params instanceof Tensor ? offsets(inShape, variant!) : null;
        const windows = flatAt ? null : inAll(inShape);
        const of = (t: number): number[] => (rows ? range(rows[t], rows[t + 1]) : [t]);
        const ys = groups.map(({ member, tasks }) => {
          const specs = members[member].params(inShape);
          const leaves = windows
            ? windows(member).map(({ path, spec, gain }) =>
                ownOf((params as Record<string, Weight>)[path], path, spec, gain, tasks, count),
              )
            : cut(params as Tensor, flatAt!, tasks, tree.leaves<ParamSpec>(specs));
          const how: ApplyOptions = { ...options, ...(rows && { rows: offsetsAmong(rows, tasks) }) };
          const own = pick(x, tasks.flatMap(of));
          return within(`variants.${member}`, () =>
            members[member].apply(tree.rebuild(specs, leaves), own, how),
          );
        });
        const order = groups.flatMap(({ tasks }) => tasks.flatMap(of));
        const back = new Int32Array(order.length);
        order.forEach((row, at) => {
          back[row] = at;
        });
        return pick(concat(ys, 0), [...back]);
      },
    }),
    offsets,
    pack: (params, inShape, variant) => {
      const windows = inAll(inShape);
      const rows: Tensor[] = [];
      for (const { member, tasks } of groupsOf(variant)) {
        const flat = windows(member).map(({ path, spec, gain }) => {
          const w = ownOf(params[path], path, spec, gain, tasks, variant.length);
          return reshape(w instanceof Generated ? w.materialise() : w, [tasks.length, spec.size]);
        });
        unpack(
          concat(flat, 1),
          tasks.map(() => 1),
          0,
        ).forEach((row, k) => {
          rows[tasks[k]] = reshape(row, [row.size]);
        });
      }
      return concat(rows, 0);
    },
  };
}

/** One spec for both: large enough, and with the larger variance at the start. */
function joined(path: string, a: ParamSpec, b: ParamSpec): ParamSpec {
  if (a.shape.length !== b.shape.length || a.role !== b.role)
    throw new LayerError(
      path,
      `a ${a.role} ${show(a.shape)} and a ${b.role} ${show(b.shape)} of two members cannot share a basis`,
    );
  const shape = a.shape.map((n, k) => Math.max(n, b.shape[k]));
  const { role, fan, mode } = b.variance() > a.variance() ? b : a;
  return new ParamSpec(shape, role, fan, mode);
}

/** A member's window of a weight, of those tasks that have it. */
function ownOf(
  w: Weight | undefined,
  path: string,
  { shape }: ParamSpec,
  gain: number,
  tasks: readonly number[],
  count: number,
): Weight {
  const lead = w ? w.shape.length - shape.length : -1;
  if (
    !w ||
    lead < 0 ||
    lead > 1 ||
    shape.some((n, k) => n > w.shape[lead + k]) ||
    (lead === 1 && w.shape[0] !== count)
  )
    throw new LayerError(
      path,
      `expected at least ${show(shape)} for each of ${count} tasks, got ${w ? show(w.shape) : 'nothing'}`,
    );
  if (!(w instanceof Generated)) {
    const windowed = windowOf(w, shape);
    const scaled = gain === 1 ? windowed : mul(windowed, gain);
    return lead === 1 ? pick(scaled, tasks) : scaled;
  }
  const { own, shared, make } = w.parts();
  return make(
    own.map(part => pick(part, tasks)),
    shared,
  ).window(shape, gain);
}

/** The weights of some tasks out of those of all in a row. */
function cut(flat: Tensor, at: Int32Array, tasks: readonly number[], specs: readonly ParamSpec[]): Tensor[] {
  const size = at[tasks[0] + 1] - at[tasks[0]];
  if (flat.rank !== 1 || flat.size !== at[at.length - 1])
    throw new LayerError(
      'variants',
      `weights in a row must be [${at[at.length - 1]}], got ${show(flat.shape)}`,
    );
  const rows = runs(tasks).map(([from, to]) => slice(flat, 0, at[from], at[to]));
  const each = reshape(concat(rows, 0), [tasks.length, size]);
  return unpack(
    each,
    specs.map(spec => spec.size),
  ).map((leaf, k) => reshape(leaf, [tasks.length, ...specs[k].shape]));
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, k) => from + k);

/** Runs `[from, to)` of ascending numbers that follow one another. */
function runs(ascending: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const n of ascending) {
    const last = found[found.length - 1];
    if (last && last[1] === n) last[1]++;
    else found.push([n, n + 1]);
  }
  return found;
}

/** Positions of the first axis in the order given: a view where they follow one another. */
function pick(x: Tensor, at: readonly number[]): Tensor {
  const first = at[0] ?? 0;
  if (at.every((n, k) => n === first + k)) return slice(x, 0, first, first + at.length);
  return take(
    x,
    withBackend(x.backend, () => tensor(Int32Array.from(at))),
  );
}

/** Offsets of some tasks' rows when the others' are left out. */
function offsetsAmong(rows: Int32Array, tasks: readonly number[]): Int32Array {
  const out = new Int32Array(tasks.length + 1);
  tasks.forEach((t, k) => {
    out[k + 1] = out[k] + rows[t + 1] - rows[t];
  });
  return out;
}
