/** What training takes beyond predictions: kernels that only derivatives call, compiled steps. */
import type { Parts } from './backend.js';
import { reduceColumns } from './columns.js';
import { Steps } from './executable.js';
import { generateGradients } from './generate.js';
import { byAxis, type Call, flat, type Lowering, type Pass, perElement, size } from './kernel.js';
import { kernels, poolSizes, rowwise, softmaxRows, takeGroups } from './launch.js';
import { conv2dFilter, conv2dInput, raggedOuter } from './matmul.js';
import { shaders, trainingShaders } from './shaders.gen.js';

function scatterAdd(call: Call): Pass[] {
  const [src, index] = call.ins;
  const [y] = call.outs;
  const { whole, taken, params, columns } = takeGroups(call, y, index);
  const start = Number(call.attrs.first ?? 0);
  const threads = call.software ? 64 : 16384;
  const segment = Math.ceil(params.size / Math.min(params.size, Math.ceil(threads / columns)));
  const segments = Math.ceil(params.size / segment);
  return [
    perElement(columns * segments, {
      bodies: ['scatterAdd'],
      params: { ...params, segment, segments, start },
      access: [
        { name: 'src', operand: src, groups: taken },
        flat('index', index),
        { name: 'y', operand: y, groups: whole, store: 'raw' },
      ],
      generate: source => source.load('y', y, whole),
    }),
  ];
}

function maxPoolTake(call: Call): Pass[] {
  const [x, index] = call.ins;
  const [y] = call.outs;
  return [
    perElement(size(y), {
      bodies: ['maxPoolTake'],
      params: poolSizes(call, x, y, false),
      access: [byAxis('x', x), byAxis('index', index), byAxis('y', y, 'raw')],
    }),
  ];
}

function maxPoolScatter(call: Call): Pass[] {
  const [g, index] = call.ins;
  const [dx] = call.outs;
  return [
    perElement(size(dx), {
      bodies: ['maxPoolScatter', 'poolAdjoint'],
      params: poolSizes(call, dx, g),
      access: [byAxis('g', g), byAxis('index', index), byAxis('dx', dx, 'raw')],
    }),
  ];
}

function sumPoolSpread(call: Call): Pass[] {
  const [g] = call.ins;
  const [dx] = call.outs;
  return [
    perElement(size(dx), {
      bodies: ['sumPoolSpread', 'poolAdjoint'],
      params: poolSizes(call, dx, g),
      access: [byAxis('g', g), byAxis('dx', dx, 'raw')],
    }),
  ];
}

function crossEntropy(call: Call): Pass[] {
  const [, labels, g] = call.ins;
  const [y] = call.outs;
  const access = g ? [flat('g', g), rowwise('y', y, 'raw')] : [flat('y', y, 'raw')];
  const generated = `const smoothing = f32(${call.attrs.smoothing});\n`;
  return softmaxRows(call, call.kernel, [flat('label', labels), ...access], generated);
}

/** Every kernel there is, and steps that are made ready once. */
export const whole: Parts = {
  kernels: new Map<string, Lowering>([
    ...kernels,
    ...Object.entries({
      conv2dFilter,
      conv2dInput,
      crossEntropy,
      crossEntropyGradient: crossEntropy,
      generateGradients,
      maxPoolScatter,
      maxPoolTake,
      raggedOuter,
      reduce: reduceColumns,
      scatterAdd,
      sumPoolSpread,
    }),
  ]),
  shaders: { ...shaders, ...trainingShaders },
  steps: services => new Steps(services),
  timer: null,
};
