/** Shapes and views as ops over some axes see them. */
import type { View } from '../core/backend.js';
import type { Shape } from '../core/shape.js';

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
