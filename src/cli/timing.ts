/**
 * The timing rule of the workload file, and the one place that knows the sampling packages: tinybench, or with
 * WEIGHTLOOM_TIMER=benchmark the package of that name. Both are development dependencies, loaded when needed.
 */
import { ArgumentError } from '../core/errors.js';

/** The numbers of the rule; seconds and counts. */
export interface TimingRule {
  readonly samples_min: number;
  readonly samples_max: number;
  readonly target_seconds: number;
  readonly skip_if_one_call_exceeds_s: number;
}

/** Milliseconds per call: median and least of `n` samples. */
export interface Timing {
  readonly ms: number;
  readonly min_ms: number;
  readonly n: number;
}

/** Runs `sample` about `count` times and resolves to the milliseconds each took. */
type Sampler = (sample: () => Promise<void>, count: number) => Promise<number[]>;

const WARMUP_SECONDS = 0.05;
const WARMUP_CALLS = 1000;
const SAMPLE_SECONDS = 0.005;

const samplers: Record<string, Sampler> = {
  async tinybench(sample, count) {
    const { Bench } = await load<typeof import('tinybench')>('tinybench');
    const bench = new Bench({ iterations: count, time: 0, warmup: false, retainSamples: true, throws: true });
    bench.add('sample', sample);
    const [task] = await bench.run();
    if (task.result.state !== 'completed') throw new ArgumentError(`tinybench ended as ${task.result.state}`);
    return [...(task.result.latency.samples ?? [])];
  },
  async benchmark(sample, count) {
    const { default: Benchmark } = await load<{ default: BenchmarkPackage }>('benchmark');
    return new Promise((resolve, reject) => {
      const bench = new Benchmark({
        defer: true,
        minSamples: count,
        maxTime: 0,
        minTime: SAMPLE_SECONDS,
        fn: (deferred: { resolve(): void }) => void sample().then(() => deferred.resolve(), reject),
      });
      bench.on('complete', () => resolve(bench.stats.sample.map(seconds => seconds * 1e3)));
      bench.run({ async: true });
    });
  },
};

/** What is used of the package `benchmark`, which has no types of its own. */
type BenchmarkPackage = new (
  options: Record<string, unknown>,
) => {
  readonly stats: { readonly sample: readonly number[] };
  on(event: 'complete', listener: () => void): void;
  run(options: { async: boolean }): void;
};

async function load<T>(name: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch {
    throw new ArgumentError(
      `the package ${name} is not installed; expected it for timing (npm install ${name})`,
    );
  }
}

const seconds = () => performance.now() / 1e3;

/**
 * Times `call`, which queues work, under the rule: one call, then as many as fill 0.05 s; samples of so many calls that
 * each lasts 5 ms, ended by `settle`, which waits for the work. A call beyond the rule's limit is timed once (n = 1).
 */
export async function time(
  call: () => void,
  settle: () => Promise<unknown>,
  rule: TimingRule,
  sampler = process.env.WEIGHTLOOM_TIMER ?? 'tinybench',
): Promise<Timing> {
  if (!Object.hasOwn(samplers, sampler))
    throw new ArgumentError(
      `WEIGHTLOOM_TIMER is '${sampler}'; expected one of ${Object.keys(samplers).join(', ')}`,
    );
  const once = async () => {
    const start = seconds();
    call();
    await settle();
    return seconds() - start;
  };
  await once();
  let each = await once();
  if (each > rule.skip_if_one_call_exceeds_s) return { ms: each * 1e3, min_ms: each * 1e3, n: 1 };
  const start = seconds();
  let calls = 0;
  for (; seconds() < start + WARMUP_SECONDS && calls < WARMUP_CALLS; calls++) await once();
  if (calls > 0) each = (seconds() - start) / calls;
  const inner = each >= SAMPLE_SECONDS ? 1 : Math.floor(SAMPLE_SECONDS / each) + 1;
  const wanted = Math.ceil(rule.target_seconds / (inner * each));
  const count = Math.min(rule.samples_max, Math.max(rule.samples_min, wanted));
  const samples = await samplers[sampler](async () => {
    for (let i = 0; i < inner; i++) call();
    await settle();
  }, count);
  const sorted = samples.map(ms => ms / inner).sort((a, b) => a - b);
  return { ms: sorted[sorted.length >> 1], min_ms: sorted[0], n: sorted.length };
}
