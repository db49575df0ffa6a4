import { ArgumentError } from '../core/errors.js';
import { type Transform, transform } from './transform.js';

/**
 * A transform of its own for each part of the parameters, by the names at the top of their tree: other rates, other
 * optimisers. Throws ArgumentError where the names are not those of the parameters.
 */
export const byPart = (
  parts: Readonly<Record<string, Transform<any>>>,
): Transform<Record<string, unknown>> => {
  const names = Object.keys(parts);
  const partsOf = (params: unknown): Record<string, unknown> => {
    const given = Object.keys((params ?? {}) as object);
    if (given.length !== names.length || names.some(name => !given.includes(name)))
      throw new ArgumentError(`byPart: the parameters have the parts ${given}, the transforms ${names}`);
    return params as Record<string, unknown>;
  };
  const each = <R>(f: (name: string) => R): Record<string, R> =>
    Object.fromEntries(names.map(name => [name, f(name)]));
  return transform(
    params => each(name => parts[name].init(partsOf(params)[name])),
    (grads, state, params) => {
      const own = partsOf(params);
      const of = grads as Record<string, unknown>;
      const done = each(name => parts[name].update(of[name], state[name], own[name]));
      return [each(name => done[name][0]) as typeof grads, each(name => done[name][1])];
    },
  );
};
