/**
 * Trees: plain objects and arrays nested in any way. Everything else is a leaf, class instances included, so a
 * generated weight (an `Opaque`) is passed to the visitor whole and never taken apart.
 */
import { GraphError } from './errors.js';

export type Tree<L> = L | readonly Tree<L>[] | { readonly [name: string]: Tree<L> };

/** A leaf that is more than an array of numbers: arithmetic on it and gradients with respect to it are refused. */
export abstract class Opaque {
  /** What one can do instead, for the error text. */
  abstract readonly choices: string;
  /** The same kind of leaf made of `f(part)` for each tensor it is made of. */
  abstract mapParts(f: (part: any) => any): Opaque;
  refuse(what: string): never {
    throw new GraphError(`${what} is not defined for a generated weight; ${this.choices}`);
  }
}

/** An array is one too: its keys are its indices. */
type Branch = Readonly<Record<string, unknown>>;
const isBranch = (x: unknown): x is Branch => {
  if (typeof x !== 'object' || x === null) return false;
  if (Array.isArray(x)) return true;
  const proto = Object.getPrototypeOf(x);
  return proto === Object.prototype || proto === null;
};

/**
 * Applies `f` to corresponding leaves of trees of one structure and builds a tree of the results.
 * Throws GraphError naming the path where structures differ.
 */
export function map<R>(f: (...leaves: any[]) => R, first: unknown, ...rest: unknown[]): any {
  return walk('', first, rest, f);
}

/** Like `map`, with the leaf's path (`layers.0.w`) before the leaves. */
export function mapWithPath<R>(
  f: (path: string, ...leaves: any[]) => R,
  first: unknown,
  ...rest: unknown[]
): any {
  return walk('', first, rest, f, true);
}

function walk(
  path: string,
  first: unknown,
  rest: unknown[],
  f: (...xs: any[]) => unknown,
  named = false,
): unknown {
  if (!isBranch(first)) {
    for (const r of rest)
      if (isBranch(r)) throw new GraphError(`trees differ at '${path}': leaf against branch`);
    return named ? f(path, first, ...rest) : f(first, ...rest);
  }
  const keys = Object.keys(first);
  for (const r of rest)
    if (!isBranch(r) || Array.isArray(r) !== Array.isArray(first) || !sameKeys(keys, r))
      throw new GraphError(
        `trees differ at '${path}': {${keys}} against ${isBranch(r) ? `{${Object.keys(r)}}` : typeof r}`,
      );
  const visit = (k: string) =>
    walk(
      path ? `${path}.${k}` : k,
      first[k],
      rest.map(r => (r as Branch)[k]),
      f,
      named,
    );
  if (Array.isArray(first)) return keys.map(visit);
  const out: Record<string, unknown> = {};
  for (const k of keys) out[k] = visit(k);
  return out;
}

const sameKeys = (keys: string[], other: object) =>
  Object.keys(other).length === keys.length && keys.every(k => Object.hasOwn(other, k));

/** The leaves in order. */
export function leaves<L = any>(tree: unknown): L[] {
  const out: L[] = [];
  map(leaf => out.push(leaf), tree);
  return out;
}

/** `[path, leaf]` pairs in order. */
export function entries<L = any>(tree: unknown): [string, L][] {
  const out: [string, L][] = [];
  mapWithPath((path, leaf) => out.push([path, leaf]), tree);
  return out;
}

/** A tree of the same structure whose leaves are taken from `values` in order. */
export function rebuild(like: unknown, values: readonly unknown[]): any {
  let i = 0;
  return map(() => values[i++], like);
}
