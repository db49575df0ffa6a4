/** Arithmetic on shapes and strides. Nothing here knows tensors. */
import { ShapeError } from './errors.js';

export type Shape = readonly number[];

/** Number of elements; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i];
  return n;
}

/** Strides of a dense row-major array, counted in elements. */
export function denseStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** True if the elements lie in row-major order without gaps. */
export function isDense(shape: Shape, strides: Shape): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i];
  }
  return true;
}

/** `[2,3]`, for messages. */
export const show = (shape: Shape): string => `[${shape.join(',')}]`;

/** True if two shapes (or stride lists) are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The shape two or more shapes broadcast to (NumPy's rule). Throws ShapeError naming `op` and both shapes. */
export function broadcastShapes(op: string, ...shapes: Shape[]): Shape {
  let out = shapes[0];
  for (let s = 1; s < shapes.length; s++) {
    const shape = shapes[s];
    if (sameShape(out, shape)) continue;
    const rank = Math.max(out.length, shape.length);
    const merged = new Array<number>(rank);
    for (let i = 1; i <= rank; i++) {
      const a = out[out.length - i] ?? 1;
      const b = shape[shape.length - i] ?? 1;
      if (a !== b && a !== 1 && b !== 1)
        throw new ShapeError(
          `${op}: ${show(out)} and ${show(shape)} do not broadcast, axis ${rank - i} has ${a} and ${b}`,
        );
      merged[rank - i] = a === 1 ? b : a;
    }
    out = merged;
  }
  return out;
}

/** Strides that read `from` as if it had the shape `to`, or null if it does not broadcast to it. */
export function broadcastStrides(from: Shape, strides: Shape, to: Shape): number[] | null {
  const lead = to.length - from.length;
  if (lead < 0) return null;
  const out = new Array<number>(to.length).fill(0);
  for (let i = 0; i < from.length; i++) {
    if (from[i] === to[lead + i]) out[lead + i] = from[i] === 1 ? 0 : strides[i];
    else if (from[i] !== 1) return null;
  }
  return out;
}

/** Strides of the same memory read with another shape, or null where axes would have to merge that do not chain. */
export function reshapeStrides(shape: Shape, strides: Shape, to: Shape): number[] | null {
  if (sizeOf(shape) === 0 || isDense(shape, strides)) return denseStrides(to);
  const from: number[] = [];
  const steps: number[] = [];
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] === 1) continue;
    from.push(shape[i]);
    steps.push(strides[i]);
  }
  const out = new Array<number>(to.length).fill(0);
  let i = 0;
  let j = 0;
  while (j < to.length) {
    if (to[j] === 1) {
      j++;
      continue;
    }
    let a = from[i];
    let b = to[j];
    const firstIn = i++;
    const firstOut = j++;
    while (a !== b) {
      if (a < b) a *= from[i++];
      else b *= to[j++];
    }
    for (let k = firstIn; k < i - 1; k++) if (steps[k] !== steps[k + 1] * from[k + 1]) return null;
    let step = steps[i - 1];
    for (let k = j - 1; k >= firstOut; k--) {
      out[k] = step;
      step *= to[k];
    }
  }
  return out;
}
