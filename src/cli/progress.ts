/**
 * Progress of a long run on stderr: a bar that redraws itself on a terminal, a plain line every few seconds
 * elsewhere. stdout is never touched.
 */

/** Where progress is written: process.stderr, or a stand-in for it. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface ProgressOptions {
  /** Steps of the whole run. */
  readonly total: number;
  /** Steps done before this process began (a resumed run): counted in the bar, not in the speed. */
  readonly done?: number;
  /** What stands before the bar. */
  readonly label: string;
  /** Name of the number passed to `update`. */
  readonly metric?: string;
  /** Writes nothing at all. */
  readonly silent?: boolean;
  readonly stream?: ProgressStream;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface Progress {
  /** Reports that `step` steps are done. Cheap: it writes at most ten times a second. */
  update(step: number, metric?: number): void;
  /** Writes a line of its own above the bar. */
  note(line: string): void;
  /** Writes the last state and leaves the cursor on a new line. Nothing is written afterwards. */
  done(): void;
}

const BAR_WIDTH = 24;
const REDRAW_MS = 100;
const LINE_MS = 5000;

/** Begins to show the progress of a run of `total` steps. Honours NO_COLOR, and TERM=dumb by plain lines. */
export function progress(options: ProgressOptions): Progress {
  const { total, label, metric = 'loss', stream = process.stderr, env = process.env } = options;
  if (options.silent) return { update() {}, note() {}, done() {} };
  const now = options.now ?? (() => performance.now());
  const live = Boolean(stream.isTTY) && env.TERM !== 'dumb';
  const color = live && !env.NO_COLOR;
  const first = options.done ?? 0;
  const began = now();
  let step = first;
  let value: number | undefined;
  let written = live ? Number.NEGATIVE_INFINITY : began;
  let drawnStep = -1;
  let ended = false;

  const state = () => {
    const seconds = (now() - began) / 1000;
    const speed = seconds > 0 ? (step - first) / seconds : 0;
    const fields = [`${step}/${total}`];
    if (speed > 0) fields.push(`${formatSpeed(speed)} steps/s`);
    if (speed > 0 && step < total) fields.push(`ETA ${formatDuration((total - step) / speed)}`);
    else if (step >= total) fields.push(`in ${formatDuration(seconds)}`);
    if (value !== undefined) fields.push(`${metric} ${formatMetric(value)}`);
    return fields.join('  ');
  };
  const draw = () => {
    written = now();
    drawnStep = step;
    if (!live) {
      stream.write(`${label}  ${state()}\n`);
      return;
    }
    const filled = Math.round(BAR_WIDTH * (total > 0 ? Math.min(1, step / total) : 1));
    const bar = ['━'.repeat(filled), '─'.repeat(BAR_WIDTH - filled)];
    const rest = `  ${state()}`.slice(0, Math.max(0, (stream.columns ?? 80) - label.length - BAR_WIDTH - 2));
    const painted = color ? `\x1b[36m${bar[0]}\x1b[90m${bar[1]}\x1b[0m` : bar.join('');
    stream.write(`\r${label} ${painted}${rest}\x1b[K`);
  };

  return {
    update(next, latest) {
      if (ended) return;
      step = next;
      if (latest !== undefined) value = latest;
      if (now() - written >= (live ? REDRAW_MS : LINE_MS)) draw();
    },
    note(line) {
      if (ended) return;
      stream.write(live ? `\r\x1b[K${line}\n` : `${line}\n`);
      if (live && drawnStep >= 0) draw();
    },
    done() {
      if (ended) return;
      if (step !== drawnStep || live) draw();
      if (live) stream.write('\n');
      ended = true;
    },
  };
}

/** Seconds as `12 s`, `3:05 min` or `2:07:30 h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)} h`;
}

const formatSpeed = (speed: number) => (speed >= 100 ? speed.toFixed(0) : speed.toPrecision(3));

/** Four significant digits, and an exponent only where the digits would be many. */
export function formatMetric(value: number): string {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(3) : value.toPrecision(4);
}
