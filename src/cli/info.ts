/** `weightloom info`: what this machine offers. */
import { createRequire } from 'node:module';
import { type BackendName, init, open } from '../backends/init.js';
import { DeviceLimitError, WeightloomError } from '../core/errors.js';
import { flag, parse } from './args.js';

/** The version in package.json. */
export const VERSION: string = createRequire(import.meta.url)('weightloom/package.json').version;

/** Every backend by name. */
export const BACKENDS = ['ref', 'cpu', 'webgpu'] as const satisfies readonly BackendName[];

/** What `info --json` prints. */
export interface Info {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly backends: Readonly<Record<(typeof BACKENDS)[number], BackendInfo>>;
  /** The backend that is used where none is named. */
  readonly chosen: string;
}

/** A backend as found here; `reason` says why it cannot be had. */
export interface BackendInfo {
  readonly ok: boolean;
  readonly reason?: string;
  readonly isa?: string;
  readonly threads?: number;
  readonly adapter?: string;
  /** What `init` takes as `precision` here. */
  readonly precisions?: readonly string[];
  readonly limits?: Readonly<Record<string, number>>;
  readonly features?: readonly string[];
}

/** The facts of `describe()` that do not change while a backend runs. */
const FACTS = ['isa', 'threads', 'adapter', 'limits', 'features'] as const;

async function probe(name: (typeof BACKENDS)[number]): Promise<BackendInfo> {
  try {
    const backend = await open(name);
    const facts = backend.describe();
    backend.dispose();
    return {
      ok: true,
      ...(name === 'webgpu' && { precisions: await precisions() }),
      ...Object.fromEntries(FACTS.flatMap(key => (key in facts ? [[key, facts[key]]] : []))),
    };
  } catch (error) {
    if (!(error instanceof WeightloomError)) throw error;
    return { ok: false, reason: error.message };
  }
}

async function precisions(): Promise<string[]> {
  const had = ['highest'];
  for (const precision of ['high', 'medium'] as const) {
    try {
      (await open('webgpu', { precision })).dispose();
      had.push(precision);
    } catch (error) {
      if (!(error instanceof DeviceLimitError)) throw error;
    }
  }
  return had;
}

/** Opens every backend once and tells what it found. */
export async function gatherInfo(): Promise<Info> {
  const [ref, cpu, webgpu] = [await probe('ref'), await probe('cpu'), await probe('webgpu')];
  const chosen = await init();
  chosen.dispose();
  const platform = `${process.platform}-${process.arch}`;
  return {
    version: VERSION,
    node: process.versions.node,
    platform,
    backends: { ref, cpu, webgpu },
    chosen: chosen.name,
  };
}

/** Arguments of `info`. */
export const infoSpec = { name: 'info', options: { json: flag() } } as const;

/** Prints what this machine offers. */
export async function infoCommand(args: string[]): Promise<number> {
  const { options } = parse(infoSpec, args);
  const info = await gatherInfo();
  if (options.json) {
    console.log(JSON.stringify(info));
    return 0;
  }
  console.log(`weightloom ${info.version}, Node ${info.node}, ${info.platform}`);
  for (const name of BACKENDS) {
    const { ok, reason, isa, threads, adapter, precisions } = info.backends[name];
    const facts = [
      adapter,
      isa,
      threads === undefined ? undefined : `${threads} threads`,
      precisions && `precision ${precisions.join(', ')}`,
    ].filter(Boolean);
    const line = ok ? ['available', ...facts].join(', ') : `not available: ${reason}`;
    console.log(`${name === info.chosen ? '*' : ' '} ${name.padEnd(7)} ${line}`);
  }
  return 0;
}
