/**
 * Times weightloom and its peers by turns, group of rows by group of rows in the same minutes, and prints one table: the
 * smallest median of the rounds, since the machine's other users only ever slow a run down.
 *
 *   node bench/compare.mjs [--suite ABCDEFGH] [--case REGEXP] [--threads 1,2] [--rounds 2] [--backend cpu]
 *                          [--only NAME,...] [--peers DIR] [--build DIR] [--prefix COMMAND] [--budget SECONDS]
 *                          [--name NAME | --from FILE]
 *
 * DIR holds workloads.json and the peers' sources (default ../shared/peers or WEIGHTLOOM_PEERS; its README says what to
 * install). The C peers are built in --build (default BUILD, else peers/build in the folder for temporary files) where
 * they are missing. PYTHON names the interpreter that has torch, PEERS_NODE and PEERS_ORT the folders of the Node peers.
 * A peer that cannot be run is left out with one line; after the first round of a group so are those that came within
 * 10 % of the best on none of its rows. COMMAND is put in front of every run, with BENCH_THREADS set: a wrapper that
 * pins or prioritises it. After --budget SECONDS no group is begun. --name writes bench/results/NAME.md and .jsonl;
 * --from renders the lines of such a file again. For --backend webgpu see also gpu.sh.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { buildPrograms, idsOf, peersOf, selectCases, stage, versions } from './peers.mjs';
import { render } from './report.mjs';

const root = join(import.meta.dirname, '..');
const temporary = join(tmpdir(), 'peers');
const { values: options } = parseArgs({
  options: {
    suite: { type: 'string', default: 'ABCDEFGH' },
    case: { type: 'string', default: '' },
    threads: { type: 'string', default: '1,2' },
    rounds: { type: 'string', default: '2' },
    backend: { type: 'string', default: 'cpu' },
    only: { type: 'string' },
    peers: { type: 'string', default: process.env.WEIGHTLOOM_PEERS ?? join(root, '../shared/peers') },
    build: { type: 'string', default: process.env.BUILD ?? join(temporary, 'build') },
    prefix: { type: 'string', default: '' },
    budget: { type: 'string', default: 'Infinity' },
    name: { type: 'string' },
    from: { type: 'string' },
  },
});
/** One run may take so long; what it printed until then counts. */
const RUN_MS = 900_000;
/** A peer stays in the later rounds of a group if it came so near to the best peer on one row. */
const CONTENDS = 1.1;

/** Suites whose rows are also shown by the tiers of `precision`, where the adapter has them. */
const PRECISE_SUITES = 'A';

const resultFile = (name, ending) => join(root, 'bench/results', `${name}.${ending}`);

function readLines(path) {
  const [about, ...lines] = readFileSync(path, 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line));
  return { about, lines };
}

const said = (command, ...args) => spawnSync(command, args, { encoding: 'utf8' }).stdout?.trim() ?? '';

const infoOf = backend =>
  JSON.parse(said(process.execPath, join(root, 'dist/src/cli/main.js'), 'info', '--json')).backends[backend];

/** The machine and the software in sentences, for whoever reads the table elsewhere. */
function describeMachine() {
  const file = path => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  };
  const facts = file('/proc/cpuinfo');
  const fact = name => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(facts)?.[1] ?? '?';
  const caches = [0, 1, 2, 3].flatMap(index => {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${index}`;
    const [level, type, size] = ['level', 'type', 'size'].map(name => file(join(folder, name)).trim());
    return level ? [`L${level} ${type.toLowerCase()} ${size}`] : [];
  });
  const wide = ['avx2', 'avx512f'].filter(flag => ` ${fact('flags')} `.includes(` ${flag} `));
  const system = /^PRETTY_NAME="(.*)"$/m.exec(file('/etc/os-release'))?.[1] ?? process.platform;
  const machine = [
    `${cpus().length} processors (${fact('model name')}, family ${fact('cpu family')} model ${fact('model')}, ${wide.join(', ')})`,
    caches.join(', '),
    `${Math.round(totalmem() / 2 ** 30)} GiB`,
    `${system}, Linux ${release()}`,
  ].join('; ');
  const { adapter } = options.backend === 'webgpu' ? infoOf('webgpu') : {};
  const driver = said('nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader');
  const compiler = said('g++', '--version').split('\n')[0];
  const others = Object.entries(versions()).map(([name, version]) => `${name} ${version}`);
  const commit = said('git', '-C', root, 'rev-parse', '--short', 'HEAD');
  const software = [commit && `weightloom ${commit}`, `Node ${process.versions.node}`, compiler, ...others]
    .filter(Boolean)
    .join('; ');
  const gpu = [adapter, driver].filter(Boolean);
  return { machine: [...gpu, machine].join('; '), software };
}

/** The line of an error stream that says what went wrong. */
const tellingLine = text => {
  const lines = text.split('\n').filter(line => line.trim() !== '');
  return lines.find(line => /^\w*Error\b|error: |cannot|not found/.test(line)) ?? lines.at(-1);
};

function compare() {
  const peers = resolve(options.peers);
  const build = resolve(options.build);
  const { suite, backend } = options;
  const wanted = new RegExp(options.case);
  const workloads = selectCases(JSON.parse(readFileSync(join(peers, 'workloads.json'), 'utf8')), wanted);
  const only = options.only?.split(',');
  const chosen = name => only === undefined || name === 'weightloom' || only.includes(name);
  if (backend === 'cpu') buildPrograms(peers, build);
  const scratch = mkdtempSync(join(tmpdir(), 'weightloom-compare-'));
  /** Some environments preset what halves OpenBLAS; Python must not write beside the scripts. */
  const { OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE, ...inherited } = process.env;
  const environment = {
    PEERS_NODE: join(temporary, 'node'),
    PEERS_ORT: join(temporary, 'ort'),
    ...inherited,
    PYTHONDONTWRITEBYTECODE: '1',
    CAL: join(build, 'cal'),
  };
  process.env.PEERS_NODE = environment.PEERS_NODE;
  process.env.PEERS_ORT = environment.PEERS_ORT;
  const prefix = options.prefix.split(' ').filter(word => word !== '');

  const absent = new Set();
  const run = ({ name, command, env, input }, threads) => {
    const [program, ...args] = [...prefix, ...command];
    const { status, stdout, stderr, error } = spawnSync(program, args, {
      encoding: 'utf8',
      input,
      timeout: RUN_MS,
      maxBuffer: 1 << 28,
      env: { ...environment, BENCH_THREADS: threads, ...env },
    });
    const found = (stdout ?? '').split('\n').filter(line => line.startsWith('{'));
    const lines = found.map(line => JSON.parse(line));
    if (status !== 0 && !lines.some(({ ms }) => ms !== undefined)) {
      const why = lines[0]?.error ?? error?.message ?? tellingLine(stderr);
      console.error(`${name} is left out: ${why || `exit code ${status}`}`);
      absent.add(name);
    }
    return lines
      .filter(({ w, id }) => w !== undefined && (w === 'L' || wanted.test(id)))
      .map(line => (line.error ? { ...line, error: line.error.replace(/\/\S+/g, '…') } : line));
  };
  const ours = (w, threads, precision = 'highest') => ({
    name: precision === 'highest' ? 'weightloom' : `weightloom-${precision}`,
    suites: suite,
    command: [
      ...[process.execPath, join(root, 'dist/src/cli/main.js'), 'bench', '--json', '--suite', `L${w}`],
      ...[
        '--threads',
        threads,
        '--backend',
        backend,
        '--precision',
        precision,
        '--workloads',
        join(scratch, 'workloads.json'),
      ],
      ...(options.case === '' ? [] : ['--case', options.case]),
    ],
    env: {},
  });

  const all = [];
  /** Runs one group of rows for all rounds and returns its lines. */
  const runGroup = (w, threads, group) => {
    stage(peers, scratch, group);
    const lines = [];
    let members = [
      ours(w, threads),
      ...(backend === 'webgpu' && PRECISE_SUITES.includes(w)
        ? ['high', 'medium']
            .map(precision => ours(w, threads, precision))
            .filter(({ name }) => !absent.has(name))
        : []),
      ...peersOf({ backend, threads, suite: w, scratch, build, workloads: group }).filter(
        ({ name, suites }) => suites.includes(w) && chosen(name) && !absent.has(name),
      ),
    ];
    for (let round = 1; round <= Number(options.rounds); round++) {
      for (const member of round % 2 === 1 ? members : members.toReversed()) {
        const found = run(member, threads);
        // The nominal rate that the peers' own calibration is a fraction of.
        const fma = found.find(({ id, peer }) => id === 'fma' && peer.startsWith('weightloom-'));
        if (fma) environment.NOMINAL_GFLOPS = String(fma.gflops / Number(threads));
        lines.push(...found.map(line => ({ ...line, round })));
        const timed = found.filter(({ ms }) => ms !== undefined).length;
        console.error(
          `${idsOf(group, w)[0]}…, threads ${threads}, round ${round}: ${member.name}, ${timed} times`,
        );
      }
      members = members.filter(
        ({ name }) => name === 'weightloom' || (!absent.has(name) && contends(lines, name)),
      );
    }
    return lines;
  };

  for (const threads of options.threads.split(','))
    for (const w of suite) {
      if (idsOf(workloads, w).length === 0 || performance.now() > 1e3 * Number(options.budget)) continue;
      const groups =
        w === 'C' ? workloads.C.T.map(T => ({ ...workloads, C: { ...workloads.C, T: [T] } })) : [workloads];
      for (const group of groups) all.push(...runGroup(w, threads, group));
    }
  rmSync(scratch, { recursive: true, force: true });
  return all;
}

/** True if the peer's time is near the best peer's on one row at least. */
function contends(lines, name) {
  const others = lines.filter(({ peer, ms }) => ms !== undefined && !peer.startsWith('weightloom-'));
  return others.some(
    line =>
      line.peer === name &&
      others.every(({ id, pass, ms }) => id !== line.id || pass !== line.pass || line.ms <= CONTENDS * ms),
  );
}

let about;
let lines;
if (options.from) {
  ({ about, lines } = readLines(options.from));
} else {
  try {
    lines = compare();
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    console.error(`no ${error.path}; expected --peers DIR with workloads.json and the peers' sources`);
    process.exit(2);
  }
  const told = ['suite', 'case', 'threads', 'rounds', 'backend', 'only', 'name'];
  const given = told.flatMap(key => (options[key] ? [`--${key}`, options[key]] : []));
  about = {
    backend: options.backend,
    title: `weightloom on ${options.backend} beside its peers`,
    ...describeMachine(),
    date: new Date().toISOString().slice(0, 10),
    command: ['node bench/compare.mjs', ...given].join(' '),
  };
}
const text = render(lines, about);
console.log(text);
const name = options.name;
if (name) {
  mkdirSync(join(root, 'bench/results'), { recursive: true });
  writeFileSync(resultFile(name, 'md'), text);
  writeFileSync(
    resultFile(name, 'jsonl'),
    `${[about, ...lines].map(line => JSON.stringify(line)).join('\n')}\n`,
  );
}
