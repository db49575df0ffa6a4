#!/usr/bin/env node
/** The command line: finds the command, runs it, and turns whatever it throws into one line and an exit code. */
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { ArgumentError } from '../core/errors.js';
import { type CommandSpec, type Option, usage } from './args.js';
import { failureLine } from './failure.js';
import { VERSION } from './info.js';

/** A subcommand: its options, and what runs it on the arguments after its name and resolves to the exit code. */
interface Command {
  readonly spec: CommandSpec<any>;
  readonly run: (args: string[]) => Promise<number>;
}

const COMMANDS: Record<string, { readonly about: string; readonly load: () => Promise<Command> }> = {
  info: {
    about: 'what this machine offers: versions, backends, devices',
    load: () => import('./info.js').then(m => ({ spec: m.infoSpec, run: m.infoCommand })),
  },
  selftest: {
    about: 'checks every op on a backend: values, gradients, second gradients',
    load: () => import('./selftest.js').then(m => ({ spec: m.selftestSpec, run: m.selftestCommand })),
  },
  train: {
    about: 'trains a hypernetwork or another method on a task',
    load: () => import('./train.js').then(m => ({ spec: m.trainSpec, run: m.trainCommand })),
  },
  eval: {
    about: 'evaluates a checkpoint on unseen tasks',
    load: () => import('./eval.js').then(m => ({ spec: m.evalSpec, run: m.evalCommand })),
  },
  reproduce: {
    about: 'trains what the project promises to show, and writes docs/results.md',
    load: () => import('./reproduce.js').then(m => ({ spec: m.reproduceSpec, run: m.reproduceCommand })),
  },
  bench: {
    about: 'times the workloads of a file',
    load: () => import('./bench.js').then(m => ({ spec: m.benchSpec, run: m.benchCommand })),
  },
};

const HELP = [
  'usage: weightloom COMMAND [OPTIONS]',
  '',
  ...Object.entries(COMMANDS).map(([name, { about }]) => `  ${name.padEnd(9)} ${about}`),
  '',
  'weightloom COMMAND --help shows the options of a command. Results go to stdout, everything else to stderr;',
  '--json prints them for machines. Exit code 2: wrong arguments; 1: a failed run; 130: interrupted.',
].join('\n');

/** What `COMMAND --help` prints: the usage line, what it does, and what each option takes. */
function helpOf(spec: CommandSpec<any>, about: string): string {
  const options = Object.entries<Option<unknown>>(spec.options).map(([key, { expected, fallback, flag }]) => {
    const preset = flag || fallback === undefined ? '' : ` (${fallback})`;
    return `  --${key.padEnd(12)} ${flag ? '' : expected + preset}`.trimEnd();
  });
  return [`usage: weightloom ${usage(spec)}`, '', about, '', ...options].join('\n');
}

/** Runs the command line `argv` (without node and script) and resolves to the exit code. Never throws. */
export async function main(argv: readonly string[]): Promise<number> {
  try {
    const [name, ...args] = argv;
    if (name === '--help' || name === '-h') {
      console.log(HELP);
      return 0;
    }
    if (name === '--version') {
      console.log(VERSION);
      return 0;
    }
    const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : null;
    if (!command)
      throw new ArgumentError(
        `${name === undefined ? 'no command given' : `'${name}' is no command`}; expected one of ${Object.keys(COMMANDS).join(', ')}`,
      );
    const { spec, run } = await command.load();
    if (args.includes('--help')) {
      console.log(helpOf(spec, command.about));
      return 0;
    }
    return await run(args);
  } catch (error) {
    console.error(`weightloom: ${failureLine(error)}`);
    if (process.env.WEIGHTLOOM_DEBUG) console.error(error);
    return error instanceof ArgumentError ? 2 : 1;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  // A reader that stops early (`| head`) is no failure of ours.
  process.stdout.on('error', error =>
    process.exit((error as NodeJS.ErrnoException).code === 'EPIPE' ? 0 : 1),
  );
  main(process.argv.slice(2)).then(code => {
    process.exitCode = code;
  });
}
