/** Storages, views and numbers for tests that talk to a backend directly. */
import type { Backend, DType, Storage, View } from '../src/core/backend.js';

let ids = 0;
export const storageOn = (backend: Backend, dtype: DType, size: number): Storage => ({
  id: ids++,
  dtype,
  size,
  backend,
  memory: null,
  generation: 0,
  dead: null,
});
export const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
export const denseStrides = (shape: readonly number[]) => shape.map((_, i) => sizeOf(shape.slice(i + 1)));
export const viewOf = (storage: Storage, shape: readonly number[]): View => ({
  storage,
  shape,
  strides: denseStrides(shape),
  offset: 0,
  generation: 0,
});

/** Repeatable numbers around 0. */
export function noise(n: number, seed: number): number[] {
  let state = seed * 2654435761 + 12345;
  return Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 30;
  });
}
