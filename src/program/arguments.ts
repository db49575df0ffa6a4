/**
 * The shape of an argument or result tree, so that a call can be matched against the one a program was made for,
 * flattened and rebuilt without naming a path.
 */
import type { DType, TypedArray } from '../core/backend.js';
import { type Shape, sameShape } from '../core/shape.js';
import { Tensor } from '../core/tensor.js';
import { Opaque } from '../core/tree.js';

/** What a leaf is to a program. Static values are part of the program's identity; the others are data. */
export type Leaf =
  | { readonly kind: 'tensor'; readonly dtype: DType; readonly shape: Shape }
  | { readonly kind: 'number' }
  | { readonly kind: 'static'; readonly value: unknown };

export interface Branch {
  readonly kind: 'branch';
  /** null for an array. */
  readonly keys: readonly string[] | null;
  readonly children: readonly Template[];
}
export type Template = Leaf | Branch;

/** The dtype a typed array argument becomes. */
export const dtypeOf = (x: TypedArray): DType =>
  x instanceof Int32Array ? 'i32' : x instanceof Uint32Array ? 'u32' : 'f32';

const isPlain = (x: object): x is Record<string, unknown> => {
  const proto = Object.getPrototypeOf(x);
  return proto === Object.prototype || proto === null;
};

/** Describes a tree; its numbers are data, or static. Throws GraphError for a generated weight. */
export function templateOf(x: unknown, numbers: 'data' | 'static' = 'data'): Template {
  if (x instanceof Tensor) return { kind: 'tensor', dtype: x.dtype, shape: x.shape };
  if (typeof x === 'number' && numbers === 'data') return { kind: 'number' };
  if (typeof x !== 'object' || x === null) return { kind: 'static', value: x };
  if (Array.isArray(x))
    return { kind: 'branch', keys: null, children: x.map(child => templateOf(child, numbers)) };
  if (ArrayBuffer.isView(x)) {
    const values = x as TypedArray;
    return { kind: 'tensor', dtype: dtypeOf(values), shape: [values.length] };
  }
  if (x instanceof Opaque) x.refuse('passing it to a compiled step');
  if (!isPlain(x)) return { kind: 'static', value: x };
  const keys = Object.keys(x);
  return { kind: 'branch', keys, children: keys.map(k => templateOf(x[k], numbers)) };
}

/** True if `x` fits the template; then `out` has received its leaves, static ones left out. */
export function match(template: Template, x: unknown, out: unknown[]): boolean {
  switch (template.kind) {
    case 'tensor':
      out.push(x);
      if (x instanceof Tensor) {
        const { storage, shape } = x.view;
        return storage.dtype === template.dtype && sameShape(shape, template.shape);
      }
      return ArrayBuffer.isView(x) && fits(x as TypedArray, template.dtype, template.shape);
    case 'number':
      out.push(x);
      return typeof x === 'number';
    case 'static':
      return Object.is(x, template.value);
  }
  const { keys, children } = template;
  if (typeof x !== 'object' || x === null) return false;
  if (keys === null) {
    if (!Array.isArray(x) || x.length !== children.length) return false;
    for (let i = 0; i < children.length; i++) if (!match(children[i], x[i], out)) return false;
    return true;
  }
  if (!isPlain(x)) return false;
  let count = 0;
  for (const _ in x) count++;
  if (count !== keys.length) return false;
  for (let i = 0; i < keys.length; i++) {
    const child = x[keys[i]];
    if ((child === undefined && !(keys[i] in x)) || !match(children[i], child, out)) return false;
  }
  return true;
}

const fits = (x: TypedArray, dtype: DType, shape: Shape) =>
  shape.length === 1 && x.length === shape[0] && dtypeOf(x) === dtype;

/** A tree of the template's structure; `leaf` makes each one. */
export function build(template: Template, leaf: (leaf: Leaf) => unknown): unknown {
  if (template.kind !== 'branch') return leaf(template);
  const { keys, children } = template;
  if (keys === null) {
    const list: unknown[] = [];
    for (const child of children) list.push(build(child, leaf));
    return list;
  }
  const out: Record<string, unknown> = {};
  for (let i = 0; i < keys.length; i++) out[keys[i]] = build(children[i], leaf);
  return out;
}
