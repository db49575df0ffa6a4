/** Putting tensors beside each other: strided copies into windows of one new tensor, so there are no kernels here. */

import type { Command, View } from '../core/backend.js';
import { DTypeError, ShapeError } from '../core/errors.js';
import { apply, type OpSpec } from '../core/op.js';
import { sameShape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { axisIndex } from './axes.js';
import { expand, slice } from './views.js';

/** The part `start .. start+size-1` of a view along `axis`. */
const part = (x: View, axis: number, start: number, size: number): View => ({
  ...x,
  shape: x.shape.map((n, i) => (i === axis ? size : n)),
  offset: x.offset + start * x.strides[axis],
});
const copyInto = (op: string, out: View, x: View): Command => ({
  kernel: 'copy',
  op,
  outs: [out],
  ins: [x],
  attrs: {},
});

const concatSpec: OpSpec<{ axis: number }> = {
  name: 'concat',
  dtypes: [null],
  outputs: (ins, { axis }) => ({
    shape: ins[0].shape.map((n, i) => (i === axis ? ins.reduce((m, x) => m + x.shape[axis], 0) : n)),
    dtype: ins[0].dtype,
  }),
  lower: (ins, [out], { axis }) => {
    let start = 0;
    return ins.map(({ view }) => {
      const window = part(out.view, axis, start, view.shape[axis]);
      start += view.shape[axis];
      return copyInto('concat', window, view);
    });
  },
  vjp: (g, ins, _out, { axis }) => {
    let start = 0;
    return ins.map(x => {
      const from = start;
      start += x.shape[axis];
      return () => slice(g, axis, from, from + x.shape[axis]);
    });
  },
};

/** Tensors one after the other along `axis`; all other sizes agree. Throws ShapeError, DTypeError. */
export function concat(xs: readonly Tensor[], axis = 0): Tensor {
  if (xs.length === 0) throw new ShapeError('concat: no tensors given');
  const [first] = xs;
  const at = axisIndex('concat', axis, first.shape);
  for (const x of xs) {
    if (x.rank !== first.rank || !sameShape(rest(x, at), rest(first, at)))
      throw new ShapeError(`concat: ${show(first.shape)} and ${show(x.shape)} differ beside axis ${at}`);
    if (x.dtype !== first.dtype) throw new DTypeError(`concat: ${first.dtype} and ${x.dtype} do not mix`);
  }
  return xs.length === 1 ? first : apply(concatSpec, xs, { axis: at })[0];
}
const rest = (x: Tensor, axis: number) => x.shape.filter((_, i) => i !== axis);

/** Tensors of one shape side by side along a new axis. */
export const stack = (xs: readonly Tensor[], axis = 0): Tensor =>
  concat(
    xs.map(x => expand(x, axis)),
    axis,
  );

interface PadAttrs {
  readonly axis: number;
  readonly before: number;
  readonly after: number;
}
const zero = { expr: { inputs: 0, immediates: [0], code: [], outs: [-1] } };
const padSpec: OpSpec<PadAttrs> = {
  name: 'pad',
  outputs: ([x], { axis, before, after }) => ({
    shape: x.shape.map((n, i) => (i === axis ? before + n + after : n)),
  }),
  lower: ([x], [out], { axis, before, after }) => {
    const fill = (start: number, size: number): Command[] =>
      size === 0
        ? []
        : [
            {
              kernel: 'elementwise',
              op: 'pad',
              outs: [part(out.view, axis, start, size)],
              ins: [],
              attrs: zero,
            },
          ];
    const n = x.shape[axis];
    return [
      ...fill(0, before),
      ...fill(before + n, after),
      copyInto('pad', part(out.view, axis, before, n), x.view),
    ];
  },
  vjp: (g, [x], _out, { axis, before }) => [() => slice(g, axis, before, before + x.shape[axis])],
};
/** Zeros before and after `x` along one axis. Throws ShapeError. */
export function pad(x: Tensor, axis: number, before: number, after: number): Tensor {
  if (!(Number.isInteger(before) && Number.isInteger(after) && before >= 0 && after >= 0))
    throw new ShapeError(`pad: ${before} before and ${after} after must be whole and not negative`);
  return before + after === 0
    ? x
    : apply(padSpec, [x], { axis: axisIndex('pad', axis, x.shape), before, after })[0];
}
