/** Rows less their mean, over their standard deviation. */
import { type Call, flat, type Pass, perElement, product, size, streaming } from './kernel.js';
import { shares } from './reduce.js';
import type { Source } from './source.js';

/** One pass where rows are many or short. A few long ones are cut into parts, and then brought together. */
export function normalise(call: Call): Pass[] {
  const [x] = call.ins;
  const [y, inverse] = call.outs;
  const kept = inverse.shape.length;
  const groups = [kept, x.shape.length - kept];
  const rows = size(inverse);
  const length = product(x.shape.slice(kept));
  const { lanes, width, parts } = shares(rows, length, call.software);
  const operand = { name: 'x', operand: x, groups };
  const result = { name: 'y', operand: y, groups, store: 'raw' } as const;
  const generate = (source: Source) => source.add(`fn eps() -> f32 { return f32(${call.attrs.eps}); }\n`);
  const constants = { LANES: lanes, WIDTH: width };
  if (parts === 1)
    return [
      {
        bodies: ['lanePairs', 'normalise'],
        constants,
        params: { rows, length },
        access: [operand, result, flat('inverse', inverse, 'raw')],
        generate,
        workgroups: Math.ceil(rows / (width / lanes)),
      },
    ];
  const statistics = call.temporary([rows, parts, 2]);
  const mean = call.temporary([rows]);
  const params = { length, parts, part_length: Math.ceil(length / parts) };
  return [
    {
      bodies: ['lanePairs', 'normalisePart'],
      constants,
      params: { ...params, groups: rows * parts },
      access: [operand, flat('part', statistics, 'raw')],
      workgroups: rows * parts,
    },
    perElement(rows, {
      bodies: ['normaliseFold'],
      params,
      access: [flat('part', statistics), flat('mean', mean, 'raw'), flat('inverse', inverse, 'raw')],
      generate,
    }),
    perElement(
      size(y),
      {
        bodies: ['normaliseApply'],
        params: { length },
        access: [operand, flat('mean', mean), flat('inverse', inverse), result],
      },
      streaming(size(y), call.software),
    ),
  ];
}
