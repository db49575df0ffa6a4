import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { add, concat, foldIn } from '../ops/index.js';
import { offsetsOf } from '../ops/linear.js';
import { type ApplyOptions, defineLayer, type Layer, LayerError, lambda, weaveFor, within } from './layer.js';

/** A layer, or an activation: a function of a tensor that keeps its shape. */
export type LayerLike = Layer | ((x: Tensor) => Tensor);

/** A function of a tensor as a layer. */
export const asLayer = (layer: LayerLike): Layer => (typeof layer === 'function' ? lambda(layer) : layer);

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

/**
 * Two networks, the second of which reads the input beside what the first one says: y = corrector(x, base(x)), for rows
 * that are vectors. Tutorials call it a hypernetwork; no weights are generated here, it is a baseline for those that
 * are. Parameters are `{ base, corrector }`.
 */
export function corrected(base: LayerLike, corrector: LayerLike): Layer<{ base: any; corrector: any }> {
  const [first, second] = [asLayer(base), asLayer(corrector)];
  const between = (inShape: Shape): Shape => {
    const said = within('base', () => first.outShape(inShape));
    if (inShape.length !== 1 || said.length !== 1)
      throw new LayerError('corrected', `expected vectors in and between, got [${inShape}] and [${said}]`);
    return [inShape[0] + said[0]];
  };
  return defineLayer({
    params: inShape => ({
      base: within('base', () => first.params(inShape)),
      corrector: within('corrector', () => second.params(between(inShape))),
    }),
    outShape: inShape => within('corrector', () => second.outShape(between(inShape))),
    random: first.random || second.random,
    apply: (params, x, options = {}) => {
      const how = (i: number) => ({ ...options, key: options.key && foldIn(options.key, i) });
      const said = within('base', () => first.apply(params.base, x, how(0)));
      return within('corrector', () => second.apply(params.corrector, concat([x, said], -1), how(1)));
    },
  });
}
