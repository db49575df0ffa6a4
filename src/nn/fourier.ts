import { sizeOf } from '../core/shape.js';
import { concat, cos, mul, sin } from '../ops/index.js';
import { defineLayer, type Layer } from './layer.js';

/**
 * Fourier features (Rahimi and Recht, NeurIPS 2007): beside every number x of a row sin(2 pi k x / period) and
 * cos(2 pi k x / period) for k = 1 .. count. Rows of n numbers become rows of n (1 + 2 count); there are no parameters.
 */
export const fourierFeatures = (count: number, period: number): Layer =>
  defineLayer({
    params: () => ({}),
    outShape: inShape => [sizeOf(inShape) * (1 + 2 * count)],
    apply: (_, x) => {
      const waves = Array.from({ length: count }, (_, k) => mul(x, (2 * Math.PI * (k + 1)) / period));
      return concat([x, ...waves.map(w => sin(w)), ...waves.map(w => cos(w))], -1);
    },
  });
