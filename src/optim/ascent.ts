import { neg } from '../ops/index.js';
import { mapGrads, type Transform, transform } from './transform.js';

/** The transform on a value that is to grow: updates go up the gradient. Everything else here descends. */
export const ascent = <S>(descent: Transform<S>): Transform<S> =>
  transform(
    params => descent.init(params),
    (grads, state, params) => descent.update(mapGrads(neg, grads), state, params),
  );
