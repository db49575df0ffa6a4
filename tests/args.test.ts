import { describe, expect, it } from 'vitest';
import { flag, integer, oneOf, parse, positive, text, usage } from '../src/cli/args.js';
import { ArgumentError } from '../src/core/errors.js';

const spec = {
  name: 'train',
  positionals: ['TASK'],
  options: {
    steps: integer(1, 2000),
    seed: integer(0, 0),
    lr: positive(undefined),
    backend: oneOf(['auto', 'cpu', 'ref'], 'auto'),
    out: text('a folder', undefined),
    json: flag(),
  },
};

describe('parse', () => {
  it('reads options in any place and fills in what is absent', () => {
    const { positionals, options } = parse(spec, ['--json', 'sinusoid', '--steps', '50', '--lr=1e-3']);
    expect(positionals).toEqual(['sinusoid']);
    expect(options).toEqual({ steps: 50, seed: 0, lr: 1e-3, backend: 'auto', out: undefined, json: true });
    const steps: number = options.steps;
    const out: string | undefined = options.out;
    expect([steps, out]).toEqual([50, undefined]);
  });

  it('takes the last of a repeated option, and anything after --', () => {
    const { positionals, options } = parse(spec, ['--seed', '1', '--seed', '2', '--', '--strange']);
    expect([positionals, options.seed]).toEqual([['--strange'], 2]);
  });

  it.each([
    [['sinusoid', '--stepz', '5'], `train: unknown option --stepz; expected ${usage(spec)}`],
    [['sinusoid', '--constructor', '5'], `train: unknown option --constructor; expected ${usage(spec)}`],
    [
      ['sinusoid', '--steps', 'many'],
      "train: --steps was given 'many'; expected a whole number of at least 1",
    ],
    [['sinusoid', '--steps', '0'], "train: --steps was given '0'; expected a whole number of at least 1"],
    [
      ['sinusoid', '--steps', '1e99'],
      "train: --steps was given '1e99'; expected a whole number of at least 1",
    ],
    [
      ['sinusoid', '--seed', '99999999999999999'],
      "train: --seed was given '99999999999999999'; expected a whole number of at least 0",
    ],
    [['sinusoid', '--seed=-1'], "train: --seed was given '-1'; expected a whole number of at least 0"],
    [['sinusoid', '--steps'], 'train: --steps needs a value; expected a whole number of at least 1'],
    [['sinusoid', '--out', '--json'], 'train: --out needs a value; expected a folder'],
    [['sinusoid', '--out='], "train: --out was given ''; expected a folder"],
    [['sinusoid', '--lr', 'Infinity'], "train: --lr was given 'Infinity'; expected a number above 0"],
    [['sinusoid', '--backend', 'gpu'], "train: --backend was given 'gpu'; expected one of auto, cpu, ref"],
    [['sinusoid', '--json=yes'], "train: --json was given the value 'yes'; expected no value"],
    [[], `train: TASK missing; expected ${usage(spec)}`],
    [['sinusoid', 'omniglot'], `train: 'omniglot' is one argument too many; expected ${usage(spec)}`],
  ])('refuses %j in one line', (argv, message) => {
    expect(() => parse(spec, argv)).toThrow(new ArgumentError(message));
    expect(message).not.toContain('\n');
  });

  it('shows in the usage line which options take a value', () => {
    expect(usage(spec)).toBe(
      'train TASK [--steps VALUE] [--seed VALUE] [--lr VALUE] [--backend VALUE] [--out VALUE] [--json]',
    );
  });
});
