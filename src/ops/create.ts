/** Tensors from host values. */
import type { DType, TypedArray } from '../core/backend.js';
import { ShapeError } from '../core/errors.js';
import { queueOf, runtime } from '../core/queue.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import { current, denseView, full, newStorage, Tensor } from '../core/tensor.js';

export type Nested = number | readonly Nested[];

/**
 * A tensor from host values: a typed array with a shape, a number, or nested arrays. Values are copied.
 * Float arrays make f32, Int32Array i32, Uint32Array u32, unless `dtype` says otherwise. Throws ShapeError.
 */
export function tensor(values: TypedArray | Nested, shape?: Shape, dtype?: DType): Tensor {
  let flat: TypedArray;
  if (ArrayBuffer.isView(values)) flat = values;
  else {
    const found: number[] = [];
    const dims: number[] = [];
    flatten(values, 0, dims, found);
    flat =
      dtype === 'i32'
        ? Int32Array.from(found)
        : dtype === 'u32'
          ? Uint32Array.from(found)
          : Float64Array.from(found);
    shape ??= dims;
  }
  shape ??= [flat.length];
  const kind = dtype ?? (flat instanceof Int32Array ? 'i32' : flat instanceof Uint32Array ? 'u32' : 'f32');
  if (!shape.every(n => Number.isInteger(n) && n >= 0) || sizeOf(shape) !== flat.length)
    throw new ShapeError(`tensor: ${flat.length} values do not fill the shape ${show(shape)}`);
  if (runtime.capture) return runtime.capture.constant(flat, shape, kind);
  const storage = newStorage(current(), kind, flat.length);
  queueOf(storage.backend).write(storage, flat);
  return new Tensor(denseView(storage, [...shape]));
}

function flatten(values: Nested, depth: number, dims: number[], out: number[]): void {
  if (typeof values === 'number') {
    if (depth !== dims.length) throw new ShapeError('tensor: nested arrays are ragged');
    out.push(values);
    return;
  }
  if (dims.length === depth) {
    if (out.length) throw new ShapeError('tensor: nested arrays are ragged');
    dims.push(values.length);
  } else if (dims[depth] !== values.length) throw new ShapeError('tensor: nested arrays are ragged');
  for (const v of values) flatten(v, depth + 1, dims, out);
}

export { full };

/** Zeros, f32. */
export const zeros = (shape: Shape): Tensor => full(shape, 0);
/** Ones, f32. */
export const ones = (shape: Shape): Tensor => full(shape, 1);
