/** The picture of a regression run: unseen tasks with what the generated networks make of them, beside the loss. */
import { type Figure, type Panel, palette } from './plot.js';

/** Values of a function at points, ordered by x where it is drawn as a curve. */
export interface Curve {
  readonly x: ArrayLike<number>;
  readonly y: ArrayLike<number>;
}

/** One unseen task: what the hypernetwork was shown, what is true, and what the generated network says. */
export interface RegressionTask {
  readonly support: Curve;
  readonly truth: Curve;
  readonly generated: Curve;
  /** Mean squared error on the task's query points. */
  readonly mse: number;
}

export interface RegressionRun {
  readonly title: string;
  readonly subtitle?: string;
  /** Six tasks fill the grid; fewer leave cells empty, more are not drawn. */
  readonly tasks: readonly RegressionTask[];
  /** Training loss (x: step), drawn on a log axis. */
  readonly loss: Curve;
  /** Loss on unseen tasks where it was measured (x: step). */
  readonly evaluation?: Curve;
}

const COLUMNS = 3;
const ROWS = 2;

/** Six tasks in two rows on the left, the loss curve on the right. All tasks share both axes. */
export function regressionFigure(run: RegressionRun): Figure {
  const tasks = run.tasks.slice(0, COLUMNS * ROWS);
  const yRange = span(tasks.flatMap(task => [task.truth.y, task.support.y, task.generated.y]));
  const panels: Panel[] = tasks.map((task, i) => ({
    cell: [i % COLUMNS, Math.floor(i / COLUMNS), 1, 1],
    title: `Task ${i + 1}`,
    note: `MSE ${task.mse.toPrecision(2)}`,
    xLabel: i >= COLUMNS ? 'x' : undefined,
    yLabel: i % COLUMNS === 0 ? 'y' : undefined,
    yRange,
    series: [
      { ...task.truth, label: 'true function', color: palette.grey, width: 6, opacity: 0.55 },
      { ...task.generated, label: 'generated network', color: palette.blue, width: 2.2 },
      { ...task.support, label: 'support points', mark: 'points', color: palette.vermilion, width: 8.5 },
    ],
  }));
  const smooth = smoothed(run.loss, 0.04);
  panels.push({
    cell: [COLUMNS, 0, 2, ROWS],
    title: 'Mean squared error',
    note: 'log scale',
    xLabel: 'training step',
    logY: true,
    legend: true,
    series: [
      { ...run.loss, label: 'training, each step', color: palette.sky, width: 1, opacity: 0.45 },
      { ...smooth, label: 'training, smoothed', color: palette.blue, width: 2.2 },
      ...(run.evaluation
        ? [
            {
              ...run.evaluation,
              label: 'unseen tasks',
              mark: 'points' as const,
              color: palette.vermilion,
              width: 8.5,
            },
          ]
        : []),
    ],
  });
  const { title, subtitle } = run;
  return { title, subtitle, width: 1320, height: 620, columns: COLUMNS + 2, rows: ROWS, panels };
}

/**
 * Exponential mean of the logarithm, both ways in time so that it does not lag; `rate` is the weight of one value.
 * Each way counts by how much it has seen, so that neither end follows its last value.
 */
function smoothed({ x, y }: Curve, rate: number): Curve {
  const logs = Array.from(y, value => Math.log(Math.max(value, Number.MIN_VALUE)));
  const pass = (values: number[]) => {
    let sum = 0;
    let weight = 0;
    return values.map(value => {
      sum += rate * (value - sum);
      weight += rate * (1 - weight);
      return { sum, weight };
    });
  };
  const forth = pass(logs);
  const back = pass(logs.toReversed()).toReversed();
  const mean = forth.map((f, i) => (f.sum + back[i].sum) / (f.weight + back[i].weight));
  return { x, y: mean.map(Math.exp) };
}

function span(columns: readonly ArrayLike<number>[]): [number, number] {
  const values = columns.flatMap(column => Array.from(column)).filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const air = 0.08 * (high - low || 1);
  return [low - air, high + air];
}
