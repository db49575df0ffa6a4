/** Where the derivative of a loss goes: from each parameter to the loss, or to where it is cut. */
import type { Command, Storage } from '../core/backend.js';
import { GraphError, ProgramError } from '../core/errors.js';
import { differentiable, type GraphNode, tapes, vjp } from '../core/grad.js';
import { current, full, type Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { templateOf } from './arguments.js';
import { capture } from './capture.js';

/** What `trace` finds of one parameter. */
export interface ParameterTrace {
  /** `layers.0.w`. */
  readonly path: string;
  /** Ops from the parameter to the loss, by the shortest way; where it is cut, those before the cut. */
  readonly ops: readonly string[];
  /**
   * 0 where the loss has no derivative by it, 1 for a plain one, 2 where a derivative taken inside the loss depends on
   * the parameter (MAML of second order), and so on.
   */
  readonly order: number;
  /** Why there is no derivative, and after which op; null where there is one. */
  readonly cut: string | null;
}

/**
 * Marks what is recorded on a tape with how many derivatives deep it was made: one deeper than the op whose pullback
 * makes it. Gradients one after the other (the steps of an inner loop) are no deeper than one.
 */
function watchOrders(nodes: GraphNode[]): Map<GraphNode, number> {
  const orders = new Map<GraphNode, number>();
  let least = 0;
  const raised = <T>(order: number, f: () => T): T => {
    const before = least;
    least = Math.max(least, order);
    try {
      return f();
    } finally {
      least = before;
    }
  };
  const push = (node: GraphNode): number => {
    const order = least;
    orders.set(node, order);
    const { op } = node;
    const pullback = op.vjp;
    // The tapes of gradients inside the loss hold the same node, and find its pullback here.
    if (pullback)
      Object.assign(node, {
        op: {
          ...op,
          vjp: (...args: Parameters<typeof pullback>) =>
            raised(order + 1, () => pullback(...args)).map(
              thunk => thunk && (() => raised(order + 1, thunk)),
            ),
        },
      });
    return Array.prototype.push.call(nodes, node);
  };
  Object.defineProperty(nodes, 'push', { value: push });
  return orders;
}

/** Which inputs of a node get a cotangent. */
function passes({ op, ins, outs, attrs }: GraphNode): boolean[] {
  if (!op.vjp) return ins.map(() => false);
  const gs = outs.map(out => full(out.shape, 0, out.backend));
  return op.vjp(gs[0], ins, outs[0], attrs, { outs, gs }).map(thunk => thunk !== null);
}

interface Arrival {
  readonly node: GraphNode;
  readonly from: Tensor;
  readonly length: number;
}

/** What the derivative by `leaf` reaches, by the shortest way, and the nodes on any way from it to `value`. */
function waysOf(leaf: Tensor, value: Tensor, nodes: readonly GraphNode[], open: Map<GraphNode, boolean[]>) {
  const arrivals = new Map<Tensor, Arrival | null>([[leaf, null]]);
  const lengthOf = (x: Tensor) => arrivals.get(x)?.length ?? 0;
  const sources = (node: GraphNode) => node.ins.filter((x, k) => open.get(node)![k] && arrivals.has(x));
  for (const node of nodes) {
    const [from] = sources(node).sort((a, b) => lengthOf(a) - lengthOf(b));
    if (from) for (const out of node.outs) arrivals.set(out, { node, from, length: lengthOf(from) + 1 });
  }
  const ops: string[] = [];
  for (let at = arrivals.get(value); at; at = arrivals.get(at.from)) ops.unshift(at.node.op.name);
  const leads = new Set<Tensor>([value]);
  const between = [...nodes].reverse().filter(node => {
    const on = node.outs.some(out => leads.has(out)) ? sources(node) : [];
    for (const x of on) leads.add(x);
    return on.length > 0;
  });
  return { arrivals, ops, between };
}

/** Commands that carry the values of `from` to `to`, in order; null if none do. */
function dataWay(from: Storage, to: Storage, commands: readonly Command[]): Command[] | null {
  const cameBy = new Map<Storage, { command: Command; from: Storage } | null>([[from, null]]);
  for (const command of commands) {
    const source = command.ins.find(view => cameBy.has(view.storage))?.storage;
    if (source)
      for (const out of command.outs)
        if (!cameBy.has(out.storage)) cameBy.set(out.storage, { command, from: source });
  }
  if (!cameBy.has(to)) return null;
  const way: Command[] = [];
  for (let at = cameBy.get(to); at; at = cameBy.get(at.from)) way.unshift(at.command);
  return way;
}

/**
 * Follows the derivative of a scalar `loss(params, ...rest)` from every f32 leaf of `params`, without computing
 * anything: by which ops it reaches the loss and of which order it is, or where it is cut: by `stopGradient`, by an op
 * that has no derivative, or because the loss does not use the parameter at all. Throws GraphError if the loss reads a
 * value on the host, where every derivative ends; ShapeError and others as the loss does.
 */
export function trace<P, R extends unknown[]>(
  loss: (params: P, ...rest: R) => Tensor,
  params: P,
  ...rest: R
): ParameterTrace[] {
  const backend = tree.leaves(params).find(differentiable)?.backend ?? current();
  let finish: ((commands: readonly Command[]) => ParameterTrace[]) | undefined;
  const step = (own: P, ...others: R) =>
    vjp(p => {
      const { nodes } = tapes[tapes.length - 1];
      const orders = watchOrders(nodes);
      const value = loss(p, ...others);
      const recorded = nodes.slice();
      const leaves = tree.entries(p).filter((entry): entry is [string, Tensor] => differentiable(entry[1]));
      const open = new Map(recorded.map(node => [node, passes(node)]));
      const shut = new Set(recorded.filter(node => !open.get(node)!.some(Boolean)).map(({ op }) => op.name));
      const found = leaves.map(([path, leaf]) => {
        const { arrivals, ops, between } = waysOf(leaf, value, recorded, open);
        const order = 1 + Math.max(0, ...between.map(node => orders.get(node) ?? 0));
        const carried = new Set([...arrivals.keys()].map(x => x.view.storage));
        return { path, leaf, ops, order, reached: arrivals.has(value), carried };
      });
      finish = commands =>
        found.map(({ path, leaf, ops, order, reached, carried }) => {
          if (reached) return { path, ops, order, cut: null };
          const way = dataWay(leaf.view.storage, value.view.storage, commands);
          if (!way) return { path, ops: [], order: 0, cut: 'the loss does not use it' };
          const end = way.findIndex(({ outs }) => !outs.some(out => carried.has(out.storage)));
          const [before, at] = [way.slice(0, end).map(({ op }) => op), way[end]?.op];
          const where = before.length > 0 ? `after ${before[before.length - 1]}` : 'at the parameter itself';
          const why =
            at && shut.has(at) ? `${at} has no derivative` : `stopGradient, or a gradient that ends`;
          return { path, ops: before, order: 0, cut: `${where}${at ? `, before ${at}` : ''}: ${why}` };
        });
      return value;
    }, own).value;
  try {
    const recording = capture(
      step as (...args: any[]) => unknown,
      templateOf([params, ...rest], 'static'),
      backend,
    );
    return finish!(recording.commands);
  } catch (error) {
    if (error instanceof ProgramError)
      throw new GraphError(`trace: ${error.message}; a value that is read carries no derivative`, {
        cause: error,
      });
    throw error;
  }
}

/** A line for each parameter: `layers.0.w  linear > relu > mean  (order 1)`, or where it is cut. */
export const traceText = (traces: readonly ParameterTrace[]): string => {
  const width = Math.max(0, ...traces.map(({ path }) => path.length));
  return traces
    .map(
      ({ path, ops, order, cut }) =>
        `${path.padEnd(width)}  ${cut ? `cut ${cut}` : `${ops.join(' > ')}  (order ${order})`}`,
    )
    .join('\n');
};
