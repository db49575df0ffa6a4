/** What training takes beyond predictions: kernels that only derivatives call, compiled steps, measurements. */
import { KernelError } from '../../core/errors.js';
import type { Parts } from './backend.js';
import { Steps } from './executable.js';
import { generateGradients } from './generate.js';
import {
  byAxis,
  type Call,
  flat,
  integer,
  type Lowering,
  type Pass,
  perElement,
  size,
  streaming,
} from './kernel.js';
import { copy, kernels, poolSizes, rowwise, softmaxRows, takeGroups } from './launch.js';
import { conv2dFilter, conv2dInput, raggedOuter } from './matmul.js';
import { shaders, trainingShaders } from './shaders.gen.js';
import { PassTimer } from './timer.js';

function scatterAdd(call: Call): Pass[] {
  const [src, index] = call.ins;
  const [y] = call.outs;
  const { whole, taken, params, columns } = takeGroups(call, y, index);
  const threads = call.software ? 64 : 16384;
  const segment = Math.ceil(params.size / Math.min(params.size, Math.ceil(threads / columns)));
  const segments = Math.ceil(params.size / segment);
  return [
    perElement(columns * segments, {
      bodies: ['scatterAdd'],
      params: { ...params, segment, segments },
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

/** Elements that a thread of the mode 'read' adds up. */
const READS = 64;

/** What `bench` measures the device by: one pass with a loop in it, or as many passes over memory as are asked for. */
function machine(call: Call): Pass[] {
  const { ins, outs, attrs } = call;
  const access = [flat('x', ins[0]), flat('y', outs[0], 'raw')];
  const repeats = integer(call, 'repeats');
  const count = size(outs[0]);
  const modes: Record<string, () => Pass> = {
    read: () => perElement(count / READS, { bodies: ['machineRead'], constants: { READS }, access }),
    write: () =>
      perElement(
        count,
        { bodies: ['machineWrite'], access: access.slice(1) },
        streaming(count, call.software),
      ),
    copy: () => copy(call)[0],
  };
  const mode = String(attrs.mode);
  if (mode === 'fma') return [perElement(count, { bodies: ['machineFma'], params: { repeats }, access })];
  if (!Object.hasOwn(modes, mode)) throw new KernelError(`machine: there is no mode '${mode}'`);
  return new Array<Pass>(repeats).fill(modes[mode]());
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
      machine,
      maxPoolScatter,
      maxPoolTake,
      raggedOuter,
      scatterAdd,
      sumPoolSpread,
    }),
  ]),
  shaders: { ...shaders, ...trainingShaders },
  steps: services => new Steps(services),
  timer: device => new PassTimer(device),
};
