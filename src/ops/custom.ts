/** Functions with a derivative of another kind: recomputed, or the user's own. */
import { checkSync, differentiable, record, stopGradient, suspend, vjp } from '../core/grad.js';
import type { OpSpec } from '../core/op.js';
import { runtime } from '../core/queue.js';
import { full, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';

/** Runs `f` on stripped inputs without recording, then records one node whose derivative is `pullback`. */
function opaqueCall<I extends unknown[], O>(
  name: string,
  f: (...ins: I) => O,
  ins: I,
  pullback: (g: O, ins: I, out: O) => unknown,
): O {
  const all = tree.leaves(ins);
  for (const x of all) if (x instanceof tree.Opaque) x.refuse(`passing it to ${name}`);
  const flat = all.filter(differentiable);
  let deps = 0;
  for (const x of flat) deps |= x.deps;
  deps &= runtime.openGradients;
  if (deps === 0) return f(...ins);
  const out = suspend(() => f(...stopGradient(ins)));
  checkSync(out, name);
  const outs = tree.map(x => new Tensor((x as Tensor).view), out) as O;
  const op: OpSpec = {
    name,
    vjp: (_g, live, _out, _attrs, { outs: made, gs }) => {
      let i = 0;
      const inputs = tree.map(x => (differentiable(x) ? live[i++] : x), ins) as I;
      const cotangents = tree.rebuild(
        out,
        made.map((o, k) => gs[k] ?? full(o.shape, 0, o.backend)),
      );
      let found: Tensor[] | null = null;
      const result = () =>
        (found ??= tree
          .leaves<Tensor | null>(pullback(cotangents, inputs, tree.rebuild(out, made)))
          .filter(differentiable));
      return live.map((_, k) => () => result()[k]);
    },
  };
  record(op, flat, tree.leaves<Tensor>(outs), undefined, deps);
  return outs;
}

/**
 * `f` without keeping its intermediates: the backward pass runs it again. Same values and derivatives of every order,
 * less memory. `f` takes and returns trees; it must not close over tensors that carry a gradient (GraphError).
 */
export function checkpoint<I extends unknown[], O>(f: (...ins: I) => O): (...ins: I) => O {
  return (...ins) =>
    opaqueCall('checkpoint', f, ins, (g, args) => vjp((primal: I) => f(...primal), args).pullback(g));
}

/**
 * `f` with a derivative of your own: `pullback(cotangents, ins, out)` returns one cotangent per f32 input, in a list
 * shaped like the inputs, and is differentiated itself for higher orders.
 */
export function customVjp<I extends unknown[], O>(
  f: (...ins: I) => O,
  pullback: (cotangents: O, ins: I, out: O) => unknown,
): (...ins: I) => O {
  return (...ins) => opaqueCall('customVjp', f, ins, pullback);
}
