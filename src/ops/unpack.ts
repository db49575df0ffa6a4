/** One tensor as windows side by side. */

import { ShapeError } from '../core/errors.js';
import { apply, defineOp, type OpSpec } from '../core/op.js';
import { show } from '../core/shape.js';
import { full, type Tensor } from '../core/tensor.js';
import { axisIndex } from './axes.js';
import { concat } from './concat.js';

interface UnpackAttrs {
  readonly axis: number;
  readonly sizes: readonly number[];
}

const spec: OpSpec<UnpackAttrs> = {
  name: 'unpack',
  dtypes: [null],
  view: (x, { axis, sizes }) => {
    let offset = x.offset;
    return sizes.map(size => {
      const part = { ...x, shape: x.shape.map((n, i) => (i === axis ? size : n)), offset };
      offset += size * x.strides[axis];
      return part;
    });
  },
  vjp: (_g, _ins, _out, { axis }, { outs, gs }) => [
    () =>
      concat(
        outs.map((out, i) => gs[i] ?? full(out.shape, 0, out.backend)),
        axis,
      ),
  ],
};
defineOp(spec);

/**
 * `x` cut along `axis` into views of the given sizes, which must add up to its length. The derivative is one concat,
 * where as many slices would cost a zero-padded tensor of full size each. Throws ShapeError.
 */
export function unpack(x: Tensor, sizes: readonly number[], axis = -1): Tensor[] {
  const at = axisIndex('unpack', axis, x.shape);
  if (!sizes.every(n => Number.isInteger(n) && n >= 0) || sizes.reduce((a, b) => a + b, 0) !== x.shape[at])
    throw new ShapeError(`unpack: sizes ${show(sizes)} do not add up to axis ${at} of ${show(x.shape)}`);
  return apply(spec, [x], { axis: at, sizes });
}
