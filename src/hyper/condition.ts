/** Conditions: what tells a hypernetwork which task it is. Each turns its input into a code `[T,E]`. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import { Tensor } from '../core/tensor.js';
import {
  type ApplyOptions,
  dense,
  type Layer,
  type LayerLike,
  meanByTask,
  ParamSpec,
  serial,
} from '../nn/index.js';
import {
  concat,
  div,
  expand,
  max,
  mean,
  mul,
  normal,
  oneHot,
  type Rows,
  relu,
  reshape,
  sigmoid,
  softmax,
  split,
  sum,
  take,
  tensor,
  where,
} from '../ops/index.js';
import { offsetsOf } from '../ops/linear.js';

/** What a condition may know of the target: the shape of one row of its input and of its output. */
export interface TargetShapes {
  readonly inShape: Shape;
  readonly outShape: Shape;
}

/** A condition that knows its target. */
export interface Encoder<I = any> {
  /** E. */
  readonly size: number;
  /** Description of what it learns, see `ParamSpec`. */
  readonly params: any;
  /** The code `[T,E]`. */
  encode(params: any, input: I, options?: ApplyOptions): Tensor;
  /** Standard normal (or all) input for `tasks` tasks, to measure the code's size at the start. */
  example(key: Tensor, tasks: number): I;
}

/** What tells tasks apart: made before the target is known, bound to it by `hypernet`. */
export type Condition<I = any> = (target: TargetShapes) => Encoder<I>;

/**
 * Support rows of T tasks: x `[T,S,...]` with y `[T,S,...]`, or labels (i32) `[T,S]`. Ragged: x `[N,...]`, y likewise,
 * and offsets.
 */
export interface Support {
  readonly x: Tensor;
  readonly y: Tensor;
  /** Offsets `[T+1]` of ragged rows. */
  readonly rows?: Rows;
  /** `[T,S]`: 1 for rows that count, 0 for padding. */
  readonly mask?: Tensor;
}

/**
 * Encodes a support set: every row (x beside y) goes through dense layers of the given sizes, each with a relu, and
 * the mean over a task's rows is its code. The order of rows does not matter (Zaheer et al., "Deep sets", 2017).
 * Takes `{ x, y }`, or one tensor `[T,S,in+out]` that is both side by side.
 */
export const setEncoder =
  (sizes: readonly number[]): Condition<Support | Tensor> =>
  ({ inShape, outShape }) => {
    if (sizes.length === 0) throw new ArgumentError('setEncoder: needs at least one layer size');
    const width = sizeOf(inShape) + sizeOf(outShape);
    const layers = serial(...sizes.flatMap((n): LayerLike[] => [dense(n), relu]));
    return {
      size: sizes[sizes.length - 1],
      params: layers.params([width]),
      encode: (params, support) => {
        const { rows, mask } = support instanceof Tensor ? ({} as Partial<Support>) : support;
        const lead = rows ? 1 : 2;
        const joined = support instanceof Tensor ? support : joinRows(support, lead, sizeOf(outShape));
        if (joined.rank !== lead + 1 || joined.shape[lead] !== width)
          throw new ShapeError(
            `setEncoder: rows must be [${rows ? 'N' : 'T,S'},${width}] (${show(inShape)} beside ${show(outShape)}), got ${show(joined.shape)}`,
          );
        const h = layers.apply(params, joined);
        if (rows) return meanByTask(h, offsetsOf(rows, h.backend));
        if (!mask) return mean(h, 1);
        return div(sum(mul(h, expand(mask, -1)), 1), max(sum(mask, 1, { keepDims: true }), 1));
      },
      example: (key, tasks) => normal(key, [tasks, 10, width]),
    };
  };

/** An encoder that can tell how it weighed the rows it read. */
export interface AttentiveEncoder extends Encoder<Support> {
  /** The weight of every row, `[T,S]`: not negative, a task's sum is 1, and 0 where the mask is 0. */
  attention(params: any, support: Support): Tensor;
}

/**
 * As `setEncoder`, but a task's code is a weighted mean of its rows, by attention with one learned query (Bahdanau, Cho,
 * Bengio, ICLR 2015): a row counts as the exponential of how well it fits the query. A task needs a row that counts.
 * Rows of tasks must come in equal numbers, padded and masked where they do not (ArgumentError).
 */
export const attentionEncoder =
  (sizes: readonly number[]) =>
  ({ inShape, outShape }: TargetShapes): AttentiveEncoder => {
    if (sizes.length === 0) throw new ArgumentError('attentionEncoder: needs at least one layer size');
    const width = sizeOf(inShape) + sizeOf(outShape);
    const layers = serial(...sizes.flatMap((n): LayerLike[] => [dense(n), relu]));
    const size = sizes[sizes.length - 1];
    const read = (params: any, support: Support): { features: Tensor; weights: Tensor } => {
      if (support.rows)
        throw new ArgumentError(
          'attentionEncoder: rows come in equal numbers here; pad them and give a mask',
        );
      const features = layers.apply(params.layers, joinRows(support, 2, sizeOf(outShape)));
      const scores = mul(sum(mul(features, params.query), -1), 1 / Math.sqrt(size));
      return { features, weights: softmax(support.mask ? where(support.mask, scores, -1e30) : scores) };
    };
    return {
      size,
      params: {
        layers: layers.params([width]),
        query: new ParamSpec([size], 'weight', { in: 1, out: 1, gain: 1 }),
      },
      attention: (params, support) => read(params, support).weights,
      encode: (params, support) => {
        const { features, weights } = read(params, support);
        return sum(mul(features, expand(weights, -1)), 1);
      },
      example: (key, tasks) => {
        const [forX, forY] = split(key);
        return { x: normal(forX, [tasks, 10, ...inShape]), y: normal(forY, [tasks, 10, ...outShape]) };
      },
    };
  };

/** Each row of x flattened, beside its y flattened or one-hot: behind `lead` leading axes, for y of `outSize` numbers. */
export function joinRows({ x, y }: Support, lead: number, outSize: number): Tensor {
  const flat = (t: Tensor) => reshape(t, [...t.shape.slice(0, lead), sizeOf(t.shape.slice(lead))]);
  return concat([flat(x), y.dtype === 'i32' ? oneHot(y, outSize) : flat(y)], -1);
}

/** A learned code for each of `n` known tasks: input is task numbers (i32) `[T]`. */
export const taskId =
  (n: number, size: number): Condition<Tensor> =>
  () => ({
    size,
    params: { table: new ParamSpec([n, size], 'weight', { in: 1, out: 1, gain: 1 }) },
    encode: ({ table }: { table: Tensor }, ids) => {
      if (ids.rank !== 1)
        throw new ShapeError(`taskId: task numbers must be [T] (i32), got ${show(ids.shape)}`);
      return take(table, ids, 0);
    },
    example: (_key, tasks) => tensor(Int32Array.from({ length: tasks }, (_, i) => i % n)),
  });

/**
 * Standard normal codes, so that the hypernetwork makes a distribution over weights. Input is the number of codes to
 * draw with `{ key }`, or the codes themselves `[T,size]`.
 */
export const noise =
  (size: number): Condition<number | Tensor> =>
  () => ({
    size,
    params: {},
    encode: (_params, z, { key } = {}) => {
      if (typeof z === 'number') {
        if (!key) throw new ArgumentError('noise: needs a key to draw from: encode(phi, count, { key })');
        return normal(key, [z, size]);
      }
      if (z.rank !== 2 || z.shape[1] !== size)
        throw new ShapeError(`noise: codes must be [T,${size}], got ${show(z.shape)}`);
      return z;
    },
    example: (key, tasks) => normal(key, [tasks, size]),
  });

/**
 * A description of the task as given: input `[T,...shape]`, flattened, or turned into a code by a layer. Descriptions
 * should be about standard normal.
 */
export const description =
  (shape: number | Shape, layer?: Layer): Condition<Tensor> =>
  () => {
    const inShape = typeof shape === 'number' ? [shape] : shape;
    const size = sizeOf(layer ? layer.outShape(inShape) : inShape);
    return {
      size,
      params: layer ? layer.params(inShape) : {},
      encode: (params, x, options) => {
        if (x.rank !== inShape.length + 1 || inShape.some((n, i) => x.shape[i + 1] !== n))
          throw new ShapeError(`description: expected [T,${inShape}], got ${show(x.shape)}`);
        return reshape(layer ? layer.apply(params, x, options) : x, [x.shape[0], size]);
      },
      example: (key, tasks) => normal(key, [tasks, ...inShape]),
    };
  };

/** Codes of several conditions side by side; input is the list of their inputs. */
export const concatConditions =
  (...conditions: readonly Condition[]): Condition<readonly any[]> =>
  target => {
    const parts = conditions.map(condition => condition(target));
    return {
      size: parts.reduce((n, part) => n + part.size, 0),
      params: parts.map(part => part.params),
      encode: (params, inputs, options = {}) => {
        if (!Array.isArray(inputs) || inputs.length !== parts.length)
          throw new ArgumentError(
            `concatConditions: needs ${parts.length} inputs, one per condition, in a list`,
          );
        const keys = options.key ? split(options.key, parts.length) : [];
        return concat(
          parts.map((part, i) => part.encode(params[i], inputs[i], { ...options, key: keys[i] })),
          -1,
        );
      },
      example: (key, tasks) => {
        const keys = split(key, parts.length);
        return parts.map((part, i) => part.example(keys[i], tasks));
      },
    };
  };

/**
 * The code of one condition, each number of it scaled by a gate in (0, 1) that another condition sets: h * sigmoid(G c).
 * Input is the list of the two inputs, the gated one first. Gates start around a half.
 */
export const gateConditions =
  (gated: Condition, by: Condition): Condition<readonly [any, any]> =>
  target => {
    const [open, gate] = [gated(target), by(target)];
    const linear = dense(open.size, { gain: 1 });
    return {
      size: open.size,
      params: { gated: open.params, by: gate.params, gate: linear.params([gate.size]) },
      encode: (params, inputs, options = {}) => {
        if (!Array.isArray(inputs) || inputs.length !== 2)
          throw new ArgumentError('gateConditions: needs 2 inputs in a list, the gated one first');
        const keys = options.key ? split(options.key) : [];
        const [h, c] = [
          open.encode(params.gated, inputs[0], { ...options, key: keys[0] }),
          gate.encode(params.by, inputs[1], { ...options, key: keys[1] }),
        ];
        return mul(h, sigmoid(linear.apply(params.gate, c)));
      },
      example: (key, tasks) => {
        const [forGated, forGate] = split(key);
        return [open.example(forGated, tasks), gate.example(forGate, tasks)];
      },
    };
  };
