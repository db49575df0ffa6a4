/**
 * Reverse-mode derivatives of any order. Every open gradient owns one bit and one tape. A value carries the bits of
 * the open gradients it depends on; an op is recorded on the tapes of the bits its inputs carry, so the reverse of
 * recording order is a topological order. A gradient closes its bit before it walks back: pullbacks are ordinary ops,
 * recorded by outer gradients and by nobody else. Closing clears the bit everywhere, so nothing outlives its gradient.
 */
import { GraphError, ShapeError } from './errors.js';
import { apply, type OpSpec, opNamed } from './op.js';
import { runtime } from './queue.js';
import { show } from './shape.js';
import { full, scope, Tensor } from './tensor.js';
import * as tree from './tree.js';

export interface GraphNode {
  readonly op: OpSpec<any>;
  ins: readonly Tensor[];
  outs: readonly Tensor[];
  readonly attrs: unknown;
  deps: number;
}

/** What was recorded since a gradient was opened. */
export interface Tape {
  readonly bit: number;
  readonly nodes: GraphNode[];
}

/** Tapes of the gradients that record now, the innermost last. */
export const tapes: Tape[] = [];
/** Bits whose recording is suspended inside checkpoint and customVjp; meeting one there means a silent cut. */
let suspended = 0;

/** Remembers how `outs` came about, on every tape in `deps`. */
export function record(
  op: OpSpec<any>,
  ins: readonly Tensor[],
  outs: readonly Tensor[],
  attrs: unknown,
  deps: number,
): void {
  if (deps & suspended)
    throw new GraphError(
      `${op.name}: a function under checkpoint or customVjp closes over a tensor that carries a gradient; pass it as an argument`,
    );
  const node: GraphNode = { op, ins, outs, attrs, deps };
  for (const out of outs) {
    out.deps = deps;
    out.node = node;
  }
  for (const tape of tapes) if (tape.bit & deps) tape.nodes.push(node);
}

/** Runs `f` so that none of the gradients open now may record in it (GraphError if one would have to). */
export function suspend<T>(f: () => T): T {
  const before = suspended;
  suspended |= runtime.openGradients;
  try {
    return f();
  } finally {
    suspended = before;
  }
}

const alias: OpSpec = { name: 'alias', view: x => x, vjp: g => [() => g] };

function open(): Tape {
  let bit = 1;
  while (runtime.openGradients & bit) bit <<= 1;
  if (bit <= 0) throw new GraphError('more than 31 gradients are open at once');
  const tape = { bit, nodes: [] };
  tapes.push(tape);
  runtime.openGradients |= bit;
  return tape;
}

function close(tape: Tape): void {
  runtime.openGradients &= ~tape.bit;
  tapes.splice(tapes.lastIndexOf(tape), 1);
}

/** Takes the tape's bit off everything that carries it and lets go of nodes nobody needs. */
function clear(tape: Tape, leaves: readonly Tensor[]): void {
  for (const leaf of leaves) leaf.deps &= ~tape.bit;
  for (const node of tape.nodes) {
    node.deps &= ~tape.bit;
    for (const out of node.outs) out.deps = node.deps;
    if (node.deps === 0) {
      for (const out of node.outs) out.node = null;
      node.ins = node.outs = [];
    }
  }
}

/** A leaf of a gradient: the same values, still linked to the outer gradients the original depends on. */
function leafOf(x: Tensor, bit: number): Tensor {
  const leaf = new Tensor(x.view);
  const outer = x.deps & runtime.openGradients & ~bit;
  if (outer !== 0) record(alias, [x], [leaf], undefined, outer);
  leaf.deps |= bit;
  return leaf;
}

/** Adds up cotangents from the end of a tape to its start; `seeds` maps outputs to their cotangents. */
function walk(
  nodes: readonly GraphNode[],
  seeds: Map<Tensor, Tensor>,
  on: (x: Tensor) => boolean,
): Map<Tensor, Tensor> {
  const add = opNamed('add');
  for (let i = nodes.length - 1; i >= 0; i--) {
    const { op, ins, outs, attrs } = nodes[i];
    const gs: (Tensor | undefined)[] = [];
    let first = -1;
    for (let k = outs.length - 1; k >= 0; k--) if ((gs[k] = seeds.get(outs[k]))) first = k;
    if (first < 0) continue;
    if (!op.vjp) {
      if (ins.some(on)) throw new GraphError(`${op.name} has no derivative`);
      continue;
    }
    const thunks = op.vjp(gs[first]!, ins, outs[first], attrs, { outs, gs });
    for (let k = 0; k < ins.length; k++) {
      const x = ins[k];
      if (!thunks[k] || !on(x)) continue;
      const g = thunks[k]!();
      const before = seeds.get(x);
      seeds.set(x, before ? apply(add, [before, g], addAttrs)[0] : g);
    }
    for (const out of outs) seeds.delete(out);
  }
  return seeds;
}
const addAttrs = { numbers: [null, null] };

/** Gradients exist for f32 tensors only. */
export const differentiable = (x: unknown): x is Tensor => x instanceof Tensor && x.dtype === 'f32';

function leavesOf(primal: unknown, bit: number): { tree: any; list: Tensor[] } {
  const list: Tensor[] = [];
  const made = tree.map(x => {
    if (x instanceof tree.Opaque) x.refuse('a gradient with respect to it');
    if (!differentiable(x)) return x;
    const leaf = leafOf(x, bit);
    list.push(leaf);
    return leaf;
  }, primal);
  return { tree: made, list };
}

/** Throws GraphError for a promise. */
export function checkSync(result: unknown, what: string): void {
  if (typeof (result as { then?: unknown } | null)?.then === 'function')
    throw new GraphError(
      `${what}: the function returned a promise; gradients are taken of synchronous functions`,
    );
}

export interface GradOptions {
  /** What a parameter the value does not depend on gets: an error (default) or zeros. */
  readonly unused?: 'error' | 'zeros';
}

/**
 * `f(params, ...rest)` returns a scalar loss, or `[loss, aux]`. The result is a function that returns
 * `{ value, grads, aux }`: grads is a tree like params (null for leaves that are not f32). Differentiates with respect
 * to the first argument only. The outermost one is a scope of its own. Throws GraphError for an asynchronous function,
 * a generated weight as parameter, or an unused parameter; ShapeError if the value is not a scalar.
 */
export function valueAndGrad<P, R extends unknown[], Aux = undefined>(
  f: (params: P, ...rest: R) => Tensor | readonly [Tensor, Aux],
  options: GradOptions = {},
): (params: P, ...rest: R) => { value: Tensor; grads: P; aux: Aux } {
  const run = (params: P, ...rest: R) => {
    const tape = open();
    let leaves: { tree: P; list: Tensor[] } = { tree: params, list: [] };
    try {
      let result: Tensor | readonly [Tensor, Aux];
      try {
        leaves = leavesOf(params, tape.bit);
        result = f(leaves.tree, ...rest);
        checkSync(result, 'grad');
      } finally {
        close(tape);
      }
      const [value, aux] = Array.isArray(result) ? result : [result, undefined];
      if (!(value instanceof Tensor) || value.size !== 1)
        throw new ShapeError(
          `grad: the function must return a scalar, got ${value instanceof Tensor ? show(value.shape) : typeof value}`,
        );
      const seeds = new Map<Tensor, Tensor>();
      if (value.deps & tape.bit) seeds.set(value, full(value.shape, 1, value.backend));
      const cotangents = walk(tape.nodes, seeds, x => (x.deps & tape.bit) !== 0);
      const grads = gather(params, leaves.list, cotangents, options.unused ?? 'error');
      return { value, grads, aux };
    } finally {
      clear(tape, leaves.list);
    }
  };
  return (params, ...rest) =>
    runtime.openGradients === 0 ? scope(() => run(params, ...rest)) : run(params, ...rest);
}

function gather(
  params: unknown,
  leaves: Tensor[],
  cotangents: Map<Tensor, Tensor>,
  unused: 'error' | 'zeros',
): any {
  let i = 0;
  return tree.mapWithPath((path, x) => {
    if (!differentiable(x)) return null;
    const g = cotangents.get(leaves[i++]);
    if (g) return g;
    if (unused === 'zeros') return full(x.shape, 0, x.backend);
    throw new GraphError(
      `grad: the value does not depend on parameter '${path}' ${show(x.shape)}; pass { unused: 'zeros' } if that is meant`,
    );
  }, params);
}

/** Like `valueAndGrad`, but returns the gradient tree alone. */
export function grad<P, R extends unknown[]>(
  f: (params: P, ...rest: R) => Tensor | readonly [Tensor, unknown],
  options: GradOptions = {},
): (params: P, ...rest: R) => P {
  const both = valueAndGrad<P, R, unknown>(f, options);
  return (params, ...rest) => {
    const run = () => both(params, ...rest).grads;
    return runtime.openGradients === 0 ? scope(run) : run();
  };
}

/**
 * The value of `f(primal)` (a tree of tensors) and its pullback, which turns a tree of cotangents like the value into
 * one like the primal (zeros where the value does not depend on it). The pullback may be called many times, later, and
 * inside other gradients.
 */
export function vjp<P, V>(f: (primal: P) => V, primal: P): { value: V; pullback: (cotangents: V) => P } {
  const tape = open();
  let leaves: { tree: P; list: Tensor[] } = { tree: primal, list: [] };
  try {
    let value: V;
    try {
      leaves = leavesOf(primal, tape.bit);
      value = f(leaves.tree);
      checkSync(value, 'vjp');
    } finally {
      close(tape);
    }
    const nodes = tape.nodes.map(node => ({ ...node }));
    const members = new Set<Tensor>(leaves.list);
    for (const node of nodes) for (const out of node.outs) members.add(out);
    const outs = tree.leaves<Tensor>(value);
    const pullback = (cotangents: V): P => {
      const seeds = new Map<Tensor, Tensor>();
      const add = opNamed('add');
      tree.leaves<Tensor>(cotangents).forEach((g, i) => {
        if (!members.has(outs[i])) return;
        const before = seeds.get(outs[i]);
        seeds.set(outs[i], before ? apply(add, [before, g], addAttrs)[0] : g);
      });
      return gather(
        primal,
        leaves.list,
        walk(nodes, seeds, x => members.has(x)),
        'zeros',
      );
    };
    return { value, pullback };
  } finally {
    clear(tape, leaves.list);
  }
}

/** Hessian of the scalar function `f` at `primal`, times `direction` (a tree like primal). */
export function hvp<P>(f: (primal: P) => Tensor, primal: P, direction: P): P {
  return vjp(grad(f, { unused: 'zeros' }), primal).pullback(direction);
}

/** The same values, without a derivative. A generated weight keeps its form; its parts lose theirs. */
export const stopGradient = <T>(x: T): T => tree.map(stop, x);
const stop = (leaf: unknown): unknown =>
  leaf instanceof tree.Opaque
    ? leaf.mapParts(stop)
    : leaf instanceof Tensor && leaf.deps !== 0
      ? new Tensor(leaf.view)
      : leaf;
