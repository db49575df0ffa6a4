/** Reductions to outputs that lie side by side, like what is folded to each: the columns of a matrix. */
import { type Call, integer, isDense, type Pass, product } from './kernel.js';
import { functionsOf, reduce } from './reduce.js';

/** Threads of a workgroup: a vector register of software adapters. */
const WIDTH = 8;

/**
 * `reduce`, but on software adapters, which load four elements in the time of one, with a thread for four columns where
 * there are enough of them for two cores.
 */
export function reduceColumns(call: Call): Pass[] {
  const [x] = call.ins;
  const [y] = call.outs;
  const { fn, prologue, epilogue } = call.attrs;
  const kept = x.shape.length - integer(call, 'reduced');
  const [shape, folded] = [x.shape.slice(0, kept), x.shape.slice(kept)];
  const strides = x.strides.slice(kept);
  const outputs = product(shape) / 4;
  const fits =
    call.software &&
    !prologue &&
    !epilogue &&
    Number.isInteger(outputs) &&
    outputs >= 2 * WIDTH &&
    isDense({ shape, strides: x.strides.slice(0, kept) }) &&
    strides.every(stride => stride % 4 === 0) &&
    isDense(y) &&
    x.aligned &&
    y.aligned &&
    x.slot !== y.slot;
  if (!fits) return reduce(call);
  const from = { shape: [outputs, ...folded], strides: [1, ...strides.map(stride => stride / 4)] };
  return [
    {
      bodies: ['columns'],
      constants: { WIDTH },
      params: { outputs, length: product(folded) },
      access: [
        { name: 'x', operand: { ...x, ...from, fours: true }, groups: [1, folded.length] },
        {
          name: 'y',
          operand: { ...y, shape: [outputs], strides: [1], fours: true },
          groups: [1],
          store: 'raw',
        },
      ],
      generate: source => functionsOf(source, String(fn)),
      workgroups: Math.ceil(outputs / WIDTH),
    },
  ];
}
