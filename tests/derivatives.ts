/** Checks of derivatives by finite differences in float64, of trees of tensors against each other, and of commands. */
import { expect } from 'vitest';
import {
  add,
  type Backend,
  grad,
  hvp,
  mul,
  normal,
  split,
  sum,
  Tensor,
  tree,
  withBackend,
} from '../src/index.js';

const axpy = (p: any, step: number, v: any) => tree.map((x, d) => add(x, mul(d, step)), p, v);
const dot = (a: any, b: any): number =>
  tree
    .leaves<Tensor>(tree.map((x, y) => sum(mul(x, y)), a, b))
    .reduce((total, x) => total + x.dataSync()[0], 0);
const closeTo = (got: number, want: number, tolerance: number) =>
  expect(Math.abs(got - want)).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(want)));

/**
 * Compares gradient and Hessian-vector product of the scalar `f` with central differences along a random direction, in
 * which `f` must be smooth for `h` either way. The backend in use must store float64.
 */
export function expectDerivatives<P>(
  f: (p: P) => Tensor,
  p: P,
  key: Tensor,
  tolerance = 1e-6,
  h = 1e-5,
): void {
  const keys = split(key, tree.leaves(p).length);
  let i = 0;
  const v = tree.map(x => normal(keys[i++], x.shape), p);
  const at = (step: number) => axpy(p, step, v);
  const value = (q: P) => f(q).dataSync()[0];
  const g = grad(f);
  const slope = dot(g(p), v);
  expect(slope).not.toBe(0);
  closeTo(slope, (value(at(h)) - value(at(-h))) / (2 * h), tolerance);
  closeTo(dot(hvp(f, p, v), v), (dot(g(at(h)), v) - dot(g(at(-h)), v)) / (2 * h), tolerance * 10);
}

/** Two trees of tensors agree leaf by leaf, relative to the largest value of the leaf, or to `floor` if that is more. */
export function expectSameTree(got: unknown, want: unknown, tolerance: number, floor = 1e-30): void {
  tree.mapWithPath(
    (path, a: Tensor, b: Tensor) => {
      expect(a.shape, path).toEqual(b.shape);
      const want = Array.from(b.dataSync());
      const scale = want.reduce((m, x) => Math.max(m, Math.abs(x)), floor);
      const worst = Array.from(a.dataSync()).reduce((m, x, i) => Math.max(m, Math.abs(x - want[i])), 0);
      expect(worst / scale, path).toBeLessThanOrEqual(tolerance);
    },
    got,
    want,
  );
}

/** A function that counts commands of one op while `f` runs on a copy of `base`, its results read. */
export function counting(base: Backend, name = 'counted') {
  const seen: string[] = [];
  const backend: Backend = {
    ...base,
    name,
    run: commands => {
      seen.push(...commands.map(c => c.op));
      base.run(commands);
    },
  };
  const count = (op: string, f: () => unknown): number => {
    withBackend(backend, () => {
      seen.length = 0;
      for (const x of tree.leaves(f())) if (x instanceof Tensor) x.dataSync();
    });
    return seen.filter(other => other === op).length;
  };
  return Object.assign(count, { backend });
}
