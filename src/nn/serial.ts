import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { add, foldIn } from '../ops/index.js';
import { offsetsOf } from '../ops/linear.js';
import { type ApplyOptions, defineLayer, type Layer, LayerError, lambda, weaveFor, within } from './layer.js';

/** A layer, or an activation: a function of a tensor that keeps its shape. */
export type LayerLike = Layer | ((x: Tensor) => Tensor);

const asLayer = (layer: LayerLike): Layer => (typeof layer === 'function' ? lambda(layer) : layer);

/**
 * Layers one after the other, activations among them: `serial(dense(40), relu, dense(1))`. Parameters are
 * `{ layers: [...] }`, so a path reads `layers.2.w`. Layers that draw get keys of their own.
 */
export function serial(...parts: LayerLike[]): Layer<{ layers: any[] }> {
  const layers = parts.map(asLayer);
  const shapes = (inShape: Shape): Shape[] => {
    const out = [inShape];
    layers.forEach((layer, k) => {
      out.push(within(`layers.${k}`, () => layer.outShape(out[k])));
    });
    return out;
  };
  return defineLayer({
    random: layers.some(layer => layer.random),
    params: inShape => {
      const ins = shapes(inShape);
      return { layers: layers.map((layer, k) => within(`layers.${k}`, () => layer.params(ins[k]))) };
    },
    outShape: inShape => shapes(inShape)[layers.length],
    apply: (params, x, options = {}) => {
      if (params?.layers?.length !== layers.length)
        throw new LayerError(
          'layers',
          `expected ${layers.length} layers, got ${params?.layers?.length ?? 'none'}`,
        );
      const shared: ApplyOptions = { ...options, rows: options.rows && offsetsOf(options.rows, x.backend) };
      const woven = weaveFor(params, x, shared);
      return layers.reduce((h, layer, k) => {
        const key = layer.random && options.key ? foldIn(options.key, k) : undefined;
        return within(`layers.${k}`, () => layer.apply(woven.layers[k], h, { ...shared, key }));
      }, x);
    },
  });
}

/** x + layer(x); the layer keeps shapes. Parameters are `{ layer }`. */
export function residual(part: LayerLike): Layer<{ layer: any }> {
  const layer = asLayer(part);
  return defineLayer({
    random: layer.random,
    params: inShape => ({ layer: within('layer', () => layer.params(inShape)) }),
    outShape: inShape => {
      const out = within('layer', () => layer.outShape(inShape));
      if (`${out}` !== `${inShape}`)
        throw new LayerError('layer', `expected to keep [${inShape}], makes [${out}]`);
      return inShape;
    },
    apply: ({ layer: params }, x, options) =>
      add(
        x,
        within('layer', () => layer.apply(params, x, options)),
      ),
  });
}
