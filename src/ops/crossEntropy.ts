/** Cross-entropy of logits over the last axis, and its gradient: one command each, safe at any magnitude. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { sameShape, show } from '../core/shape.js';
import { full, type Tensor } from '../core/tensor.js';
import { add, mul, sub } from './elementwise.js';
import { oneHot } from './gather.js';
import { sum } from './reduce.js';
import { expand } from './views.js';

interface Smoothing {
  readonly smoothing: number;
}

/** Per row: its logits less the largest, the log of the sum of their exponentials, the target and the target's mass. */
function rows(
  [x, labels]: readonly Dense[],
  { smoothing }: Smoothing,
  visit: (row: number, x: number[], logSum: number, target: number[], mass: number) => void,
) {
  const n = x.shape[x.shape.length - 1];
  labels.data.forEach((label, row) => {
    const logits = Array.from(x.data.subarray(row * n, row * n + n));
    const top = logits.reduce((a, b) => Math.max(a, b));
    const above = logits.map(v => v - top);
    const logSum = Math.log(above.reduce((total, v) => total + Math.exp(v), 0));
    const target = logits.map((_, i) => smoothing / n + (i === label ? 1 - smoothing : 0));
    const mass = smoothing + (label >= 0 && label < n ? 1 - smoothing : 0);
    visit(row, above, logSum, target, mass);
  });
}

const gradientSpec: OpSpec<Smoothing> = {
  name: 'crossEntropyGradient',
  dtypes: ['f32', 'i32', 'f32'],
  outputs: ([logits]) => ({ shape: logits.shape }),
  ref: ([out]: readonly Dense[], ins: readonly Dense[], attrs: Smoothing) =>
    rows(ins, attrs, (row, x, logSum, target, mass) => {
      x.forEach((v, i) => {
        out.data[row * x.length + i] = ins[2].data[row] * (mass * Math.exp(v - logSum) - target[i]);
      });
    }),
  vjp: (h, [logits, labels, g], _out, { smoothing }) => {
    const classes = logits.shape[logits.rank - 1];
    // With a target that is even, the gradient is softmax less 1 / classes.
    const even = apply(gradientSpec, [logits, labels, full(labels.shape, 1)], { smoothing: 1 })[0];
    const p = add(even, 1 / classes);
    const target = add(mul(oneHot(labels, classes), 1 - smoothing), smoothing / classes);
    const mass = sum(target, -1, { keepDims: true });
    const along = sum(mul(h, p), -1, { keepDims: true });
    return [
      () => mul(mul(p, sub(h, along)), mul(expand(g, -1), mass)),
      null,
      () => sum(mul(h, sub(mul(p, mass), target)), -1),
    ];
  },
};
defineOp(gradientSpec);

const crossEntropySpec: OpSpec<Smoothing> = {
  name: 'crossEntropy',
  dtypes: ['f32', 'i32'],
  outputs: ([logits, labels]) => {
    if (logits.rank === 0 || !sameShape(logits.shape.slice(0, -1), labels.shape))
      throw new ShapeError(
        `crossEntropy: logits ${show(logits.shape)} and labels ${show(labels.shape)} do not fit`,
      );
    if (logits.shape[logits.rank - 1] === 0)
      throw new ShapeError(`crossEntropy: logits ${show(logits.shape)} have no classes`);
    return { shape: labels.shape };
  },
  ref: ([out]: readonly Dense[], ins: readonly Dense[], attrs: Smoothing) =>
    rows(ins, attrs, (row, x, logSum, target, mass) => {
      // A logit may be infinite where it has no part in the target.
      out.data[row] = x.reduce(
        (loss, v, i) => (target[i] === 0 ? loss : loss - target[i] * v),
        mass * logSum,
      );
    }),
  vjp: (g, [logits, labels], _out, attrs) => [() => apply(gradientSpec, [logits, labels, g], attrs)[0], null],
};
defineOp(crossEntropySpec);
/**
 * -log softmax(logits)[label] for logits `[..., classes]` and labels `[...]` (i32), one value per row `[...]`.
 * `smoothing` in [0,1) moves that share of the target's mass evenly to all classes (Szegedy et al. 2016).
 * A label out of range costs 0 where smoothing is 0. Throws ShapeError and ArgumentError.
 */
export function crossEntropy(logits: Tensor, labels: Tensor, { smoothing = 0 } = {}): Tensor {
  if (!(smoothing >= 0 && smoothing < 1))
    throw new ArgumentError(`crossEntropy: smoothing must be in [0,1), got ${smoothing}`);
  return apply(crossEntropySpec, [logits, labels], { smoothing })[0];
}
