/** `weightloom selftest`: is every op right on this device? */
import { cases } from '../../tests/cases.js';
import { init, open } from '../backends/init.js';
import type { Backend } from '../core/backend.js';
import { WeightloomError } from '../core/errors.js';
import { flag, oneOf, parse } from './args.js';
import { checkOp, type Measured, type OpReport, passed } from './check.js';
import { falsifiedBy } from './falsify.js';
import { BACKENDS } from './info.js';
import { progress } from './progress.js';

/** What `selftest --json` prints; with `--backend all` it prints an array of them. */
export interface SelftestReport {
  readonly backend: string;
  readonly ops: readonly OpReport[];
  /** How many ops passed. */
  readonly passed: number;
  /** Names of those that did not. */
  readonly failed: readonly string[];
}

/** Checks every op of the case table on a backend, telling `onOp` after each how many are done. */
export async function selftest(
  backend: Backend,
  onOp: (done: number, report: OpReport) => void = () => {},
): Promise<SelftestReport> {
  const ops: OpReport[] = [];
  for (const name of Object.keys(cases)) {
    ops.push(await checkOp(name, backend));
    onOp(ops.length, ops[ops.length - 1]);
  }
  const failed = ops.filter(report => !passed(report)).map(({ name }) => name);
  return { backend: backend.name, ops, passed: ops.length - failed.length, failed };
}

/** Arguments of `selftest`. */
export const selftestSpec = {
  name: 'selftest',
  options: { backend: oneOf([...BACKENDS, 'all'], undefined), json: flag() },
} as const;

/** The backends to check: the chosen one, the one named, or all that can be had here. */
async function wanted(name: (typeof BACKENDS)[number] | 'all' | undefined): Promise<Backend[]> {
  if (name === undefined) return [await init()];
  if (name !== 'all') return [await open(name)];
  const found: Backend[] = [];
  for (const each of BACKENDS) {
    try {
      found.push(await open(each));
    } catch (error) {
      if (!(error instanceof WeightloomError)) throw error;
      console.error(`${each} is left out: ${error.message}`);
    }
  }
  return found;
}

/** Checks ops and prints their errors. Exit code 1 if any op failed. */
export async function selftestCommand(args: string[]): Promise<number> {
  const { options } = parse(selftestSpec, args);
  const reports: SelftestReport[] = [];
  for (const real of await wanted(options.backend)) {
    const backend = falsifiedBy(process.env.WEIGHTLOOM_PERTURB, real);
    const bar = progress({ total: Object.keys(cases).length, label: `selftest ${backend.name}` });
    const report = await selftest(backend, (done, { name, reason }) => {
      bar.update(done);
      if (reason) bar.note(`${name}: ${reason}`);
    });
    bar.done();
    reports.push(report);
    if (!options.json) print(report);
    backend.dispose();
  }
  if (options.json) console.log(JSON.stringify(options.backend === 'all' ? reports : reports[0]));
  return reports.every(({ failed }) => failed.length === 0) ? 0 : 1;
}

function print({ backend, ops, passed: count, failed }: SelftestReport): void {
  console.log(`${backend}: worst error (and its bound)`);
  for (const report of ops) {
    const cells = [report.value, report.gradient, report.second].map(show);
    console.log(`${passed(report) ? ' ' : '!'} ${report.name.padEnd(14)}${cells.join('')}`.trimEnd());
  }
  console.log(
    `${backend}: ${count} passed, ${failed.length} failed${failed.map(name => ` ${name}`).join('')}`,
  );
}

function show(measured: Measured | null): string {
  if (measured === null) return '-'.padEnd(22);
  const { error, bound } = measured;
  const [got, most] = [error, bound].map(x => (x === null ? 'none' : x === 0 ? '0' : x.toExponential(1)));
  return `${got} (${most})`.padEnd(22);
}
