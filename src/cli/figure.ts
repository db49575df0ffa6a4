import type { Tensor } from '../core/tensor.js';
import { drawBatch } from '../data/task.js';
import { toEpisodes } from '../meta/index.js';
import { tensor } from '../ops/index.js';
import type { Metrics } from './metrics.js';
import { type RegressionTask, regressionFigure } from './picture.js';
import { writeFigure } from './plot.js';
import type { Recipe } from './recipes.js';
import { describeResult, type Result } from './run.js';

const TASKS = 6;
const POINTS = 201;

/** What the picture says of the run beside the curves. */
export interface Caption {
  readonly method: string;
  readonly seed: number;
  readonly steps: number;
  readonly before: Result;
  readonly after: Result;
}

/**
 * Draws the first six unseen sinusoids, what the learner makes of them and the loss: `<path>.svg` and `.png`.
 * Returns the paths written.
 */
export async function drawUnseen(
  path: string,
  { task, learner, testing }: Recipe,
  params: unknown,
  { steps, losses }: Metrics,
  caption: Caption,
): Promise<string[]> {
  const { family, shots, queries } = testing;
  const batch = drawBatch(family, {
    split: 'test',
    seed: caption.seed,
    first: 0,
    tasks: TASKS,
    shots,
    queries,
  });
  const { support, query } = toEpisodes(batch);
  const grid = Float32Array.from({ length: POINTS }, (_, i) => -5 + (10 * i) / (POINTS - 1));
  const x = tensor(
    Float32Array.from({ length: TASKS * POINTS }, (_, i) => grid[i % POINTS]),
    [TASKS, POINTS, 1],
  );
  const predict = (inputs: Tensor) => learner.predict(params, support, inputs, family.outSize).data();
  const [curves, answers] = [await predict(x), await predict(query.x)];

  const part = (values: ArrayLike<number>, t: number, n: number) =>
    Array.from({ length: n }, (_, i) => values[t * n + i]);
  const tasks = Array.from({ length: TASKS }, (_, t): RegressionTask => {
    const [amplitude, phase] = part(batch.latent, t, 2);
    const errors = part(answers, t, queries).map((y, i) => (y - batch.query.y[t * queries + i]) ** 2);
    return {
      support: { x: part(batch.support.x, t, shots), y: part(batch.support.y, t, shots) },
      truth: { x: grid, y: grid.map(at => amplitude * Math.sin(at - phase)) },
      generated: { x: grid, y: part(curves, t, POINTS) },
      mse: errors.reduce((a, b) => a + b, 0) / queries,
    };
  });
  const { method, before, after } = caption;
  const figure = regressionFigure({
    title: `${task}: ${shots} points of an unseen task, and the function made of them`,
    subtitle: `${method}, ${caption.steps} steps; ${describeResult(after)}, ${before.mean.toPrecision(3)} before`,
    tasks,
    loss: { x: steps, y: losses },
    evaluation: { x: [0, caption.steps], y: [before.mean, after.mean] },
  });
  return writeFigure(path, figure);
}
