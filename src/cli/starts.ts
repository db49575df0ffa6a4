/** Where gradient steps begin: a generated start against Reptile's and a random one, on sinusoids from 10 points. */
import { init } from '../backends/init.js';
import { type CurvePoint, drawEpisodes, initialState, paired, startCurve, train } from '../meta/index.js';
import { key } from '../ops/index.js';
import { recipeFor } from './recipes.js';
import type { Outcome } from './rows.js';
import { trainingOf } from './train.js';

const STEPS = [0, 1, 5, 50];
/** Each number of steps has the rate that suits it best on validation tasks. */
const RATES = [0.0003, 0.001, 0.003, 0.01];

/** What is compared, and how. */
export interface StartsOptions {
  readonly seed: number;
  readonly threads: number;
  readonly tasks: number;
  readonly signal: AbortSignal;
}

/**
 * Trains a hypernetwork and Reptile, then lets gradient steps begin at what each gives a task, and at a random network.
 * The figures are mean squared errors after so many steps, and differences task by task.
 */
export async function compareStarts({ seed, threads, tasks, signal }: StartsOptions): Promise<Outcome> {
  const backend = await init({ backend: 'cpu', threads });
  try {
    let seconds = 0;
    let trained = 0;
    const curve = async (method: 'hypernet' | 'reptile', steps: number): Promise<CurvePoint[]> => {
      const recipe = await recipeFor('sinusoid', { method, protocol: 'vinyals' });
      const { family, shots, queries } = recipe.testing;
      const first = recipe.learner.init(key(seed));
      const began = performance.now();
      const settings = { method, protocol: 'vinyals' as const, steps, seed };
      const trainedFrom = async () => {
        const start = initialState(first, recipe.optimiser(steps));
        return (await train(trainingOf(recipe, settings), start, { steps, signal })).params;
      };
      const params = steps === 0 ? first : await trainedFrom();
      signal.throwIfAborted();
      seconds += (performance.now() - began) / 1000;
      trained += steps;
      return startCurve(
        { learner: how => recipe.starting!(how), params },
        {
          steps: STEPS,
          rates: RATES,
          metric: 'mse',
          outSize: family.outSize,
          tasks,
          draw: (split, first, count) =>
            drawEpisodes(family, { split, seed, first, tasks: count, shots, queries }),
        },
      );
    };
    const generated = await curve('hypernet', 20_000);
    const reptile = await curve('reptile', 40_000);
    const random = await curve('reptile', 0);
    const [none, one, five, fifty] = STEPS.keys();
    const named = { generated, Reptile: reptile, random };
    const figures = Object.entries(named).flatMap(([name, points]) =>
      points.map(({ steps, mean, ci95 }) => ({ metric: `${name}, ${steps} steps`, mean, ci95, tasks })),
    );
    const less = (name: string, a: CurvePoint, b: CurvePoint) => ({
      metric: name,
      ...paired(a.scores, b.scores),
    });
    return {
      method: 'hypernet, reptile',
      backend: backend.name,
      steps: trained,
      seconds,
      after: figures[0],
      figures: [
        ...figures,
        less('generated at 0 less random at 50', generated[none], random[fifty]),
        less('generated less Reptile, 1 step', generated[one], reptile[one]),
        less('generated less Reptile, 5 steps', generated[five], reptile[five]),
      ],
    };
  } finally {
    backend.dispose();
  }
}
