/** Rows of generated weights, and of the ops that apply them. */
import type { Tensor } from '../../src/core/tensor.js';
import * as tree from '../../src/core/tree.js';
import * as op from '../../src/ops/index.js';
import { accumulated, ints, moves, type Row, row, wide } from './rows.js';

/** Weights per task, applied without making them where a plan allows that. */
const full = (...[code, basis, base]: Tensor[]) => new op.FullGenerated(code, basis, base);
const lowRank = (...[a, b, base]: Tensor[]) => new op.LowRankGenerated(a, b, 0.7, base);
const woven = (theta: unknown): Tensor[] => tree.leaves(op.materialise(theta));
/** The base and the offsets are told apart by their rank. */
const operandsOf = (code: Tensor, basis: Tensor, x: Tensor, rest: Tensor[]): op.GenerateOperands => ({
  ...{ code, basis, x, base: rest.find(y => y.rank === 2), offsets: rest.find(y => y.rank === 1) },
});
const generateApply = (...[code, basis, x, ...rest]: Tensor[]) =>
  op.generateApply(operandsOf(code, basis, x, rest));
const generateGradients =
  (...wants: op.GenerateSlot[]) =>
  (...[code, basis, x, g, ...rest]: Tensor[]): Tensor[] => {
    const operands = operandsOf(code, basis, x, rest);
    return Object.values(op.generateGradients(operands, g, wants.length > 0 ? wants : undefined));
  };
const generatedInputs = [wide([2, 3]), wide([3, 4, 5]), wide([4, 5])];
const lowRankInputs = [wide([2, 4, 2]), wide([2, 2, 5]), wide([4, 5])];

/** Generated weights and what applies them. */
export const generated: Record<string, Row[]> = {
  linear: [
    row([wide([2, 3, 4]), wide([4, 5]), wide([5])], (x, w, b) => op.linear(x, w, b), accumulated),
    row([wide([2, 3, 4]), wide([2, 4, 5]), wide([2, 5])], (x, w, b) => op.linear(x, w, b), accumulated),
    row(
      [wide([6, 4]), wide([3, 4, 5]), wide([3, 5]), ints(0, 2, 2, 6)],
      (x, w, b, rows) => op.linear(x, w, b, { rows }),
      accumulated,
    ),
    ...(['materialise', 'fused', 'reorder'] as const).map(strategy =>
      row(
        [wide([2, 3, 4]), ...generatedInputs],
        (x, ...w) => op.linear(x, full(...w), null, { strategy }),
        accumulated,
      ),
    ),
    ...(['materialise', 'lowRank'] as const).map(strategy =>
      row(
        [wide([2, 3, 4]), ...lowRankInputs],
        (x, ...w) => op.linear(x, lowRank(...w), null, { strategy }),
        accumulated,
      ),
    ),
    row(
      [wide([5, 4]), ints(0, 1, 5), ...generatedInputs],
      (x, rows, ...w) => op.linear(x, full(...w), null, { rows, strategy: 'reorder' }),
      accumulated,
    ),
    row(
      [wide([5, 4]), ints(0, 1, 5), ...generatedInputs],
      (x, rows, ...w) => op.linear(x, full(...w), null, { rows, strategy: 'fused' }),
      accumulated,
    ),
  ],
  convolve: [
    ...(['materialise', 'fused', 'reorder'] as const).map(strategy =>
      row(
        [wide([2, 1, 4, 3, 2]), wide([2, 3]), wide([3, 2, 2, 2, 3]), wide([2, 2, 2, 3])],
        (x, ...w) => op.convolve(x, full(...w), { stride: [1, 2], padding: 'same', strategy }),
        accumulated,
      ),
    ),
    row(
      [wide([2, 1, 4, 3, 2]), wide([2, 8, 1]), wide([2, 1, 3]), wide([2, 2, 2, 3])],
      (x, a, b, base) => op.convolve(x, new op.LowRankGenerated(a, b, 0.7, base, base.shape)),
      accumulated,
    ),
  ],
  generateApply: [
    row([wide([2, 3]), wide([3, 4, 5]), wide([6, 4])], generateApply, accumulated),
    row([wide([3, 2]), wide([2, 1, 3]), wide([3, 1]), wide([1, 3])], generateApply, accumulated),
    row([wide([7, 5]), wide([5, 33, 17]), wide([7, 33])], generateApply, accumulated),
    row([wide([3, 9]), wide([9, 18, 67]), wide([15, 18]), wide([18, 67])], generateApply, accumulated),
    row(
      [wide([4, 3]), wide([3, 5, 4]), wide([6, 5]), wide([5, 4]), ints(0, 2, 2, 3, 6)],
      generateApply,
      accumulated,
    ),
    row(
      [wide([3, 2]), wide([4, 2, 5]), wide([6, 4])],
      (code, basis, x) => generateApply(code, op.transpose(basis, 0, 1), x),
      accumulated,
    ),
  ],
  generateGradients: [
    row([wide([2, 3]), wide([3, 4, 5]), wide([6, 4]), wide([6, 5])], generateGradients(), accumulated),
    row(
      [wide([7, 5]), wide([5, 33, 17]), wide([7, 33]), wide([7, 17])],
      generateGradients('code', 'basis'),
      accumulated,
    ),
    row([wide([2, 3]), wide([3, 4, 5]), wide([2, 4]), wide([2, 5])], generateGradients('x'), accumulated),
    row(
      [wide([3, 2]), wide([2, 4, 5]), wide([4, 4]), wide([4, 5]), wide([4, 5]), ints(0, 1, 1, 4)],
      generateGradients(),
      accumulated,
    ),
    row(
      [wide([3, 4]), wide([4, 18, 67]), wide([15, 18]), wide([15, 67]), wide([18, 67])],
      generateGradients('base', 'code'),
      accumulated,
    ),
  ],
  vectorFor: [
    row([wide([2, 3, 4]), wide([2, 4])], (x, v) => op.mul(x, op.vectorFor(x, v)), accumulated),
    row(
      [wide([5, 4]), wide([2, 4]), ints(0, 1, 5)],
      (x, v, rows) => op.mul(x, op.vectorFor(x, v, rows)),
      accumulated,
    ),
  ],
  materialise: [
    row(generatedInputs, (...w) => woven(full(...w)), accumulated),
    row(lowRankInputs, (...w) => woven(lowRank(...w)), accumulated),
    row(
      [wide([2, 3, 4]), wide([4, 6]), wide([3, 5])],
      (code, basis, base) => new op.ChunkedGenerated(code, basis, [3, 5], base, 2).materialise(),
      accumulated,
    ),
  ],
  projectFull: [
    row(
      [wide([2, 3]), wide([3, 17]), wide([17])],
      (code, basis, base) => woven(op.projectFull(code, basis, base, [[3, 4], [5]])),
      accumulated,
    ),
  ],
  unpack: [
    row([wide([2, 7])], x => op.unpack(x, [3, 0, 4]), moves),
    row([wide([5, 2])], x => op.unpack(x, [2, 3], 0), moves),
  ],
};
