/** Cells: small graphs of candidate operations, all of them mixed by weights that can be learned or generated. */
import { ArgumentError } from '../core/errors.js';
import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { plain } from '../ops/generated.js';
import {
  add,
  logSoftmax,
  mean,
  mul,
  neg,
  relu,
  reshape,
  sin,
  slice,
  softmax,
  sum,
  tanh,
  type Weight,
} from '../ops/index.js';
import { offsetsOf, vectorFor } from '../ops/linear.js';
import { dense } from './dense.js';
import { type ApplyOptions, defineLayer, expectShape, type Layer, ParamSpec, within } from './layer.js';
import { asLayer, type LayerLike, serial } from './serial.js';

/** What an edge of a cell may do with rows of `width` features, by name; null: nothing passes. */
export type CellOps = Readonly<Record<string, (width: number) => LayerLike | null>>;

/** Nothing, the row itself, and a dense layer behind which a relu, a tanh or a sine stands. */
export const CELL_OPS: CellOps = {
  none: () => null,
  skip: () => x => x,
  relu: width => serial(dense(width), relu),
  tanh: width => serial(dense(width, { gain: 1 }), tanh),
  sine: width => serial(dense(width, { gain: 1 }), sin),
};

/** One operation for each edge of a cell: places in the list of its operations. */
export type Architecture = readonly number[];

interface CellParams {
  /** [edges, ops], or [T, edges, ops]: what the softmax over operations is taken of. */
  readonly alpha: Weight;
  /** Parameters of every operation of every edge. */
  readonly edges: readonly { readonly ops: readonly any[] }[];
}

/** A cell as a layer, and what is known of its space. */
export interface Cell extends Layer<CellParams> {
  readonly edges: readonly { readonly from: number; readonly to: number }[];
  /** Names of the operations, in the order of alpha's last axis. */
  readonly ops: readonly string[];
  /** The cell of one operation an edge, whose parameters are `restrict(params, architecture)`. */
  discrete(architecture: Architecture): Layer<{ edges: readonly any[] }>;
  /** The parameters of the operations an architecture uses, which are all it needs. */
  restrict(params: CellParams, architecture: Architecture): { edges: readonly any[] };
  /** The operation of the largest alpha of each edge, for alpha `[edges, ops]` as numbers; always a valid graph. */
  choose(alpha: ArrayLike<number>): Architecture;
  /** A number per edge, rounded to the nearest operation and held to those there are; always a valid graph. */
  decode(code: ArrayLike<number>): Architecture;
}

/**
 * A cell (Liu, Simonyan, Yang, "DARTS: differentiable architecture search", ICLR 2019): node 0 is the input, each of
 * `nodes` further nodes is the sum over all nodes before it of what the edge between makes of them, and the last node is
 * the output. An edge makes the mean of all its operations, weighed by the softmax of its row of alpha; alpha is a
 * parameter like any other, shared, per task or generated, and starts at 0. Operations keep the width of rows
 * `[..., width]`. Throws ArgumentError for no nodes or fewer than two operations.
 */
export function cell(nodes: number, ops: CellOps = CELL_OPS): Cell {
  const names = Object.keys(ops);
  if (!(Number.isSafeInteger(nodes) && nodes >= 1) || names.length < 2)
    throw new ArgumentError(
      `cell: needs nodes >= 1 and two operations or more, got ${nodes} and ${names.length}`,
    );
  const edges = Array.from({ length: nodes }, (_, to) =>
    Array.from({ length: to + 1 }, (_, from) => ({ from, to: to + 1 })),
  ).flat();
  const width = (shape: Shape): number => {
    const n = shape.at(-1);
    if (n === undefined) throw new ArgumentError('cell: expected at least one axis of features, got []');
    return n;
  };
  const layerOf = (op: number, shape: Shape): Layer | null => {
    const made = ops[names[op]](width(shape));
    return made && asLayer(made);
  };
  const checkFit = (architecture: Architecture) => {
    if (architecture.length !== edges.length || architecture.some(op => !(names[op] in ops)))
      throw new ArgumentError(
        `cell: an architecture has one of ${names.length} operations for each of ${edges.length} edges, got [${architecture}]`,
      );
  };
  /** What leaves the cell, `pass` being what an edge makes of a node, or null for nothing. */
  const run = (x: Tensor, pass: (edge: number, h: Tensor) => Tensor | null): Tensor => {
    const made = [x];
    for (let to = 1; to <= nodes; to++) {
      const arriving = edges
        .map((edge, e) => (edge.to === to ? pass(e, made[edge.from]) : null))
        .filter(h => h !== null);
      made.push(arriving.length > 0 ? arriving.reduce((a, b) => add(a, b)) : mul(x, 0));
    }
    return made[nodes];
  };
  /** Gives every node an edge from the one before it where nothing else reaches it; `best` names an operation for it. */
  const repaired = (chosen: number[], best: (edge: number) => number): Architecture => {
    for (let to = 1; to <= nodes; to++) {
      const into = edges.flatMap((edge, e) => (edge.to === to ? [e] : []));
      const last = into[into.length - 1];
      if (!into.some(e => passing.includes(chosen[e]))) chosen[last] = best(last);
    }
    return chosen;
  };
  const passing = names.flatMap((_, op) => (layerOf(op, [1]) ? [op] : []));

  const mixed = defineLayer<CellParams>({
    params: inShape => ({
      alpha: new ParamSpec([edges.length, names.length], 'bias', { in: 1, out: 1, gain: 1 }),
      edges: edges.map(() => ({
        ops: names.map((_, op) => layerOf(op, inShape)?.params([width(inShape)]) ?? {}),
      })),
    }),
    outShape: inShape => {
      width(inShape);
      return inShape;
    },
    apply: (params, x, options: ApplyOptions = {}) => {
      expectShape('alpha', params.alpha, [edges.length, names.length]);
      const rows = options.rows && offsetsOf(options.rows, x.backend);
      const weights = softmax(plain(params.alpha));
      const weightOf = (e: number, op: number) => {
        const one = slice(slice(weights, -2, e, e + 1), -1, op, op + 1);
        return vectorFor(x, reshape(one, one.shape.slice(0, -1)), rows);
      };
      return run(x, (e, h) =>
        passing
          .map(op => {
            const layer = layerOf(op, h.shape)!;
            const path = `edges.${e}.ops.${op}`;
            return mul(
              within(path, () => layer.apply(params.edges[e].ops[op], h, options)),
              weightOf(e, op),
            );
          })
          .reduce((a, b) => add(a, b)),
      );
    },
  });
  return {
    ...mixed,
    edges,
    ops: names,
    discrete: architecture => {
      checkFit(architecture);
      return defineLayer<{ edges: readonly any[] }>({
        params: inShape => ({
          edges: architecture.map(op => layerOf(op, inShape)?.params([width(inShape)]) ?? {}),
        }),
        outShape: mixed.outShape,
        apply: (params, x, options) =>
          run(x, (e, h) => {
            const layer = layerOf(architecture[e], h.shape);
            return layer && within(`edges.${e}`, () => layer.apply(params.edges[e], h, options));
          }),
      });
    },
    restrict: (params, architecture) => {
      checkFit(architecture);
      return { edges: architecture.map((op, e) => params.edges[e].ops[op]) };
    },
    choose: alpha => {
      const row = (e: number) => names.map((_, op) => alpha[e * names.length + op]);
      const largest = (e: number, among: readonly number[]) =>
        among.reduce((a, b) => (row(e)[b] > row(e)[a] ? b : a));
      const all = names.map((_, op) => op);
      return repaired(
        edges.map((_, e) => largest(e, all)),
        e => largest(e, passing),
      );
    },
    decode: code => {
      const nearest = (x: number) => Math.min(Math.max(Math.round(x) || 0, 0), names.length - 1);
      const near = (e: number) =>
        passing.reduce((a, b) => (Math.abs(b - code[e]) < Math.abs(a - code[e]) ? b : a));
      return repaired(
        edges.map((_, e) => nearest(code[e])),
        near,
      );
    },
  };
}

/**
 * Mean over edges (and tasks) of the entropy of the softmax over operations, for alpha `[..., edges, ops]`: 0 where each
 * edge has decided for one, log(ops) where all are alike. Times a weight it drives a cell to an architecture.
 */
export const architectureEntropy = (alpha: Tensor): Tensor => {
  const logP = logSoftmax(alpha);
  return neg(mean(sum(mul(softmax(alpha), logP), -1)));
};
