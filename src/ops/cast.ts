/** Conversion between dtypes; there is no promotion anywhere else. */
import type { DType } from '../core/backend.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import type { Tensor } from '../core/tensor.js';

const spec: OpSpec<{ dtype: DType }> = {
  name: 'cast',
  dtypes: [null],
  outputs: ([x], { dtype }) => ({ shape: x.shape, dtype }),
  kernelAttrs: () => ({}),
  ref: ([out]: readonly Dense[], [x]: readonly Dense[]) => {
    for (let i = 0; i < out.data.length; i++) out.data[i] = x.data[i];
  },
  vjp: () => [null],
};
defineOp(spec);

/** The values in another dtype, truncated toward zero where it is a whole one. No derivative. */
export const cast = (x: Tensor, dtype: DType): Tensor =>
  x.dtype === dtype ? x : apply(spec, [x], { dtype })[0];
