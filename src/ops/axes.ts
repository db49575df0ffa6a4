/** Shapes and views as ops over some axes see them. */
import type { View } from '../core/backend.js';
import { ShapeError } from '../core/errors.js';
import { type Shape, show } from '../core/shape.js';

/** The shape less `axes`. */
export const without = (shape: Shape, axes: readonly number[]): Shape =>
  shape.filter((_, i) => !axes.includes(i));

/** The shape with `axes` of size 1. */
export const withOnes = (shape: Shape, axes: readonly number[]): Shape =>
  shape.map((n, i) => (axes.includes(i) ? 1 : n));

/** The same memory with `axes` moved to the end. */
export function axesLast(x: View, axes: readonly number[]): View {
  const order = [...x.shape.keys()].filter(i => !axes.includes(i)).concat(axes);
  return { ...x, shape: order.map(i => x.shape[i]), strides: order.map(i => x.strides[i]) };
}

/** A non-negative axis; throws ShapeError naming `op`, the axis and the shape. */
export function axisIndex(op: string, axis: number, shape: Shape): number {
  const at = axis < 0 ? axis + shape.length : axis;
  if (!Number.isInteger(axis) || at < 0 || at >= shape.length)
    throw new ShapeError(`${op}: axis ${axis} is not an axis of ${show(shape)}`);
  return at;
}

/** Sorted, distinct, non-negative axes; all of them for `undefined`. */
export function axisList(op: string, axes: number | readonly number[] | undefined, shape: Shape): number[] {
  if (axes === undefined) return shape.map((_, i) => i);
  const list = (typeof axes === 'number' ? [axes] : axes).map(a => axisIndex(op, a, shape));
  if (new Set(list).size !== list.length)
    throw new ShapeError(`${op}: axes ${show(list)} name one axis twice`);
  return list.sort((a, b) => a - b);
}
