/**
 * Arguments of one subcommand, on node:util's parseArgs. Whatever is wrong with them is one ArgumentError of one line
 * that says what was given and what was expected; the caller prints it and exits with 2.
 */
import { parseArgs } from 'node:util';
import { ArgumentError } from '../core/errors.js';

/** How one option is read. `expected` completes the sentence "expected ..."; `read` returns undefined to refuse. */
export interface Option<T> {
  readonly expected: string;
  readonly read: (text: string) => T | undefined;
  /** Value when the option is absent. */
  readonly fallback: T;
  /** True for an option that stands alone, without a value. */
  readonly flag?: boolean;
}

/** A command's name, its positional arguments in order and its options. */
export interface CommandSpec<O extends Record<string, Option<unknown>>> {
  readonly name: string;
  /** Names as the usage line shows them; all are required. */
  readonly positionals?: readonly string[];
  /** Name of what may follow them, any number of times. */
  readonly rest?: string;
  readonly options: O;
}

export interface Arguments<O extends Record<string, Option<unknown>>> {
  readonly positionals: readonly string[];
  readonly options: { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never };
}

/** An option without a value: true if given. */
export const flag = (): Option<boolean> => ({
  expected: 'no value',
  read: () => true,
  fallback: false,
  flag: true,
});

/** Any non-empty text, `what` saying of which kind. */
export const text = <F extends string | undefined>(what: string, fallback: F): Option<string | F> => ({
  expected: what,
  read: given => (given === '' ? undefined : given),
  fallback,
});

/** A whole number of at least `least`. */
export const integer = <F extends number | undefined>(least: number, fallback: F): Option<number | F> => ({
  expected: `a whole number of at least ${least}`,
  read: given => (/^[+-]?\d+$/.test(given) && Number(given) >= least ? safe(Number(given)) : undefined),
  fallback,
});

/** A finite number above 0. */
export const positive = <F extends number | undefined>(fallback: F): Option<number | F> => ({
  expected: 'a number above 0',
  read: given =>
    given.trim() !== '' && Number(given) > 0 && Number.isFinite(Number(given)) ? Number(given) : undefined,
  fallback,
});

/** One of the given words. */
export const oneOf = <W extends string, F extends W | undefined>(
  words: readonly W[],
  fallback: F,
): Option<W | F> => ({
  expected: `one of ${words.join(', ')}`,
  read: given => words.find(word => word === given),
  fallback,
});

const safe = (value: number) => (Number.isSafeInteger(value) ? value : undefined);

/**
 * The line that shows how a command is called: `train TASK [--steps VALUE] [--json]`.
 */
export function usage<O extends Record<string, Option<unknown>>>(spec: CommandSpec<O>): string {
  const options = Object.entries(spec.options).map(([key, { flag }]) => `[--${key}${flag ? '' : ' VALUE'}]`);
  const rest = spec.rest === undefined ? [] : [`[${spec.rest}...]`];
  return [spec.name, ...(spec.positionals ?? []), ...rest, ...options].join(' ');
}

/**
 * Reads `argv` (what follows the command's name) by `spec`. Options may stand anywhere, as `--steps 5` or `--steps=5`;
 * the last of a repeated one wins; after `--` everything is positional.
 * Throws ArgumentError for an unknown option, a value that is missing or refused, and a wrong count of positionals.
 */
export function parse<O extends Record<string, Option<unknown>>>(
  spec: CommandSpec<O>,
  argv: readonly string[],
): Arguments<O> {
  const refuse = (problem: string, expected: string): never => {
    throw new ArgumentError(`${spec.name}: ${problem}; expected ${expected}`);
  };
  const types = Object.entries(spec.options).map(([key, { flag }]) => [
    key,
    { type: flag ? ('boolean' as const) : ('string' as const) },
  ]);
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(types),
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const positionals: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(spec.options)) values[key] = option.fallback;
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const option = Object.hasOwn(spec.options, token.name) ? spec.options[token.name] : undefined;
    if (!option) return refuse(`unknown option ${token.rawName}`, usage(spec));
    if (option.flag && token.value !== undefined) {
      return refuse(`${token.rawName} was given the value '${token.value}'`, option.expected);
    }
    // As parseArgs in strict mode: a value that looks like an option must be written --name=-value.
    const missing =
      !option.flag && (token.value === undefined || (!token.inlineValue && /^-./.test(token.value)));
    if (missing) return refuse(`${token.rawName} needs a value`, option.expected);
    const value = option.read(token.value ?? '');
    if (value === undefined) return refuse(`${token.rawName} was given '${token.value}'`, option.expected);
    values[token.name] = value;
  }
  const wanted = spec.positionals ?? [];
  if (positionals.length < wanted.length) {
    return refuse(`${wanted.slice(positionals.length).join(' and ')} missing`, usage(spec));
  }
  if (spec.rest === undefined && positionals.length > wanted.length) {
    return refuse(`'${positionals[wanted.length]}' is one argument too many`, usage(spec));
  }
  return { positionals, options: values as Arguments<O>['options'] };
}
